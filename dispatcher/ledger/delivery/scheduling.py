"""Which chunk is to be worked on when: due ones go onto the broker a few at a time, lost ones are found again, done ones closed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from dispatcher.domain.message_id import MessageId
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.delivery import unresolved
from dispatcher.ledger.delivery.claims import Chunk


@dataclass(frozen=True, slots=True)
class DueChunk:
    """A chunk to be put on the broker now. `priority` is the campaign's; None marks a trigger.

    One chunk of each campaign is `ahead` of the rest: those go first, campaign by campaign, so that a small one needn't wait
    for all that a large one has on the broker.
    """

    period: int
    number: int
    priority: int | None
    ahead: bool = False


# How a chunk `k` stands, from its messages alone: comparing jobs with messages, pair by pair, would cost the square of a chunk.
_STANDING = """
    LATERAL (SELECT count(DISTINCT m.row) AS dealt_with, count(m.receipt) AS accepted,
                    count(*) FILTER (WHERE m.state IN ('pending', 'claimed')) AS open
             FROM messages m WHERE m.period = k.period AND m.chunk = k.chunk) s
"""
_IS_DONE = "s.dealt_with = k.size AND s.open = 0"


def close(connection: Connection, chunk: Chunk, now: datetime) -> bool:
    """Mark a chunk as done if every job of it has been dealt with; parked messages open it again when they fall due.

    What providers took of it is counted here, once a chunk: the complaint brake divides by it.
    """
    return bool(
        connection.execute(
            f"""
            UPDATE chunks c SET done_at = %s, accepted = s.accepted FROM chunks k, {_STANDING}
            WHERE k.period = %s AND k.chunk = %s AND {_IS_DONE}
              AND c.period = k.period AND c.chunk = k.chunk AND c.done_at IS NULL
            """,
            (now, chunk.period, chunk.number),
        ).rowcount
    )


def take_due(connection: Connection, now: datetime, stale: datetime, window: int) -> list[DueChunk]:
    """Chunks to put on the broker now, marked as touched: due and never put there, or put there before `stale` and not done.

    Each running campaign has at most `window` chunks under way: the broker stays short whatever the audience, campaigns share the
    workers fairly, and a pause or cancel is felt at once.
    """
    rows = connection.execute(
        """
        WITH under_way AS (
            SELECT c.no, c.period, (c.spec->>'priority')::int AS priority,
                   (SELECT count(*) FROM chunks k WHERE k.period = c.period AND k.campaign_no = c.no
                     AND k.done_at IS NULL AND k.touched_at >= %(stale)s) AS n
            FROM campaigns c WHERE c.state = 'running'
        ), of_campaigns AS (
            SELECT k.period, k.chunk, u.priority, CASE u.n WHEN 0 THEN u.no END AS begun FROM under_way u CROSS JOIN LATERAL (
                SELECT period, chunk FROM chunks k
                WHERE k.period = u.period AND k.campaign_no = u.no AND k.done_at IS NULL AND k.due_at <= %(now)s
                  AND (k.touched_at IS NULL OR k.touched_at < %(stale)s)
                ORDER BY k.due_at, k.chunk LIMIT greatest(%(window)s - u.n, 0) FOR UPDATE SKIP LOCKED
            ) k
        ), of_triggers AS (
            SELECT period, chunk, NULL::int AS priority, NULL::bigint AS begun FROM chunks
            WHERE campaign_no IS NULL AND done_at IS NULL AND due_at <= %(now)s
              AND (touched_at IS NULL OR touched_at < %(stale)s)
            LIMIT 1000 FOR UPDATE SKIP LOCKED
        ), picked AS (
            SELECT * FROM of_campaigns UNION ALL SELECT * FROM of_triggers
        )
        UPDATE chunks k SET touched_at = %(now)s FROM picked p WHERE k.period = p.period AND k.chunk = p.chunk
        RETURNING k.period, k.chunk, p.priority, p.begun
        """,
        {"now": now, "stale": stale, "window": window},
    ).fetchall()
    rows.sort()
    first = {begun: number for _, number, _, begun in reversed(rows) if begun is not None}
    return [DueChunk(period, number, priority, first.get(begun) == number) for period, number, priority, begun in rows]


def take_next(connection: Connection, chunk: Chunk, now: datetime) -> list[DueChunk]:
    """The next chunk of the same campaign, in place of one just done; empty when none is due."""
    rows = connection.execute(
        """
        UPDATE chunks k SET touched_at = %(now)s FROM campaigns c
        WHERE c.no = %(no)s AND c.state = 'running' AND k.period = %(period)s AND k.chunk = (
            SELECT chunk FROM chunks
            WHERE period = %(period)s AND campaign_no = %(no)s AND done_at IS NULL AND touched_at IS NULL AND due_at <= %(now)s
            ORDER BY due_at, chunk LIMIT 1 FOR UPDATE SKIP LOCKED)
        RETURNING k.period, k.chunk, (c.spec->>'priority')::int
        """,
        {"now": now, "no": chunk.campaign_no, "period": chunk.period},
    ).fetchall()
    return [DueChunk(period, number, priority) for period, number, priority in rows]


def release_parked(connection: Connection, now: datetime, limit: int) -> int:
    """Held and waiting messages whose time has come are pending again; a leg that had its time is followed by the next, pending.
    Their chunks are open again. Says how many.
    """
    with connection.transaction():
        row = connection.execute(
            """
            WITH due AS (
                SELECT period, chunk, row, leg, state, campaign_no, recipient_id FROM messages WHERE until <= %(now)s
                ORDER BY until LIMIT %(limit)s FOR UPDATE SKIP LOCKED
            ), released AS (
                UPDATE messages m SET state = CASE WHEN d.state IN ('held', 'waiting') THEN 'pending' ELSE d.state END,
                       until = NULL, updated_at = %(now)s
                FROM due d
                WHERE m.period = d.period AND m.chunk = d.chunk AND m.row = d.row AND m.leg = d.leg
                RETURNING m.period, m.chunk
            ), fallen_back AS (
                INSERT INTO messages (period, chunk, row, leg, campaign_no, updated_at, recipient_id, state, decision)
                SELECT period, chunk, row, leg + 1, campaign_no, %(now)s, recipient_id, 'pending', '{}' FROM due
                WHERE state IN ('accepted', 'failed', 'dead', 'bounced') ON CONFLICT DO NOTHING
            ), opened AS (
                UPDATE chunks k SET done_at = NULL, touched_at = NULL
                FROM (SELECT DISTINCT period, chunk FROM released) r WHERE k.period = r.period AND k.chunk = r.chunk
            ), goes_on AS (
                UPDATE campaigns SET state = 'running', finished_at = NULL
                WHERE state = 'finished' AND no IN (SELECT campaign_no FROM due)
            )
            SELECT count(*) FROM released
            """,
            {"now": now, "limit": limit},
        ).fetchone()
    return int(row[0]) if row else 0


def resolve_orphans(connection: Connection, now: datetime, stale: datetime) -> int:
    """Claims whose worker never came back may have gone: `unresolved`, never sent again by a machine. Says how many."""
    lost = connection.execute(
        """
        UPDATE messages m SET state = 'unresolved', reason = 'worker_lost', updated_at = %(now)s
        FROM chunks k
        WHERE k.done_at IS NULL AND k.touched_at IS NOT NULL AND m.period = k.period AND m.chunk = k.chunk
          AND m.state = 'claimed' AND m.claimed_at < %(stale)s
        RETURNING m.period, m.chunk, m.row, m.leg
        """,
        {"now": now, "stale": stale},
    ).fetchall()
    unresolved.open_(connection, [MessageId(*place) for place in lost], now)
    return len(lost)


def close_stopped(connection: Connection, now: datetime) -> int:
    """Close the chunks of cancelled campaigns in which nothing is claimed any more; says how many."""
    return connection.execute(
        f"""
        UPDATE chunks d SET done_at = %s FROM campaigns c JOIN chunks k ON k.period = c.period AND k.campaign_no = c.no, {_STANDING}
        WHERE c.state = 'cancelled' AND k.done_at IS NULL AND {_IS_DONE} AND d.period = k.period AND d.chunk = k.chunk
        """,
        (now,),
    ).rowcount

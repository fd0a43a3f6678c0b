"""When to work on which chunk: put due chunks on the broker a few at a time, publish lost ones again, close finished ones.

`touched_at`: when the chunk was last published, or a worker last claimed a batch of it. NULL: not on the broker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from dispatcher.domain.message_id import MessageId
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.delivery import cap_reservations, fallback_legs, pace, unresolved
from dispatcher.ledger.delivery.chunks import Chunk
from dispatcher.ledger.events import outbox
from dispatcher.ledger.maintenance import generations
from dispatcher.ledger.message_key import KEY, in_cancelled_campaign, key_of, same_chunk, same_message


@dataclass(frozen=True, slots=True)
class DueChunk:
    """A chunk to be put on the broker now. `priority` is the campaign's; None marks a trigger.

    The first chunk of each campaign goes before the others, so that a small campaign does not wait for all chunks that a large one
    has on the broker.
    """

    period: int
    number: int
    priority: int | None
    is_first_of_campaign: bool = False
    is_repeat: bool = False  # published before: new work goes first
    trace: str | None = None  # what is done with it belongs to this trace
    place: tuple[str, int, int] | None = None  # its campaign's id, and that it is the chunk n of m; for people, in Flower
    more: tuple[int, ...] = ()  # chunks of the same campaign that the same task goes on with

    @property
    def numbers(self) -> tuple[int, ...]:
        """All chunks of the message."""
        return (self.number, *self.more)


@dataclass(frozen=True, slots=True)
class LaneDepths:
    """How many broker messages wait in a lane; None where the broker does not say."""

    campaign: int | None = None
    transactional: int | None = None


UNKNOWN_DEPTHS = LaneDepths()

# A task works on so many chunks of a campaign: the last messages of one travel while the next is decided. More would hold up other
# campaigns for more than some seconds.
CHUNKS_TOGETHER_MAX = 5
PARTS_MIN = 4  # what a campaign has to publish is split into at least so many messages, for as many processes


# The progress of a chunk `k`. Count messages only: joining jobs with messages can take quadratic time in the chunk size.
_PROGRESS = f"""
    LATERAL (SELECT count(DISTINCT m.row) AS decided, count(m.receipt) AS accepted,
                    count(*) FILTER (WHERE m.state IN ('pending', 'claimed')) AS open
             FROM messages m WHERE {same_chunk("m", "k")}) s
"""
_IS_DONE = "s.decided = k.size AND s.open = 0"


def close(connection: Connection, chunk: Chunk, now: datetime) -> bool:
    """Mark a chunk as done if nothing of it is pending or claimed. Its held and waiting messages open it again when they are due.

    Counts its accepted messages here, once per chunk: the complaint brake divides by that number.
    """
    return bool(
        connection.execute(
            f"""
            UPDATE chunks c SET done_at = %s, accepted = s.accepted FROM chunks k, {_PROGRESS}
            WHERE k.period = %s AND k.chunk = %s AND {_IS_DONE}
              AND {same_chunk("c", "k")} AND c.done_at IS NULL
            """,
            (now, chunk.period, chunk.number),
        ).rowcount
    )


# A published chunk `k` counts as lost when nobody has worked on it for so long: a lease, then two, four … up to 64.
_IS_LOST = "k.touched_at < %(now)s - %(lease)s * 2 ^ least(k.repeats, 6)"


TRACED_CHUNKS = 20  # of a campaign, evenly spread: viewers refuse a trace of a million spans

# The trace that the work on a chunk `k` belongs to: of its trigger, or of its campaign where it is one of those chunks.
_TRACE = f"""
    CASE WHEN k.campaign_no IS NULL THEN (SELECT t.spec->>'trace' FROM triggers t WHERE t.chunk = k.chunk)
         ELSE (SELECT CASE WHEN (k.chunk - r.first) %% (1 + (r.last - r.first) / {TRACED_CHUNKS}) = 0 THEN s.spec->>'trace' END
               FROM campaigns s, LATERAL (SELECT min(chunk) AS first, max(chunk) AS last FROM chunks
                                          WHERE campaign_no = s.no AND period = s.period) r
               WHERE s.no = k.campaign_no AND s.spec ? 'trace') END
"""

PLACED_CHUNKS_MAX = 5_000  # counting more of them costs more than half a millisecond

# The `place` of a chunk `k` of a campaign. Numbers of chunks have gaps, so that they must be counted.
_PLACE = f"""
    (SELECT jsonb_build_array(s.id, p.n, p.m) FROM campaigns s, LATERAL (
        SELECT count(*) FILTER (WHERE o.chunk <= k.chunk) AS n, count(*) AS m FROM (
            SELECT chunk FROM chunks WHERE campaign_no = s.no AND period = s.period LIMIT {PLACED_CHUNKS_MAX + 1}) o) p
     WHERE s.no = k.campaign_no AND p.m <= {PLACED_CHUNKS_MAX})
"""


def take_due(
    connection: Connection, now: datetime, lease: timedelta, chunks_max: int, depths: LaneDepths = UNKNOWN_DEPTHS
) -> list[DueChunk]:
    """Chunks to put on the broker now, marked as published: those that are due and were not there, and those that seem lost.

    Each running campaign has at most `chunks_max` chunks on the broker. So the queue stays short whatever the audience, campaigns
    share the workers fairly, and a pause or cancel works at once. Of a campaign with a rate, only what has its turn is taken.
    Several chunks of a large campaign may share a broker message (`more`), but not those of one with a rate, nor repeats.

    A chunk seems lost when nobody has worked on it for a lease. While workers are stopped, that holds for all of them. But at most
    (published chunks - chunks that the broker messages in the lane may hold) can be lost; only so many are published again.
    """
    rows = connection.execute(
        f"""
        WITH running AS (  -- running campaigns that have their turn, each with its open chunks that are published
            SELECT c.no, c.period, (c.spec->>'priority')::int AS priority,
                   (SELECT count(*) FROM chunks k WHERE k.period = c.period AND k.campaign_no = c.no
                     AND k.done_at IS NULL AND k.touched_at IS NOT NULL) AS published, {pace.CHUNKS_A_TICK} AS most
            FROM campaigns c WHERE c.state = 'running' AND {pace.HAS_TURN}
        ), campaign_chunks AS (  -- due chunks of campaigns; `started_campaign` where none of the campaign is on the broker yet
            SELECT k.period, k.chunk, u.priority, CASE u.published WHEN 0 THEN u.no END AS started_campaign,
                   CASE WHEN u.most IS NULL THEN u.no END AS unpaced_campaign
            FROM running u CROSS JOIN LATERAL (
                SELECT period, chunk FROM chunks k
                WHERE k.period = u.period AND k.campaign_no = u.no AND k.done_at IS NULL AND k.due_at <= %(now)s
                  AND k.touched_at IS NULL
                ORDER BY k.due_at, k.chunk LIMIT least(greatest(%(chunks_max)s - u.published, 0), u.most) FOR UPDATE SKIP LOCKED
            ) k
        ), trigger_chunks AS (  -- due triggers
            SELECT period, chunk, NULL::int AS priority, NULL::bigint AS started_campaign FROM chunks
            WHERE campaign_no IS NULL AND done_at IS NULL AND due_at <= %(now)s AND touched_at IS NULL
            LIMIT 1000 FOR UPDATE SKIP LOCKED
        ), lost_campaign_chunks AS (  -- published chunks of campaigns that seem lost
            SELECT k.period, k.chunk, u.priority, u.no AS started_campaign FROM running u CROSS JOIN LATERAL (
                SELECT period, chunk FROM chunks k
                WHERE k.period = u.period AND k.campaign_no = u.no AND k.done_at IS NULL AND k.due_at <= %(now)s AND {_IS_LOST}
                ORDER BY k.touched_at LIMIT least(%(chunks_max)s, u.most) FOR UPDATE SKIP LOCKED
            ) k
            LIMIT CASE WHEN %(campaign_depth)s::int IS NOT NULL THEN
                greatest(0, (SELECT sum(published)::bigint FROM running) - %(campaign_depth)s::int * {CHUNKS_TOGETHER_MAX}) END
        ), lost_trigger_chunks AS (  -- published triggers that seem lost
            SELECT k.period, k.chunk, NULL::int AS priority, NULL::bigint AS started_campaign FROM chunks k
            WHERE k.campaign_no IS NULL AND k.done_at IS NULL AND k.due_at <= %(now)s AND {_IS_LOST}
            ORDER BY k.touched_at
            LIMIT least(1000, CASE WHEN %(trigger_depth)s::int IS NOT NULL THEN
                greatest(0, (SELECT count(*) FROM chunks WHERE campaign_no IS NULL AND done_at IS NULL AND touched_at IS NOT NULL)
                            - %(trigger_depth)s::int) END)
            FOR UPDATE SKIP LOCKED
        ), picked AS (  -- all of the above
            SELECT *, false AS is_repeat FROM campaign_chunks UNION ALL SELECT *, NULL, false FROM trigger_chunks
            UNION ALL SELECT *, NULL, true FROM lost_campaign_chunks UNION ALL SELECT *, NULL, true FROM lost_trigger_chunks
        )
        UPDATE chunks k SET touched_at = %(now)s, published_at = %(now)s,
            repeats = CASE WHEN p.is_repeat THEN k.repeats + 1 ELSE 0 END
        FROM picked p WHERE {same_chunk("k", "p")}
        RETURNING k.period, k.chunk, p.priority, p.started_campaign, p.unpaced_campaign, p.is_repeat, {_TRACE}, {_PLACE}
        """,
        {
            "now": now,
            "soon": now + pace.EARLY,
            "lease": lease,
            "chunks_max": chunks_max,
            "campaign_depth": depths.campaign,
            "trigger_depth": depths.transactional,
        },
    ).fetchall()
    rows.sort(key=lambda row: row[:2])
    first = {campaign: number for _, number, _, campaign, *_ in reversed(rows) if campaign is not None}
    due = [
        (unpaced, DueChunk(period, number, priority, first.get(campaign) == number, is_repeat, trace, _place(place)))
        for period, number, priority, campaign, unpaced, is_repeat, trace, place in rows
    ]
    return _sharing_messages(due)


def _sharing_messages(due: Sequence[tuple[int | None, DueChunk]]) -> list[DueChunk]:
    """Chunks of one campaign without a rate, given with its number, share messages. A campaign's first goes alone, to be early."""
    messages = [chunk for campaign, chunk in due if campaign is None or chunk.is_first_of_campaign]
    by_campaign: dict[int, list[DueChunk]] = {}
    for campaign, chunk in due:
        if campaign is not None and not chunk.is_first_of_campaign:
            by_campaign.setdefault(campaign, []).append(chunk)
    for chunks in by_campaign.values():
        messages += _messages(chunks, max(1, min(CHUNKS_TOGETHER_MAX, len(chunks) // PARTS_MIN)))
    return messages


def _messages(chunks: Sequence[DueChunk], size: int) -> list[DueChunk]:
    """Chunks of one campaign, at most so many in a message. One with a trace begins a message, since all of that belongs to it."""
    messages: list[list[DueChunk]] = []
    for chunk in chunks:
        if not messages or len(messages[-1]) == size or chunk.trace is not None:
            messages.append([])
        messages[-1].append(chunk)
    return [replace(first, more=tuple(chunk.number for chunk in others)) for first, *others in messages]


def oldest_published(connection: Connection) -> Mapping[str, datetime]:
    """When the oldest chunk was published that no worker has begun, by lane; without lanes that have none."""
    rows = connection.execute(
        """
        SELECT CASE WHEN k.campaign_no IS NULL THEN 'transactional' ELSE 'campaign' END, min(k.published_at)
        FROM chunks k WHERE k.done_at IS NULL AND k.touched_at = k.published_at
          AND NOT EXISTS (SELECT FROM campaigns c WHERE c.no = k.campaign_no AND c.state <> 'running')
        GROUP BY 1
        """
    ).fetchall()
    return dict(rows)


def needs_no_work(connection: Connection, period: int, number: int, since: datetime) -> bool:
    """Whether there is nothing to do for a broker message of this chunk.

    Either the chunk is done, or a worker claimed a part of it after it was published, and after `since`.
    """
    return (
        connection.execute(
            """
            SELECT FROM chunks WHERE period = %s AND chunk = %s
              AND (done_at IS NOT NULL OR touched_at > greatest(published_at, %s))
            """,
            (period, number, since),
        ).fetchone()
        is not None
    )


def mark_task_published(connection: Connection, task: str, now: datetime, again_after: timedelta) -> bool:
    """Mark a task as published, and return True. False where a broker message of it waits already.

    True again after `mark_task_started`, or after `again_after`. Most callers only read, so they do not block each other.
    """
    return bool(
        connection.execute(
            """
            INSERT INTO published_tasks AS p (task, published_at) SELECT %(task)s, %(now)s
            WHERE NOT EXISTS (SELECT FROM published_tasks WHERE task = %(task)s AND published_at > %(lost)s)
            ON CONFLICT (task) DO UPDATE SET published_at = excluded.published_at WHERE p.published_at <= %(lost)s
            """,
            {"task": task, "now": now, "lost": now - again_after},
        ).rowcount
    )


def mark_task_started(connection: Connection, task: str) -> None:
    """Record that the task has started: what is written from now on needs another broker message."""
    connection.execute("DELETE FROM published_tasks WHERE task = %s", (task,))


def put_back(connection: Connection, period: int, numbers: Sequence[int]) -> None:
    """Make chunks due again that a task had and did not finish."""
    connection.execute(
        "UPDATE chunks SET touched_at = NULL WHERE period = %s AND chunk = ANY(%s) AND done_at IS NULL", (period, list(numbers))
    )


def take_next(connection: Connection, chunk: Chunk, now: datetime, chunks_max: int = 1) -> list[DueChunk]:
    """The next due chunks of the same campaign, in place of as many just done; one where the campaign has a rate.

    They share a message, but one with a trace begins another.
    Empty if none is due, or if the campaign's rate does not allow one now.
    """
    rows = connection.execute(
        f"""
        UPDATE chunks k SET touched_at = %(now)s, published_at = %(now)s, repeats = 0 FROM campaigns c
        WHERE c.no = %(no)s AND c.state = 'running' AND {generations.IS_RELEASED} AND {pace.HAS_TURN}
          AND k.period = %(period)s AND k.chunk IN (
            SELECT chunk FROM chunks
            WHERE period = %(period)s AND campaign_no = %(no)s AND done_at IS NULL AND touched_at IS NULL AND due_at <= %(now)s
            ORDER BY due_at, chunk
            LIMIT (SELECT CASE WHEN spec->>'rate_per_second' IS NULL THEN %(most)s ELSE 1 END FROM campaigns WHERE no = %(no)s)
            FOR UPDATE SKIP LOCKED)
        RETURNING k.period, k.chunk, (c.spec->>'priority')::int, {_TRACE}, {_PLACE}
        """,
        {"now": now, "soon": now + pace.EARLY, "no": chunk.campaign_no, "period": chunk.period, "most": chunks_max},
    ).fetchall()
    due = [DueChunk(period, number, priority, trace=trace, place=_place(place)) for period, number, priority, trace, place in rows]
    return _messages(sorted(due, key=lambda each: each.number), chunks_max)


def _place(stored: list[Any] | None) -> tuple[str, int, int] | None:
    return (stored[0], stored[1], stored[2]) if stored else None


def reopen_due_messages(connection: Connection, now: datetime, limit: int) -> int:
    """Make due held and waiting messages pending again, add the next leg where it is due, and reopen their chunks.

    Those of a cancelled campaign become cancelled, and no leg follows them. Returns the number of messages.
    """
    with connection.transaction():
        row = connection.execute(
            f"""
            WITH due AS (
                SELECT {KEY}, state, campaign_no, recipient_id, {in_cancelled_campaign("messages")} AS is_cancelled
                FROM messages WHERE until <= %(now)s
                ORDER BY until LIMIT %(limit)s FOR UPDATE SKIP LOCKED
            ), reopened AS (
                UPDATE messages m
                SET state = CASE WHEN d.state NOT IN ('held', 'waiting') THEN d.state
                                 WHEN d.is_cancelled THEN 'cancelled' ELSE 'pending' END,
                    reason = CASE WHEN d.is_cancelled AND d.state IN ('held', 'waiting') THEN 'cancelled' ELSE m.reason END,
                    until = NULL, updated_at = %(now)s
                FROM due d
                WHERE {same_message("m", "d")}
                RETURNING {outbox.changed("m")}, d.is_cancelled, m.state <> d.state AS is_new
            ), to_outbox AS ({outbox.enter("reopened", "is_new")}
            ), next_legs AS ({fallback_legs.INSERT_NEXT}
            ), reopened_chunks AS (
                UPDATE chunks k SET done_at = NULL, touched_at = NULL
                FROM (SELECT DISTINCT period, chunk FROM reopened WHERE NOT is_cancelled) r WHERE {same_chunk("k", "r")}
            ), resumed_campaigns AS (
                UPDATE campaigns SET state = 'running', finished_at = NULL
                WHERE state = 'finished' AND no IN (SELECT campaign_no FROM due)
            )
            SELECT count(*) FROM reopened
            """,
            {"now": now, "limit": limit},
        ).fetchone()
    return int(row[0]) if row else 0


def expire_claims(connection: Connection, now: datetime, claimed_before: datetime) -> int:
    """End claims older than `claimed_before`, whose workers count as lost. Runs in the caller's transaction.

    Returns the number of messages.

    Where a byte of the claim may have been sent, its messages become `unresolved`. They are never sent again automatically. The
    claim keeps its number, so that the worker may still settle if it comes back. A claim that was never started is revoked, and its
    messages are pending again. Start and revocation use the same primary key, so only one of them can be stored.
    """
    expired = connection.execute(
        f"""
        WITH expired AS (
            SELECT {key_of("m")}, m.claim_no FROM messages m JOIN chunks k ON {same_chunk("m", "k")}
            WHERE k.done_at IS NULL AND k.touched_at IS NOT NULL AND m.state = 'claimed' AND m.claimed_at < %(claimed_before)s
            FOR UPDATE OF m
        ), revoked AS (
            INSERT INTO claim_starts (claim_no, is_revoked)
            SELECT DISTINCT claim_no, true FROM expired WHERE claim_no IS NOT NULL ORDER BY 1
            ON CONFLICT DO NOTHING RETURNING claim_no
        ), reopened AS (
            UPDATE chunks k SET touched_at = NULL
            FROM (SELECT DISTINCT period, chunk FROM expired WHERE claim_no IN (SELECT claim_no FROM revoked)) e
            WHERE {same_chunk("k", "e")}
        ), ended AS (
            UPDATE messages m
            SET state = CASE WHEN r.claim_no IS NULL THEN 'unresolved' ELSE 'pending' END,
                reason = CASE WHEN r.claim_no IS NULL THEN 'worker_lost' END,
                claim_no = CASE WHEN r.claim_no IS NULL THEN e.claim_no END, updated_at = %(now)s
            FROM expired e LEFT JOIN revoked r ON r.claim_no = e.claim_no WHERE {same_message("m", "e")}
            RETURNING {outbox.changed("m")}
        ), to_outbox AS ({outbox.enter("ended")}
        )
        SELECT {KEY} FROM ended
        """,
        {"now": now, "claimed_before": claimed_before},
    ).fetchall()
    ids = [MessageId(*key) for key in expired]
    unresolved.add(connection, ids, now)
    cap_reservations.release(connection, ids)
    return len(ids)


def close_cancelled(connection: Connection, now: datetime) -> int:
    """Close the chunks of cancelled campaigns in which nothing is claimed any more; returns their number.

    What became pending or waiting while the campaign was cancelled is cancelled here.
    """
    connection.execute(
        f"""
        WITH cancelled AS (
            UPDATE messages m SET state = 'cancelled', reason = 'cancelled', until = NULL, updated_at = %s
            FROM campaigns c JOIN chunks k ON k.period = c.period AND k.campaign_no = c.no
            WHERE c.state = 'cancelled' AND k.done_at IS NULL AND {same_chunk("m", "k")}
              AND m.state IN ('pending', 'held', 'waiting')
            RETURNING {outbox.changed("m")}
        )
        {outbox.enter("cancelled")}
        """,
        (now,),
    )
    return connection.execute(
        f"""
        UPDATE chunks d SET done_at = %s FROM campaigns c JOIN chunks k ON k.period = c.period AND k.campaign_no = c.no, {_PROGRESS}
        WHERE c.state = 'cancelled' AND k.done_at IS NULL AND {_IS_DONE} AND {same_chunk("d", "k")}
        """,
        (now,),
    ).rowcount

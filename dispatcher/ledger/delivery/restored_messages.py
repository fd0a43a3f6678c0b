"""Messages after a restore of the ledger: what may have been sent in the time that it lost.

A message that may have been sent has the reason `ledger_restored`. So has a job without a message, by `chunks.is_restored`. Such a
message passes through all steps, but at the claim it becomes `unresolved`: look-ups and people resolve it, as all others.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from dispatcher.domain.message_id import MessageId
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.delivery import unresolved
from dispatcher.ledger.delivery.unresolved import RESTORED
from dispatcher.ledger.events import outbox
from dispatcher.ledger.message_key import KEY, same_chunk


@dataclass(frozen=True, slots=True)
class OpenWork:
    """A campaign, or all triggers (`campaign_id` None), that was open at the moment of the restore. `open` counts what has no final
    state; `due_at` is when the first of it was due."""

    campaign_no: int | None
    campaign_id: str | None
    state: str | None
    open: int
    due_at: datetime


def give_up_claims(connection: Connection, now: datetime) -> int:
    """Make all claimed messages unresolved, in the caller's transaction; returns their number.

    Nobody knows whether they were sent after the moment of the restore. They keep their claim numbers, as after a lost worker.
    """
    rows = connection.execute(
        f"""
        WITH given_up AS (
            UPDATE messages m SET state = 'unresolved', reason = %(reason)s, updated_at = %(now)s
            FROM chunks k WHERE {same_chunk("m", "k")} AND k.done_at IS NULL AND m.state = 'claimed'
            RETURNING {outbox.changed("m")}
        ), to_outbox AS ({outbox.enter("given_up")}
        )
        SELECT {KEY} FROM given_up
        """,
        {"now": now, "reason": RESTORED},
    ).fetchall()
    unresolved.add(connection, [MessageId(*key) for key in rows], now)
    return len(rows)


# Messages that can still be sent, by chunk: in open chunks, and those that wait in chunks that are done.
_OPEN = f"""
    SELECT k.campaign_no, k.size - count(DISTINCT m.row)
           + count(*) FILTER (WHERE m.state IN ('pending', 'claimed', 'held', 'waiting')) AS open, k.due_at
    FROM chunks k LEFT JOIN messages m ON {same_chunk("m", "k")}
    WHERE k.done_at IS NULL GROUP BY k.period, k.chunk
    UNION ALL
    SELECT k.campaign_no, count(*), min(k.due_at) FROM messages m JOIN chunks k ON {same_chunk("m", "k")}
    WHERE m.until IS NOT NULL AND k.done_at IS NOT NULL GROUP BY k.campaign_no
"""


def open_work(connection: Connection) -> list[OpenWork]:
    """All open campaigns, and the triggers as one."""
    rows = connection.execute(
        f"""
        SELECT c.no, c.id, c.state, sum(o.open)::bigint, min(o.due_at) FROM ({_OPEN}) o
        LEFT JOIN campaigns c ON c.no = o.campaign_no
        WHERE c.state IS NULL OR c.state <> 'cancelled' GROUP BY 1, 2, 3 HAVING sum(o.open) > 0 ORDER BY c.no NULLS LAST
        """
    )
    return [OpenWork(*row) for row in rows]


def mark(connection: Connection, campaign_nos: Collection[int], triggers: bool, now: datetime) -> int:
    """Mark what is open of these campaigns, and of all triggers, as perhaps sent, in the caller's transaction.

    Returns the number of messages that have a row. What is held until later than now was not sent: nobody shortens a hold.
    """
    where = "(k.campaign_no = ANY(%(campaigns)s) OR k.campaign_no IS NULL AND %(triggers)s)"
    values = {"campaigns": list(campaign_nos), "triggers": triggers, "reason": RESTORED, "now": now}
    connection.execute(f"UPDATE chunks k SET is_restored = true WHERE k.done_at IS NULL AND {where}", values)
    marked = 0
    for condition in ("k.done_at IS NULL AND m.state = 'pending'", "m.until IS NOT NULL AND m.state IN ('held', 'waiting')"):
        marked += connection.execute(
            f"""
            UPDATE messages m SET reason = %(reason)s FROM chunks k
            WHERE {same_chunk("m", "k")} AND {where} AND {condition} AND NOT (m.state = 'held' AND m.until > %(now)s)
            """,
            values,
        ).rowcount
    return marked

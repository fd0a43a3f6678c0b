"""Cancelling a trigger before it is sent."""

from __future__ import annotations

from datetime import datetime

from dispatcher.domain.message_id import MessageId
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.events import outbox
from dispatcher.ledger.message_key import KEY, key_values, same_chunk, same_job


def place_of(connection: Connection, key: str) -> MessageId | None:
    """The first message of the trigger with this key."""
    row = connection.execute("SELECT period, chunk FROM triggers WHERE key = %s", (key,)).fetchone()
    return MessageId(row[0], row[1], 0, 0) if row else None


def is_trigger(connection: Connection, ref: MessageId) -> bool | None:
    """Whether this is a message of a trigger, or of a campaign; None where there is no such job."""
    row = connection.execute(
        "SELECT campaign_no IS NULL FROM chunks WHERE period = %(period)s AND chunk = %(chunk)s AND %(row)s < size", key_values(ref)
    ).fetchone()
    return bool(row[0]) if row else None


def cancel(connection: Connection, ref: MessageId, now: datetime) -> bool:
    """Cancel what is not claimed of a trigger; False where nothing is left to cancel.

    The key of the message decides a race with a claim: whoever writes it first wins, and the other sees it. What is claimed goes
    on; a leg that would follow does not.
    """
    parameters = {**key_values(ref), "now": now}
    with connection.transaction():
        cancelled = connection.execute(
            f"""
            WITH cancelled AS (
                UPDATE messages m SET state = 'cancelled', reason = 'cancelled', until = NULL, updated_at = %(now)s
                WHERE m.period = %(period)s AND m.chunk = %(chunk)s AND m.state IN ('pending', 'held', 'waiting')
                RETURNING {outbox.changed("m")}
            ), withdrawn AS (  -- the next leg
                UPDATE messages m SET until = NULL
                WHERE m.period = %(period)s AND m.chunk = %(chunk)s AND m.until IS NOT NULL
                  AND m.state NOT IN ('pending', 'held', 'waiting') RETURNING 1
            ), entered AS (
                INSERT INTO messages ({KEY}, campaign_no, updated_at, recipient_id, state, reason, decision)
                SELECT j.period, j.chunk, j.row, 0, NULL, %(now)s, j.recipient_id, 'cancelled', 'cancelled', '{{}}'
                FROM jobs j WHERE j.period = %(period)s AND j.chunk = %(chunk)s
                  AND NOT EXISTS (SELECT FROM messages m WHERE {same_job("m", "j")})
                ON CONFLICT DO NOTHING
                RETURNING {outbox.changed("messages")}
            ), all_cancelled AS (
                SELECT * FROM cancelled UNION ALL SELECT * FROM entered
            ), to_outbox AS ({outbox.enter("all_cancelled")}
            )
            SELECT (SELECT count(*) FROM all_cancelled) + (SELECT count(*) FROM withdrawn)
            """,
            parameters,
        ).fetchone()
        connection.execute(
            f"""
            UPDATE chunks k SET done_at = %(now)s
            WHERE k.period = %(period)s AND k.chunk = %(chunk)s AND k.done_at IS NULL
              AND EXISTS (SELECT FROM messages m WHERE {same_chunk("m", "k")})
              AND NOT EXISTS (SELECT FROM messages m WHERE {same_chunk("m", "k")} AND (m.state IN ('claimed', 'pending')
                              OR m.until IS NOT NULL))
            """,
            parameters,
        )
    return bool(cancelled and cancelled[0])

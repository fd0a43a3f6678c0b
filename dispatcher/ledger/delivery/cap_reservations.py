"""Cap reservations: one row per commercial message that was sent or may have been, for as long as any cap looks back.

The transaction that claims a message writes its row, while the recipient's row is locked against other claims. The row is deleted
when the message was certainly not sent. Service messages neither write nor read such rows.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from dispatcher.domain.message_id import MessageId
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.message_key import KEY, KEY_ARRAYS, key_arrays, same_message

# In `gather`: what counts for a job `j`. The legs of one job in a fallback order count as one message.
SENT = """
    CASE WHEN %(since)s::timestamptz IS NOT NULL THEN (
        SELECT jsonb_agg(jsonb_build_array(s.no, s.at, s.channel, s.offer_type)) FROM cap_reservations s
        WHERE s.recipient_id = j.recipient_id AND s.at >= %(since)s::timestamptz
          AND NOT (%(first)s AND s.chunk = j.chunk AND s.row = j.row)) END
"""

# In `claim`, among what changed: the rows whose recipient got another message since `gather`. It is a function because a function
# reads after the locks are taken, which the statement around it does not. No other claim reserves for these recipients at the same
# time, and numbers only grow.
MEANWHILE = """
    UNION ALL
    SELECT sent_meanwhile(array_agg(a.row), array_agg(a.recipient_id), array_agg(a.seen), %(since)s, %(chunk)s, %(first)s)
    FROM asked a WHERE a.state = 'claimed' AND NOT a.is_changed
"""  # a refusal or a hold does not depend on what else the recipient got

# In `claim`, after the messages are written.
RESERVE = """
    , reserved AS (
        INSERT INTO cap_reservations (recipient_id, at, channel, offer_type, chunk, row, leg)
        SELECT recipient_id, %(now)s::timestamptz, channel, %(offer_type)s::text, %(chunk)s::bigint, row, leg
        FROM entered WHERE state = 'claimed'
    )
"""


def release(connection: Connection, refs: Collection[MessageId]) -> int:
    """Delete the reservations of those of these messages that were not sent; returns their number."""
    return connection.execute(
        f"""
        DELETE FROM cap_reservations s USING unnest({KEY_ARRAYS}) AS r ({KEY}), messages m
        WHERE {same_message("m", "r")} AND m.state IN ('failed', 'waiting', 'dead', 'pending', 'cancelled')
          AND s.recipient_id = m.recipient_id AND s.chunk = m.chunk AND s.row = m.row AND s.leg = m.leg
        """,
        key_arrays(refs),
    ).rowcount


def prune(connection: Connection, before: datetime, limit: int) -> int:
    """Delete reservations that are older than the window of every cap, at most `limit`; returns their number."""
    return connection.execute(
        "DELETE FROM cap_reservations WHERE ctid = ANY(ARRAY(SELECT ctid FROM cap_reservations WHERE at < %s LIMIT %s))",
        (before, limit),
    ).rowcount

"""What counts towards frequency caps: one row per commercial message that has left or may have, for as long as a cap looks back.

A row is written in the transaction that claims the message, while the recipient's row is locked against other claims, and goes
again when the message is known not to have left. Service messages neither write rows nor ask for them.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from channels.base import Channel
from dispatcher.domain.message_id import MessageId
from dispatcher.ledger.connection import Connection

# In `gather`: what to count for a job `j`. Legs of one message in a fallback order count as one.
SENT = """
    CASE WHEN %(since)s::timestamptz IS NOT NULL THEN (
        SELECT jsonb_agg(jsonb_build_array(s.no, s.at, s.channel, s.offer_type)) FROM cap_reservations s
        WHERE s.recipient_id = j.recipient_id AND s.at >= %(since)s::timestamptz
          AND NOT (%(first)s AND s.chunk = j.chunk AND s.row = j.row)) END
"""

# In `claim`, among what changed: the rows whose person has got another message since the look. A function, because it looks after
# the locks are had, which the statement around it does not: nobody else reserves for these people meanwhile, and numbers only grow.
MEANWHILE = """
    UNION ALL
    SELECT sent_meanwhile(array_agg(a.row), array_agg(a.recipient_id), array_agg(a.seen), %(since)s, %(chunk)s, %(first)s)
    FROM asked a WHERE a.state = 'claimed' AND NOT a.is_changed
"""  # a refusal or a hold stands whatever else the person got

# In `claim`, after the messages were entered.
RESERVE = """
    , reserved AS (
        INSERT INTO cap_reservations (recipient_id, at, channel, offer_type, chunk, row, leg)
        SELECT recipient_id, %(now)s::timestamptz, channel, %(offer_type)s::text, %(chunk)s::bigint, row, leg
        FROM entered WHERE state = 'claimed'
    )
"""


def release(connection: Connection, refs: Collection[MessageId]) -> int:
    """Forget the reservations of those of these messages that stand as not having left; says how many."""
    return connection.execute(
        """
        DELETE FROM cap_reservations s
        USING unnest(%s::int[], %s::bigint[], %s::int[], %s::smallint[]) AS r (period, chunk, row, leg), messages m
        WHERE m.period = r.period AND m.chunk = r.chunk AND m.row = r.row AND m.leg = r.leg
          AND m.state IN ('failed', 'waiting', 'dead')
          AND s.recipient_id = m.recipient_id AND s.chunk = m.chunk AND s.row = m.row AND s.leg = m.leg
        """,
        ([r.period for r in refs], [r.chunk for r in refs], [r.row for r in refs], [r.leg for r in refs]),
    ).rowcount


def rest(connection: Connection, recipient_id: str, channel: Channel, code: str, until: datetime, now: datetime) -> None:
    """Close a channel for a person's advertising until then, because its provider does."""
    connection.execute(
        """
        UPDATE recipients SET version = version + 1, updated_at = %s,
               rests = rests || jsonb_build_object(%s::text, jsonb_build_object('until', %s::text, 'code', %s::text))
        WHERE id = %s AND erased_at IS NULL
        """,
        (now, channel, until.isoformat(), code, recipient_id),
    )


def prune(connection: Connection, before: datetime, limit: int) -> int:
    """Drop what no cap looks back to any more, the oldest `limit` rows at most; says how many."""
    return connection.execute(
        "DELETE FROM cap_reservations WHERE ctid = ANY(ARRAY(SELECT ctid FROM cap_reservations WHERE at < %s LIMIT %s))",
        (before, limit),
    ).rowcount

"""Cap reservations: one row per commercial message that was sent or may have been. Frequency caps count them by person and by
address. A campaign with one message per address has one row at most of an address and channel: a unique index holds that.

The transaction that claims a message writes its row, while the recipient's row is locked against other claims, and so is the
address where several recipients have it. The row is deleted when the message was certainly not sent: the address is free then.
Service messages neither write nor read such rows. Push has no address key, so it counts by person only.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from channels.base import Channel
from dispatcher.domain.message_id import MessageId
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.message_key import KEY, KEY_ARRAYS, key_arrays, same_message


@dataclass(frozen=True, slots=True)
class SendLimits:
    """What limits the messages of a chunk. `since`: the start of the time in which sent messages count towards caps; None where no
    cap applies. `one_per_address`: the campaign sends one message to an address and channel."""

    since: datetime | None = None
    one_per_address: bool = False

    @property
    def apply(self) -> bool:
        """Whether messages are reserved and counted."""
        return self.since is not None or self.one_per_address


NO_LIMITS = SendLimits()

_KEY_COLUMNS = {Channel.EMAIL: "r.email_key", Channel.SMS: "r.phone_key", Channel.WHATSAPP: "r.whatsapp_key"}
_BY_PERSON = """
    SELECT s.no, s.at, s.channel, s.offer_type, true AS own, NULL AS message FROM cap_reservations s
    WHERE s.recipient_id = j.recipient_id AND s.at >= %(since)s::timestamptz
      AND NOT (%(first)s AND s.chunk = j.chunk AND s.row = j.row)
"""
_BY_ADDRESS = f"""
    UNION ALL
    SELECT s.no, s.at, s.channel, s.offer_type, false,
           CASE WHEN s.once_in = j.campaign_no AND s.address_key = CASE s.channel {
    " ".join(f"WHEN '{channel}' THEN {column}" for channel, column in _KEY_COLUMNS.items())
} END
                THEN j.period || '-' || s.chunk || '-' || s.row || '-' || s.leg END
    FROM cap_reservations s
    WHERE s.address_key = ANY(ARRAY[{{keys}}]) AND s.recipient_id <> j.recipient_id
      AND (s.at >= %(since)s::timestamptz OR s.once_in = j.campaign_no)
"""


def sent(channels: Collection[Channel]) -> str:
    """In `gather`, the SQL for what counts for a job `j` of a recipient `r` on these channels, with the id of a message of the same
    campaign to the same address. The legs of one job in a fallback order count as one message."""
    keys = ", ".join(column for channel, column in _KEY_COLUMNS.items() if channel in channels)
    by_address = _BY_ADDRESS.format(keys=keys) if keys else ""
    return f"""
    CASE WHEN %(limited)s THEN (
        SELECT jsonb_agg(jsonb_build_array(s.no, s.at, s.channel, s.offer_type, s.own, s.message))
        FROM ({_BY_PERSON} {by_address}) s) END
    """


# In `claim`, among what changed: the rows whose recipient got another message since `gather`. It is a function because a function
# reads after the locks are taken, which the statement around it does not. No other claim reserves for these recipients at the same
# time, and numbers only grow.
MEANWHILE = """
    UNION ALL
    SELECT sent_meanwhile(array_agg(a.row), array_agg(a.recipient_id), array_agg(a.seen), %(since)s, %(chunk)s, %(first)s)
    FROM asked a WHERE a.state = 'claimed' AND NOT a.is_changed
"""  # a refusal or a hold does not depend on what else the recipient got

# The same for what their addresses got through other recipients. It locks these addresses.
MEANWHILE_BY_ADDRESS = """
    UNION ALL
    SELECT address_used_meanwhile(array_agg(a.row), array_agg(a.recipient_id), array_agg(a.channel), array_agg(a.address_key),
                                  array_agg(a.seen_by_address), %(since)s, %(once_in)s)
    FROM asked a WHERE a.state = 'claimed' AND NOT a.is_changed AND a.address_key IS NOT NULL
"""

# In `claim`, after the messages are written.
RESERVE = """
    , reserved AS (
        INSERT INTO cap_reservations (recipient_id, at, channel, offer_type, chunk, row, leg, address_key, once_in)
        SELECT recipient_id, %(now)s::timestamptz, channel, %(offer_type)s::text, %(chunk)s::bigint, row, leg,
               address_key, CASE WHEN address_key IS NOT NULL THEN %(once_in)s::bigint END
        FROM entered WHERE state IN ('claimed', 'unresolved')
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
    """Delete reservations that are older than the window of every cap, at most `limit`; returns their number.

    Those of a campaign with one message per address stay until it has ended so long ago.
    """
    return connection.execute(
        """
        DELETE FROM cap_reservations WHERE ctid = ANY(ARRAY(
            SELECT s.ctid FROM cap_reservations s
            WHERE s.at < %(before)s AND (s.once_in IS NULL OR NOT EXISTS (
                SELECT FROM campaigns c WHERE c.no = s.once_in AND coalesce(c.finished_at, 'infinity') >= %(before)s))
            LIMIT %(limit)s))
        """,
        {"before": before, "limit": limit},
    ).rowcount

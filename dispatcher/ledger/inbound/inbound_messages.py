"""Inbound SMS and WhatsApp messages: each is taken once, and the text of an unclear one is kept for a short time, to be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from channels.base import Channel, InboundText
from dispatcher.domain.opt_out_keywords import ReplyMeaning, ReplyReading
from dispatcher.domain.principal import Entities
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.entity_scope import entity_parameter, has_recipient
from dispatcher.ledger.inbound.whatsapp_window import WINDOW

DELETED_UNREAD = "nobody"  # `closed_by` of a message whose text was deleted unread


@dataclass(frozen=True, slots=True)
class InboundMessage:
    """An unclear message that waits for an operator. `recipients` are all who had its number, which is stored as a keyed hash.

    `answer_until` is when WhatsApp's window for an answer in free text ends; None for an SMS, which has none.
    """

    id: str
    channel: Channel
    address_key: bytes
    recipients: tuple[str, ...]
    text: str
    received_at: datetime
    answer_until: datetime | None = None


def store(
    connection: Connection,
    message: InboundText,
    address_key: bytes,
    recipients: Sequence[str],
    reading: ReplyReading,
    now: datetime,
) -> bool:
    """Store a message under the provider's id; False where it was stored before. The text of a clear one is not stored.

    From the commit until the message is closed, one that `may_be_opt_out` holds advertising to its number.
    """
    return bool(
        connection.execute(
            "INSERT INTO inbound_texts (id, channel, address_key, recipients, meaning, may_be_opt_out, words, received_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            (
                message.id,
                message.channel,
                address_key,
                list(recipients),
                reading.meaning,
                reading.may_be_opt_out,
                message.text if reading.meaning is ReplyMeaning.UNCLEAR else None,
                now,
            ),
        ).rowcount
    )


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """An inbound message in a person's history. `text` is None where it was clear, or is deleted."""

    id: str
    channel: Channel
    meaning: str
    may_be_opt_out: bool
    text: str | None
    received_at: datetime
    closed_at: datetime | None
    closed_by: str | None


def of_recipient(connection: Connection, recipient_id: str, limit: int) -> list[ReceivedMessage]:
    """The inbound messages of a person, newest first."""
    rows = connection.execute(
        "SELECT id, channel, meaning, may_be_opt_out, words, received_at, closed_at, closed_by FROM inbound_texts"
        " WHERE recipients @> ARRAY[%s::text] ORDER BY received_at DESC, id LIMIT %s",
        (recipient_id, limit),
    )
    return [ReceivedMessage(row[0], Channel(row[1]), *row[2:]) for row in rows]


_SELECT = """
    SELECT id, channel, address_key, recipients, coalesce(words, ''), received_at,
           CASE channel WHEN 'whatsapp' THEN greatest(received_at, (
               SELECT heard_at FROM conversations c WHERE c.address_key = t.address_key)) END
    FROM inbound_texts t WHERE {} AND {}
"""
_OPEN = "meaning = 'unclear' AND closed_at IS NULL"
_HAS_RECIPIENT = has_recipient("t.recipients")


def waiting(connection: Connection, limit: int, entities: Entities = None) -> list[InboundMessage]:
    """The messages from customers of these entities that wait for an operator, oldest first."""
    statement = _SELECT.format(_OPEN, _HAS_RECIPIENT) + " ORDER BY received_at, id LIMIT %(limit)s"
    rows = connection.execute(statement, {"limit": limit, **entity_parameter(entities)})
    return [_message(row) for row in rows]


def close(connection: Connection, text_id: str, by: str, now: datetime, entities: Entities = None) -> InboundMessage | None:
    """Close a waiting message, in the caller's transaction; None where `find` has none."""
    message = find(connection, text_id, entities)
    if message is None:
        return None
    connection.execute("UPDATE inbound_texts SET closed_at = %s, closed_by = %s WHERE id = %s AND " + _OPEN, (now, by, text_id))
    return message


def find(connection: Connection, text_id: str, entities: Entities = None) -> InboundMessage | None:
    """A waiting message from customers of these entities, locked in the caller's transaction; None where it does not wait."""
    statement = _SELECT.format(_OPEN, f"id = %(id)s AND {_HAS_RECIPIENT}") + " FOR UPDATE OF t"
    row = connection.execute(statement, {"id": text_id, **entity_parameter(entities)}).fetchone()
    return _message(row) if row else None


def reopen(connection: Connection, text_id: str) -> None:
    """Let a message wait again, because the answer to it was not sent. Where its text was deleted meanwhile, only one that may be
    an opt-out does: the hold must not end.
    """
    connection.execute(
        "UPDATE inbound_texts SET closed_at = NULL, closed_by = NULL WHERE id = %s AND (words IS NOT NULL OR may_be_opt_out)",
        (text_id,),
    )


_HOLDS = "may_be_opt_out AND closed_at IS NULL"


def overdue_unread(connection: Connection, before: datetime, limit: int) -> list[str]:
    """The ids of messages received before then that nobody has read and that may be opt-outs, oldest first."""
    rows = connection.execute(
        f"SELECT id FROM inbound_texts WHERE {_HOLDS} AND received_at < %s ORDER BY received_at, id LIMIT %s", (before, limit)
    )
    return [text_id for (text_id,) in rows]


def count_texts(connection: Connection, before: datetime) -> int:
    """The number of messages received before then whose text is still stored."""
    row = connection.execute(
        "SELECT count(*) FROM inbound_texts WHERE words IS NOT NULL AND received_at < %s", (before,)
    ).fetchone()
    return int(row[0]) if row else 0


def delete_texts(connection: Connection, before: datetime, now: datetime) -> int:
    """Delete the text of messages received before then, read or not; returns their number. An unread one that may be an opt-out
    stays open, without its text, and still holds advertising to its number.
    """
    return connection.execute(
        f"""
        UPDATE inbound_texts
        SET words = NULL, closed_at = CASE WHEN NOT ({_HOLDS}) THEN coalesce(closed_at, %(now)s) END,
            closed_by = CASE WHEN NOT ({_HOLDS}) THEN coalesce(closed_by, %(by)s) END
        WHERE words IS NOT NULL AND received_at < %(before)s
        """,
        {"now": now, "by": DELETED_UNREAD, "before": before},
    ).rowcount


def _message(row: tuple[Any, ...]) -> InboundMessage:
    text_id, channel, address_key, recipients, text, received_at, last_inbound_at = row
    until = last_inbound_at + WINDOW if last_inbound_at else None
    return InboundMessage(text_id, Channel(channel), bytes(address_key), tuple(recipients), text, received_at, until)

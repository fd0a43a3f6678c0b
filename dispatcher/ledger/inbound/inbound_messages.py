"""What people answered by SMS or WhatsApp: each text heard once, the unclear ones kept for a person to read, for a short time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from channels.base import Channel
from dispatcher.domain.opt_out_keywords import ReplyMeaning
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.inbound.whatsapp_window import WINDOW

FORGOTTEN = "nobody"  # who closed a text that was left until then


@dataclass(frozen=True, slots=True)
class InboundMessage:
    """An unclear text that waits for a person. `recipients` are the ids of all who had its number, known by its keyed hash only.

    `answer_until` is when WhatsApp's window for an answer in free words ends; None for an SMS, which has none.
    """

    id: str
    channel: Channel
    address_key: bytes
    recipients: tuple[str, ...]
    words: str
    received_at: datetime
    answer_until: datetime | None = None


def take(
    connection: Connection,
    text_id: str,
    channel: Channel,
    address_key: bytes,
    recipients: Sequence[str],
    meaning: ReplyMeaning,
    words: str,
    now: datetime,
) -> bool:
    """Note a text by the provider's id for it; False where that was heard before. The words of what is clear are not kept."""
    return bool(
        connection.execute(
            "INSERT INTO inbound_texts (id, channel, address_key, recipients, meaning, words, received_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            (text_id, channel, address_key, list(recipients), meaning, words if meaning is ReplyMeaning.UNCLEAR else None, now),
        ).rowcount
    )


_WAITING = """
    SELECT id, channel, address_key, recipients, coalesce(words, ''), received_at,
           CASE channel WHEN 'whatsapp' THEN greatest(received_at, (
               SELECT heard_at FROM conversations c WHERE c.address_key = t.address_key)) END
    FROM inbound_texts t WHERE {} AND {}
"""
_OPEN = "meaning = 'unclear' AND closed_at IS NULL"


def waiting(connection: Connection, limit: int) -> list[InboundMessage]:
    """The texts that wait for a person, oldest first."""
    rows = connection.execute(_WAITING.format(_OPEN, "true") + " ORDER BY received_at, id LIMIT %s", (limit,))
    return [_text(row) for row in rows]


def close(connection: Connection, text_id: str, by: str, now: datetime) -> InboundMessage | None:
    """Take a text off the list, in the caller's transaction; None where it isn't on it."""
    text = find(connection, text_id)
    connection.execute("UPDATE inbound_texts SET closed_at = %s, closed_by = %s WHERE id = %s AND " + _OPEN, (now, by, text_id))
    return text


def find(connection: Connection, text_id: str) -> InboundMessage | None:
    """A text that waits, locked in the caller's transaction; None where it isn't on the list."""
    row = connection.execute(_WAITING.format(_OPEN, "id = %s") + " FOR UPDATE", (text_id,)).fetchone()
    return _text(row) if row else None


def reopen(connection: Connection, text_id: str) -> None:
    """Put a text back on the list, whose answer did not leave."""
    connection.execute("UPDATE inbound_texts SET closed_at = NULL, closed_by = NULL WHERE id = %s", (text_id,))


def old(connection: Connection, before: datetime) -> int:
    """Of how many texts received before a moment the words are still there."""
    row = connection.execute(
        "SELECT count(*) FROM inbound_texts WHERE words IS NOT NULL AND received_at < %s", (before,)
    ).fetchone()
    return int(row[0]) if row else 0


def forget(connection: Connection, now: datetime, before: datetime) -> int:
    """Drop the words of texts received before a moment, read or not; says of how many."""
    return connection.execute(
        "UPDATE inbound_texts SET words = NULL, closed_at = coalesce(closed_at, %s), closed_by = coalesce(closed_by, %s)"
        " WHERE words IS NOT NULL AND received_at < %s",
        (now, FORGOTTEN, before),
    ).rowcount


def _text(row: tuple[Any, ...]) -> InboundMessage:
    text_id, channel, address_key, recipients, words, received_at, heard_at = row
    until = heard_at + WINDOW if heard_at else None
    return InboundMessage(text_id, Channel(channel), bytes(address_key), tuple(recipients), words, received_at, until)

"""Who has a telephone number, and which entity wrote to it last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from channels.base import Channel
from dispatcher.domain.recipient import Language
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.message_key import ENTITY, join_origin


@dataclass(frozen=True, slots=True)
class PhoneOwner:
    """A recipient who has the number."""

    id: str
    language: Language


def owners(connection: Connection, address_key: bytes) -> list[PhoneOwner]:
    """All recipients who have this number for SMS or WhatsApp. It is given as `keyed_hash.address_key`."""
    rows = connection.execute(
        "SELECT id, language FROM recipients WHERE phone_key = %(key)s"
        " UNION SELECT id, language FROM recipients WHERE whatsapp_key = %(key)s ORDER BY id",
        {"key": address_key},
    )
    return [PhoneOwner(*row) for row in rows]


def number(connection: Connection, address_key: bytes) -> str | None:
    """The number itself; None where no recipient has it any more."""
    row = connection.execute(
        "SELECT phone FROM recipients WHERE phone_key = %(key)s UNION SELECT whatsapp FROM recipients WHERE whatsapp_key = %(key)s",
        {"key": address_key},
    ).fetchone()
    return str(row[0]) if row else None


def last_entity(connection: Connection, recipient_ids: Sequence[str], channel: Channel) -> str | None:
    """The entity of the newest message to any of these recipients on this channel; None where none was accepted."""
    row = connection.execute(
        f"""
        SELECT {ENTITY} FROM messages m {join_origin("m")}
        WHERE m.recipient_id = ANY(%(ids)s) AND m.channel = %(channel)s AND m.accepted_at IS NOT NULL
        ORDER BY m.accepted_at DESC LIMIT 1
        """,
        {"ids": list(recipient_ids), "channel": channel},
    ).fetchone()
    return str(row[0]) if row and row[0] else None

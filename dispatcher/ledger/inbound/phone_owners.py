"""Who has a telephone number, and in whose name they were written to there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from channels.base import Channel
from dispatcher.domain.recipient import Language
from dispatcher.ledger.connection import Connection


@dataclass(frozen=True, slots=True)
class PhoneOwner:
    """Somebody who has the number."""

    id: str
    language: Language


def owners(connection: Connection, address_key: bytes) -> list[PhoneOwner]:
    """All who have this number, for SMS or WhatsApp. It comes as its keyed hash, see `keys.address_key`."""
    rows = connection.execute(
        "SELECT id, language FROM recipients WHERE phone_key = %(key)s"
        " UNION SELECT id, language FROM recipients WHERE whatsapp_key = %(key)s ORDER BY id",
        {"key": address_key},
    )
    return [PhoneOwner(*row) for row in rows]


def number(connection: Connection, address_key: bytes) -> str | None:
    """The number itself, while somebody on record has it."""
    row = connection.execute(
        "SELECT phone FROM recipients WHERE phone_key = %(key)s UNION SELECT whatsapp FROM recipients WHERE whatsapp_key = %(key)s",
        {"key": address_key},
    ).fetchone()
    return str(row[0]) if row else None


def last_entity(connection: Connection, recipient_ids: Sequence[str], channel: Channel) -> str | None:
    """In whose name the newest message left to any of these people on this channel; None where none did."""
    row = connection.execute(
        """
        SELECT coalesce(c.spec, t.spec)->>'entity' FROM messages m
        LEFT JOIN campaigns c ON c.no = m.campaign_no
        LEFT JOIN triggers t ON t.chunk = m.chunk AND m.campaign_no IS NULL
        WHERE m.recipient_id = ANY(%s) AND m.channel = %s AND m.accepted_at IS NOT NULL
        ORDER BY m.accepted_at DESC LIMIT 1
        """,
        (list(recipient_ids), channel),
    ).fetchone()
    return str(row[0]) if row and row[0] else None

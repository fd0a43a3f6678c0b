"""Who has a telephone number."""

from __future__ import annotations

from dispatcher.ledger.pool import Connection


def owners(connection: Connection, address_key: bytes) -> list[str]:
    """The ids of all who have this number, for SMS or WhatsApp. It comes as its keyed hash, see `keys.address_key`."""
    rows = connection.execute(
        "SELECT id FROM recipients WHERE phone_key = %(key)s UNION SELECT id FROM recipients WHERE whatsapp_key = %(key)s",
        {"key": address_key},
    )
    return [recipient_id for (recipient_id,) in rows]

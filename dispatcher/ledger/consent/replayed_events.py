"""For events that are read back after a restore: which of them the ledger still has, and whose addresses they are about."""

from __future__ import annotations

from collections.abc import Sequence

from channels.base import Channel
from dispatcher.ledger.connection import Connection


def known_choices(connection: Connection, numbers: Sequence[int]) -> dict[int, tuple[str, str, str]]:
    """The consent events with these numbers: recipient, subject and new value. Since the restore, a number may be another's."""
    rows = connection.execute(
        "SELECT no, recipient_id, subject, new_value FROM consent_events WHERE no = ANY(%s)", (list(numbers),)
    )
    return {no: (recipient_id, subject, value) for no, recipient_id, subject, value in rows}


def known_suppressions(connection: Connection, numbers: Sequence[int]) -> dict[int, tuple[str, str, str]]:
    """The suppressions with these numbers: channel, reason and source, whether lifted or not."""
    rows = connection.execute("SELECT no, channel, reason, source FROM suppressions WHERE no = ANY(%s)", (list(numbers),))
    return {no: (channel, reason, source) for no, channel, reason, source in rows}


def address_keys(connection: Connection, recipient_ids: Sequence[str]) -> dict[tuple[str, str], bytes]:
    """The address key of each of these people on each channel that has one."""
    rows = connection.execute(
        "SELECT id, email_key, phone_key, whatsapp_key FROM recipients WHERE id = ANY(%s)", (list(recipient_ids),)
    )
    channels = (Channel.EMAIL, Channel.SMS, Channel.WHATSAPP)
    return {
        (recipient_id, str(channel)): bytes(key)
        for recipient_id, *keys in rows
        for channel, key in zip(channels, keys, strict=True)
        if key is not None
    }


def not_erased(connection: Connection, recipient_ids: Sequence[str]) -> list[str]:
    """Those of these people who are in the ledger and not erased."""
    rows = connection.execute(
        "SELECT id FROM recipients WHERE id = ANY(%s) AND erased_at IS NULL ORDER BY id", (list(recipient_ids),)
    )
    return [row[0] for row in rows]

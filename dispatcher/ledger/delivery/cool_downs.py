"""Cool-downs: a provider takes no advertising for one recipient on one channel for some time."""

from __future__ import annotations

from datetime import datetime

from channels.base import Channel
from dispatcher.ledger.connection import Connection


def add(connection: Connection, recipient_id: str, channel: Channel, code: str, until: datetime, now: datetime) -> None:
    """Start a cool-down. A later one on the same channel replaces it."""
    connection.execute(
        """
        UPDATE recipients SET version = version + 1, updated_at = %s,
               rests = rests || jsonb_build_object(%s::text, jsonb_build_object('until', %s::text, 'code', %s::text))
        WHERE id = %s AND erased_at IS NULL
        """,
        (now, channel, until.isoformat(), code, recipient_id),
    )

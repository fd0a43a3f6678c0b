"""Channels whose keys or settings are wrong: they send nothing until a check passes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from channels.base import Channel
from dispatcher.ledger.connection import Connection


def stop(connection: Connection, channel: Channel, provider: str, code: str, now: datetime) -> bool:
    """Stop a channel; False where it was stopped already."""
    return bool(
        connection.execute(
            "INSERT INTO channel_stops (channel, provider, code, stopped_at) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
            (channel, provider, code, now),
        ).rowcount
    )


def lift(connection: Connection, channel: Channel, now: datetime) -> bool:
    """Let a channel send again, and its waiting messages at once; False where it was not stopped."""
    with connection.transaction():
        row = connection.execute("DELETE FROM channel_stops WHERE channel = %s RETURNING code", (channel,)).fetchone()
        if row is None:
            return False
        connection.execute(
            "UPDATE messages SET until = %s WHERE until > %s AND state = 'waiting' AND channel = %s AND reason = %s",
            (now, now, channel, row[0]),
        )
    return True


def stopped(connection: Connection) -> Mapping[Channel, str]:
    """The stopped channels, each with the provider's code that stopped it."""
    return {Channel(channel): code for channel, code in connection.execute("SELECT channel, code FROM channel_stops")}

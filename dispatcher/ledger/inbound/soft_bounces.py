"""Soft bounces: failures that prove something about an address only when several follow each other. A delivery resets the count.

The limits are in the providers' files; the table is `misses`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from channels.base import Channel
from dispatcher.ledger.connection import Connection

SPAN = timedelta(days=7)  # failures further apart do not count together


@dataclass(frozen=True, slots=True)
class DeliverySignal:
    """A delivery to an address, which is known by its keyed hash."""

    channel: Channel
    address_key: bytes
    at: datetime


def count(connection: Connection, channel: Channel, address_key: bytes, code: str, message: str, at: datetime) -> int:
    """Count a failed message once, however often it was tried; returns how many with this code now follow each other."""
    connection.execute(
        "INSERT INTO misses (address_key, channel, code, message, at) VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (address_key, channel, code, message, at),
    )
    row = connection.execute(
        "SELECT count(*) FROM misses WHERE address_key = %s AND channel = %s AND code = %s AND at > %s",
        (address_key, channel, code, at - SPAN),
    ).fetchone()
    return int(row[0]) if row else 0


def reset(connection: Connection, signals: Sequence[DeliverySignal]) -> None:
    """Reset the counts of addresses that got something."""
    connection.execute(
        "DELETE FROM misses m USING unnest(%s::text[], %s::bytea[], %s::timestamptz[]) AS s (channel, address_key, at)"
        " WHERE m.address_key = s.address_key AND m.channel = s.channel AND m.at <= s.at",
        ([signal.channel for signal in signals], [signal.address_key for signal in signals], [signal.at for signal in signals]),
    )


def prune(connection: Connection, now: datetime) -> int:
    """Delete what no longer counts; returns the number of rows."""
    return connection.execute("DELETE FROM misses WHERE at <= %s", (now - SPAN,)).rowcount

"""Failures that say little of an address alone and much in a row: counted by message, until something arrives there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from channels.base import Channel
from dispatcher.ledger.connection import Connection

SPAN = timedelta(days=7)  # what lies further apart is no row


@dataclass(frozen=True, slots=True)
class DeliverySignal:
    """Something arrived at an address, known by its keyed hash."""

    channel: Channel
    address_key: bytes
    at: datetime


def note(connection: Connection, channel: Channel, address_key: bytes, code: str, message: str, at: datetime) -> int:
    """Take a failed message down, once however often it was tried; says how many with this code are now in a row."""
    connection.execute(
        "INSERT INTO misses (address_key, channel, code, message, at) VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (address_key, channel, code, message, at),
    )
    row = connection.execute(
        "SELECT count(*) FROM misses WHERE address_key = %s AND channel = %s AND code = %s AND at > %s",
        (address_key, channel, code, at - SPAN),
    ).fetchone()
    return int(row[0]) if row else 0


def end(connection: Connection, signs: Sequence[DeliverySignal]) -> None:
    """End the rows of addresses that work."""
    connection.execute(
        "DELETE FROM misses m USING unnest(%s::text[], %s::bytea[], %s::timestamptz[]) AS s (channel, address_key, at)"
        " WHERE m.address_key = s.address_key AND m.channel = s.channel AND m.at <= s.at",
        ([sign.channel for sign in signs], [sign.address_key for sign in signs], [sign.at for sign in signs]),
    )


def forget(connection: Connection, now: datetime) -> int:
    """Drop what counts no more; says how many."""
    return connection.execute("DELETE FROM misses WHERE at <= %s", (now - SPAN,)).rowcount

"""When a number last wrote to us by WhatsApp. For 24 hours it may be answered in free text; after that, Meta accepts only approved
templates (Twilio's error 63016). A number is known by its keyed hash.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from dispatcher.ledger.connection import Connection

WINDOW = timedelta(hours=24)


def open_window(connection: Connection, address_key: bytes, now: datetime) -> None:
    """Record that the number wrote to us now."""
    connection.execute(
        "INSERT INTO conversations AS c (address_key, heard_at) VALUES (%s, %s)"
        " ON CONFLICT (address_key) DO UPDATE SET heard_at = greatest(c.heard_at, excluded.heard_at)",
        (address_key, now),
    )


def open_until(connection: Connection, address_key: bytes) -> datetime | None:
    """When the window ends or ended; None where the number never wrote, or long ago."""
    row = connection.execute("SELECT heard_at FROM conversations WHERE address_key = %s", (address_key,)).fetchone()
    return row[0] + WINDOW if row else None


def prune(connection: Connection, now: datetime) -> int:
    """Delete windows that have ended; returns their number."""
    return connection.execute("DELETE FROM conversations WHERE heard_at <= %s", (now - WINDOW,)).rowcount

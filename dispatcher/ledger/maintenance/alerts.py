"""Provider codes that need an operator, shown until a week after the last one. None is about a message or a recipient."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from dispatcher.ledger.connection import Connection

SHOWN = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Alert:
    """A provider's code. For one that is not `known` no action is defined yet: nothing is sent again or banned."""

    provider: str
    code: str
    known: bool
    first_at: datetime
    last_at: datetime
    count: int  # how often in this time; an alert from before it was counted begins with 1


def note(connection: Connection, provider: str, code: str, known: bool, now: datetime, count: int = 1) -> None:
    """Record that a provider returned this code now, so many times."""
    connection.execute(
        "INSERT INTO alerts AS a (provider, code, known, first_at, last_at, count) VALUES (%s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (provider, code) DO UPDATE SET known = excluded.known, last_at = greatest(a.last_at, excluded.last_at),"
        " count = a.count + excluded.count",
        (provider, code, known, now, now, count),
    )


def last_at(connection: Connection, provider: str, code: str) -> datetime | None:
    """When this code was noted last; None where it was not in the last week."""
    row = connection.execute("SELECT last_at FROM alerts WHERE provider = %s AND code = %s", (provider, code)).fetchone()
    return row[0] if row else None


def newest(connection: Connection) -> tuple[Alert, ...]:
    """The codes of the last week, unknown ones first, then the newest."""
    rows = connection.execute(
        "SELECT provider, code, known, first_at, last_at, count FROM alerts ORDER BY known, last_at DESC, code"
    )
    return tuple(Alert(*row) for row in rows)


def prune(connection: Connection, now: datetime) -> int:
    """Delete codes that did not occur for a week; returns their number."""
    return connection.execute("DELETE FROM alerts WHERE last_at <= %s", (now - SHOWN,)).rowcount

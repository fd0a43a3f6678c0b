"""Codes of providers that call for a person, shown until a week after they were last heard. None is about a message or a person."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from dispatcher.ledger.connection import Connection

SHOWN = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Alert:
    """A provider's code. Of one that is not `known` nobody has yet said what should follow: nothing is repeated or banned."""

    provider: str
    code: str
    known: bool
    first_at: datetime
    last_at: datetime


def note(connection: Connection, provider: str, code: str, known: bool, now: datetime) -> None:
    """The code was heard just now."""
    connection.execute(
        "INSERT INTO alerts AS a (provider, code, known, first_at, last_at) VALUES (%s, %s, %s, %s, %s)"
        " ON CONFLICT (provider, code) DO UPDATE SET known = excluded.known, last_at = greatest(a.last_at, excluded.last_at)",
        (provider, code, known, now, now),
    )


def newest(connection: Connection) -> tuple[Alert, ...]:
    """What was heard lately, the unknown first."""
    rows = connection.execute("SELECT provider, code, known, first_at, last_at FROM alerts ORDER BY known, last_at DESC, code")
    return tuple(Alert(*row) for row in rows)


def forget(connection: Connection, now: datetime) -> int:
    """Drop what was not heard for a week; says how many."""
    return connection.execute("DELETE FROM alerts WHERE last_at <= %s", (now - SHOWN,)).rowcount

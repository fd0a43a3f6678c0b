"""Requests to erase a person, in SQL. One request per person is open at a time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from dispatcher.ledger.connection import Connection, fetch_all


@dataclass(frozen=True, slots=True)
class ErasureRequest:
    """A request that waits for a second person."""

    no: int
    recipient_id: str
    reason: str
    requested_by: str
    requested_at: datetime


_SELECT = "SELECT no, recipient_id, reason, requested_by, requested_at FROM erasure_requests WHERE decided_at IS NULL"


def add(connection: Connection, recipient_id: str, reason: str, by: str, now: datetime) -> bool:
    """Add a request; False where one is open for this person."""
    return bool(
        connection.execute(
            "INSERT INTO erasure_requests (recipient_id, reason, requested_by, requested_at) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (recipient_id) WHERE decided_at IS NULL DO NOTHING",
            (recipient_id, reason, by, now),
        ).rowcount
    )


def waiting(connection: Connection, limit: int) -> list[ErasureRequest]:
    """The open requests, oldest first."""
    return [ErasureRequest(**row) for row in fetch_all(connection, f"{_SELECT} ORDER BY no LIMIT %(limit)s", {"limit": limit})]


def open_of(connection: Connection, recipient_id: str) -> ErasureRequest | None:
    """The open request for a person, locked in the caller's transaction."""
    rows = fetch_all(connection, f"{_SELECT} AND recipient_id = %(id)s FOR UPDATE", {"id": recipient_id})
    return ErasureRequest(**rows[0]) if rows else None


def decide(connection: Connection, no: int, by: str, approved: bool, now: datetime) -> None:
    """Close a request."""
    connection.execute(
        "UPDATE erasure_requests SET decided_by = %s, decided_at = %s, approved = %s WHERE no = %s AND decided_at IS NULL",
        (by, now, approved, no),
    )


ROWS_PER_STEP = 1_000


def overdue(connection: Connection, before: datetime) -> int:
    """The number of requests that were decided before then."""
    row = connection.execute("SELECT count(*) FROM erasure_requests WHERE decided_at < %s", (before,)).fetchone()
    return int(row[0]) if row else 0


def delete(connection: Connection, before: datetime, _: datetime) -> int:
    """Delete some of them; returns their number. An open request stays."""
    statement = "DELETE FROM erasure_requests WHERE no IN (SELECT no FROM erasure_requests WHERE decided_at < %s LIMIT %s)"
    return connection.execute(statement, (before, ROWS_PER_STEP)).rowcount

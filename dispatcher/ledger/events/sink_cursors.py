"""The program's own readers of the stream, Kafka and files: a lease, a cursor, and the last error of each.

Leases work as those of event endpoints do: what a worker writes is fenced by the number of its lease, by the clock of the database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from dispatcher.ledger.connection import Connection, fetch_one


@dataclass(frozen=True, slots=True)
class EventSink:
    """A sink as the ledger has it. `cursor` is the last event that is done."""

    id: str
    cursor: int
    progress: Mapping[str, Any]
    lease: int
    attempts: int
    failing_since: datetime | None
    error: str | None
    done_at: datetime | None


_COLUMNS = "s.id, s.cursor, s.progress, s.lease, s.attempts, s.failing_since, s.error, s.done_at"


def ensure(connection: Connection, sink_id: str) -> None:
    """Add a sink where it is missing: it begins with the oldest event that is kept."""
    connection.execute(
        """
        INSERT INTO event_sinks (id, cursor)
        SELECT %(id)s, coalesce((SELECT first - 1 FROM published_events ORDER BY last LIMIT 1), (SELECT last FROM event_stream))
        WHERE NOT EXISTS (SELECT FROM event_sinks WHERE id = %(id)s) ON CONFLICT DO NOTHING
        """,
        {"id": sink_id},
    )


def find(connection: Connection, sink_id: str) -> EventSink | None:
    """The sink with this id; None where it has never been used."""
    row = fetch_one(connection, f"SELECT {_COLUMNS} FROM event_sinks s WHERE id = %(id)s", {"id": sink_id})
    return EventSink(**row) if row else None


def lease(connection: Connection, sink_id: str, seconds: float, now: datetime) -> EventSink | None:
    """Lease a sink; None while another worker has it, or the time of the next attempt has not come."""
    row = fetch_one(
        connection,
        f"""
        UPDATE event_sinks s SET lease = lease + 1, leased_until = clock_timestamp() + make_interval(secs => %(seconds)s)
        WHERE id = %(id)s AND leased_until <= clock_timestamp() AND next_try_at <= %(now)s RETURNING {_COLUMNS}
        """,
        {"id": sink_id, "seconds": seconds, "now": now},
    )
    return EventSink(**row) if row else None


def is_free(connection: Connection, sink_id: str, now: datetime) -> bool:
    """Whether a lease would succeed; also true for a sink that has never been used."""
    row = connection.execute(
        "SELECT NOT EXISTS (SELECT FROM event_sinks WHERE id = %s AND (leased_until > clock_timestamp() OR next_try_at > %s))",
        (sink_id, now),
    ).fetchone()
    return bool(row and row[0])


def renew(connection: Connection, sink: EventSink, seconds: float) -> bool:
    """Lease it for so long from now on; False where the lease was lost."""
    return bool(
        connection.execute(
            "UPDATE event_sinks SET leased_until = clock_timestamp() + make_interval(secs => %s) WHERE id = %s AND lease = %s",
            (seconds, sink.id, sink.lease),
        ).rowcount
    )


def release(connection: Connection, sink: EventSink) -> None:
    """End the lease."""
    connection.execute(
        "UPDATE event_sinks SET leased_until = clock_timestamp() WHERE id = %s AND lease = %s", (sink.id, sink.lease)
    )


def move(connection: Connection, sink: EventSink, cursor: int, progress: Mapping[str, Any], now: datetime) -> bool:
    """All up to this event is done; False where the lease was lost."""
    return bool(
        connection.execute(
            """
            UPDATE event_sinks SET cursor = %s, progress = %s, done_at = %s, attempts = 0, failing_since = NULL, error = NULL
            WHERE id = %s AND lease = %s
            """,
            (cursor, Jsonb(dict(progress)), now, sink.id, sink.lease),
        ).rowcount
    )


def fail(connection: Connection, sink: EventSink, error: str, now: datetime, next_try_at: datetime) -> None:
    """Record that an attempt failed, and when the next one is due."""
    connection.execute(
        """
        UPDATE event_sinks SET attempts = attempts + 1, failing_since = coalesce(failing_since, %s), error = %s, next_try_at = %s
        WHERE id = %s AND lease = %s
        """,
        (now, error, next_try_at, sink.id, sink.lease),
    )


@dataclass(frozen=True, slots=True)
class EventSinkCounts:
    """How far a sink is behind. `oldest_at` is when the oldest event that it has not got was published."""

    id: str
    is_failing: bool
    lag_events: int
    oldest_at: datetime | None


def counts(connection: Connection) -> tuple[EventSinkCounts, ...]:
    """The counts of all sinks that were ever used, by id."""
    rows = connection.execute(
        """
        SELECT s.id, s.failing_since IS NOT NULL, greatest(e.last - s.cursor, 0),
               (SELECT p.at FROM published_events p WHERE p.last > s.cursor ORDER BY p.last LIMIT 1)
        FROM event_sinks s CROSS JOIN event_stream e ORDER BY s.id
        """
    )
    return tuple(EventSinkCounts(*row) for row in rows)

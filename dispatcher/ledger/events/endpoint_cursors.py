"""The cursors of event endpoints: leases, batches in flight, and the dead list.

A worker leases an endpoint, so that no two send to it at once. What it writes is fenced by the number of the lease: a worker that
was frozen until another one leased the endpoint changes nothing. Leases use the clock of the database, because the clocks of two
workers can differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from dispatcher.ledger.connection import Connection, fetch_all, fetch_one
from dispatcher.ledger.events.event_endpoints import COLUMNS, EventEndpoint, from_row


class CursorState(StrEnum):
    """What a cursor is for: it follows the stream, goes through a range again, or names a range that was given up."""

    LIVE = "live"
    REPLAY = "replay"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class EndpointCursor:
    """A place in the stream. `cursor` is the last event that is done, `last` the end of the range (None: none)."""

    no: int
    endpoint_no: int
    state: CursorState
    cursor: int
    last: int | None
    in_flight: int | None
    attempts: int
    failing_since: datetime | None
    error: str | None
    next_try_at: datetime
    since: datetime


_COLUMNS = (
    "c.no, c.endpoint_no, c.state, c.cursor, c.last, c.in_flight, c.attempts, c.failing_since, c.error, c.next_try_at, c.since"
)
_DUE = """
    c.state <> 'dead' AND c.next_try_at <= %(now)s AND c.cursor < coalesce(c.last, (SELECT last FROM event_stream))
"""
_FREE = f"""
    e.state = 'active' AND e.leased_until <= clock_timestamp()
    AND EXISTS (SELECT FROM endpoint_cursors c WHERE c.endpoint_no = e.no AND {_DUE})
"""


def cursors(connection: Connection, endpoint_no: int | None = None) -> list[EndpointCursor]:
    """The cursors of one endpoint or of all: the live one first, then the others by their ranges."""
    rows = fetch_all(
        connection,
        f"SELECT {_COLUMNS} FROM endpoint_cursors c WHERE %(no)s::bigint IS NULL OR c.endpoint_no = %(no)s"
        " ORDER BY c.endpoint_no, c.last NULLS FIRST, c.no",
        {"no": endpoint_no},
    )
    return [EndpointCursor(**row | {"state": CursorState(row["state"])}) for row in rows]


def add(connection: Connection, endpoint_no: int, after: int, last: int | None, now: datetime) -> None:
    """Let an endpoint follow the stream after this event, or go through a range again."""
    connection.execute(
        """
        INSERT INTO endpoint_cursors (endpoint_no, state, cursor, last, next_try_at, since)
        VALUES (%(no)s, %(state)s, %(after)s, %(last)s, %(now)s, %(now)s)
        """,
        {
            "no": endpoint_no,
            "state": CursorState.LIVE if last is None else CursorState.REPLAY,
            "after": after,
            "last": last,
            "now": now,
        },
    )


def revive(connection: Connection, endpoint_no: int, number: int | None, now: datetime) -> int:
    """Make a dead range, or all of an endpoint, a replay; returns how many."""
    return connection.execute(
        """
        UPDATE endpoint_cursors SET state = 'replay', attempts = 0, failing_since = NULL, error = NULL, next_try_at = %(now)s,
               since = %(now)s
        WHERE endpoint_no = %(endpoint_no)s AND state = 'dead' AND (%(no)s::bigint IS NULL OR no = %(no)s)
        """,
        {"endpoint_no": endpoint_no, "no": number, "now": now},
    ).rowcount


# -- leases ------------------------------------------------------------------------------------------------------------


def is_due(connection: Connection, now: datetime) -> bool:
    """Whether there is an endpoint with something to send that no worker has."""
    row = connection.execute(f"SELECT EXISTS (SELECT FROM event_endpoints e WHERE {_FREE})", {"now": now}).fetchone()
    return bool(row and row[0])


def lease(connection: Connection, limit: int, seconds: float, now: datetime) -> list[EventEndpoint]:
    """Lease endpoints with something to send, those first that were served least recently."""
    rows = fetch_all(
        connection,
        f"""
        WITH free AS (SELECT e.no FROM event_endpoints e WHERE {_FREE} ORDER BY e.leased_until LIMIT %(limit)s
                      FOR UPDATE OF e SKIP LOCKED)
        UPDATE event_endpoints e SET lease = e.lease + 1, leased_until = clock_timestamp() + make_interval(secs => %(seconds)s)
        FROM free WHERE e.no = free.no RETURNING {COLUMNS}
        """,
        {"now": now, "limit": limit, "seconds": seconds},
    )
    return [from_row(row) for row in rows]


def renew(connection: Connection, endpoint: EventEndpoint, seconds: float) -> bool:
    """Lease it for so long from now on; False where the lease was lost, or the endpoint was disabled, changed or removed."""
    return bool(
        connection.execute(
            "UPDATE event_endpoints SET leased_until = clock_timestamp() + make_interval(secs => %s)"
            " WHERE no = %s AND lease = %s AND revision = %s AND state = 'active'",
            (seconds, endpoint.no, endpoint.lease, endpoint.revision),
        ).rowcount
    )


def release(connection: Connection, endpoint: EventEndpoint) -> None:
    """End the lease."""
    connection.execute(
        "UPDATE event_endpoints SET leased_until = clock_timestamp() WHERE no = %s AND lease = %s", (endpoint.no, endpoint.lease)
    )


def holds(connection: Connection, endpoint: EventEndpoint) -> bool:
    """Whether the lease still holds. It does until the caller's transaction ends, because the row is locked."""
    return bool(
        connection.execute(
            "SELECT FROM event_endpoints WHERE no = %s AND lease = %s FOR UPDATE", (endpoint.no, endpoint.lease)
        ).rowcount
    )


# -- batches: under a lease -------------------------------------------------------------------------------------------


def due(connection: Connection, endpoint_no: int, now: datetime) -> EndpointCursor | None:
    """The cursor of an endpoint that is to go on: the one that was used least recently."""
    row = fetch_one(
        connection,
        f"SELECT {_COLUMNS} FROM endpoint_cursors c WHERE c.endpoint_no = %(no)s AND {_DUE}"
        " ORDER BY c.used_at NULLS FIRST, c.no LIMIT 1",
        {"no": endpoint_no, "now": now},
    )
    return EndpointCursor(**row | {"state": CursorState(row["state"])}) if row else None


def end_lease(connection: Connection, endpoint: EventEndpoint) -> None:
    """Take the lease from a worker that has it: it records nothing any more. No other worker sends before the lease was to end,
    because a call may be under way."""
    connection.execute("UPDATE event_endpoints SET lease = lease + 1 WHERE no = %s", (endpoint.no,))


def begin(connection: Connection, cursor: EndpointCursor, last: int, now: datetime) -> None:
    """Record the batch up to this event before it is sent: a retry sends the same one, also after the worker was lost."""
    connection.execute(
        "UPDATE endpoint_cursors SET in_flight = %s, attempts = attempts + 1, used_at = %s WHERE no = %s", (last, now, cursor.no)
    )


def move(connection: Connection, cursor: EndpointCursor, last: int, now: datetime) -> None:
    """All up to this event is done. A replay that is at its end is deleted."""
    connection.execute(
        """
        WITH ended AS (DELETE FROM endpoint_cursors WHERE no = %(no)s AND last <= %(last)s)
        UPDATE endpoint_cursors SET cursor = %(last)s, in_flight = NULL, attempts = 0, failing_since = NULL, error = NULL,
               next_try_at = %(now)s, used_at = %(now)s
        WHERE no = %(no)s AND (last IS NULL OR last > %(last)s)
        """,
        {"no": cursor.no, "last": last, "now": now},
    )


def mark_delivered(connection: Connection, endpoint: EventEndpoint, now: datetime) -> None:
    """Record the time of the last success."""
    connection.execute("UPDATE event_endpoints SET delivered_at = %s WHERE no = %s", (now, endpoint.no))


def fail(connection: Connection, cursor: EndpointCursor, error: str, now: datetime, next_try_at: datetime) -> None:
    """Record that an attempt failed, and when the next one is due."""
    connection.execute(
        "UPDATE endpoint_cursors SET error = %s, failing_since = coalesce(failing_since, %s), next_try_at = %s WHERE no = %s",
        (error, now, next_try_at, cursor.no),
    )


def give_up(connection: Connection, cursor: EndpointCursor, last: int, error: str, now: datetime) -> None:
    """Put the events up to this one on the dead list, and go on after them. Neighbouring ranges become one."""
    values = {"endpoint_no": cursor.endpoint_no, "first": cursor.cursor, "last": last, "error": error, "now": now}
    joined = connection.execute(
        """
        UPDATE endpoint_cursors SET last = %(last)s, error = %(error)s, since = %(now)s, attempts = attempts + %(attempts)s
        WHERE endpoint_no = %(endpoint_no)s AND state = 'dead' AND last = %(first)s
        """,
        values | {"attempts": cursor.attempts + 1},
    ).rowcount
    if not joined:
        connection.execute(
            """
            INSERT INTO endpoint_cursors (endpoint_no, state, cursor, last, attempts, failing_since, error, next_try_at, since)
            VALUES (%(endpoint_no)s, 'dead', %(first)s, %(last)s, %(attempts)s, %(failing_since)s, %(error)s, %(now)s, %(now)s)
            """,
            values | {"attempts": cursor.attempts + 1, "failing_since": cursor.failing_since},
        )
    move(connection, cursor, last, now)


@dataclass(frozen=True, slots=True)
class EndpointCounts:
    """How far an endpoint is behind. `oldest_at` is when the oldest event that it has not got was published."""

    id: str
    is_disabled: bool
    is_failing: bool
    lag_events: int
    oldest_at: datetime | None
    dead_ranges: int


def counts(connection: Connection) -> tuple[EndpointCounts, ...]:
    """The counts of all endpoints, by id."""
    rows = connection.execute(
        """
        SELECT e.id, e.state = 'disabled',
               EXISTS (SELECT FROM endpoint_cursors f
                       WHERE f.endpoint_no = e.no AND f.state <> 'dead' AND f.failing_since IS NOT NULL),
               greatest(s.last - c.cursor, 0),
               (SELECT p.at FROM published_events p WHERE p.last > c.cursor ORDER BY p.last LIMIT 1),
               (SELECT count(*) FROM endpoint_cursors d WHERE d.endpoint_no = e.no AND d.state = 'dead')
        FROM event_endpoints e JOIN endpoint_cursors c ON c.endpoint_no = e.no AND c.state = 'live' CROSS JOIN event_stream s
        ORDER BY e.id
        """
    )
    return tuple(EndpointCounts(*row) for row in rows)


def forget_dead(connection: Connection, before: int) -> int:
    """Delete the dead ranges whose events were all deleted, those with lower numbers; returns how many."""
    return connection.execute("DELETE FROM endpoint_cursors WHERE state = 'dead' AND last < %s", (before,)).rowcount

"""The published stream: events with numbers from 1 without gaps, and a hash that chains each to the one before."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dispatcher.ledger.connection import Connection

START = hashlib.sha256(b"").digest()  # the hash before the first event
ROWS_PER_STEP = 500  # that retention deletes at once
COMPRESSION = 1  # the fastest: JSON lines of one kind shrink to a tenth anyway


def chain(previous: bytes, line: bytes) -> bytes:
    """The hash of an event: SHA-256 over the hash of the event before it and its own line."""
    return hashlib.sha256(previous + line).digest()


@dataclass(frozen=True, slots=True)
class Head:
    """Where the stream ends: the number of the last event, 0 where there is none, and its hash."""

    last: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """Up to 1,000 events of one kind: their lines, the number of the first, and the hashes before the first and of the last."""

    first: int
    kind: str
    lines: tuple[bytes, ...]
    previous_hash: bytes
    hash: bytes

    @property
    def last(self) -> int:
        """The number of the last event."""
        return self.first + len(self.lines) - 1


def lock(connection: Connection) -> Head:
    """The end of the stream, locked until the caller's transaction ends: one process publishes at a time."""
    row = connection.execute("SELECT last, hash FROM event_stream FOR UPDATE").fetchone()
    assert row is not None  # noqa: S101  the migration wrote it
    return Head(*row)


def head(connection: Connection) -> Head:
    """The end of the stream."""
    row = connection.execute("SELECT last, hash FROM event_stream").fetchone()
    assert row is not None  # noqa: S101
    return Head(*row)


def oldest(connection: Connection) -> int:
    """The number of the oldest event that is kept; the next number where none is."""
    row = connection.execute(
        "SELECT coalesce((SELECT first FROM published_events ORDER BY last LIMIT 1), (SELECT last + 1 FROM event_stream))"
    ).fetchone()
    return int(row[0]) if row else 1


def append(connection: Connection, rows: Sequence[PublishedRow], now: datetime) -> None:
    """Add rows at the end of the stream, which the caller has locked."""
    connection.execute(
        """
        WITH added AS (
            INSERT INTO published_events (first, last, kind, at, events, previous_hash, hash)
            SELECT r.first, r.last, r.kind, %(now)s, r.events, r.previous_hash, r.hash
            FROM unnest(%(first)s::bigint[], %(last)s::bigint[], %(kind)s::text[], %(events)s::bytea[], %(previous_hash)s::bytea[],
                        %(hash)s::bytea[]) AS r (first, last, kind, events, previous_hash, hash)
        )
        UPDATE event_stream SET last = %(end)s, hash = %(end_hash)s
        """,
        {
            "now": now,
            "first": [row.first for row in rows],
            "last": [row.last for row in rows],
            "kind": [row.kind for row in rows],
            "events": [zlib.compress(b"\n".join(row.lines), COMPRESSION) for row in rows],
            "previous_hash": [row.previous_hash for row in rows],
            "hash": [row.hash for row in rows],
            "end": rows[-1].last,
            "end_hash": rows[-1].hash,
        },
    )


def read(connection: Connection, after: int, kinds: Sequence[str] | None = None) -> Generator[PublishedRow]:
    """The rows with events after this number, in order; of some kinds only, where given. Read as they are needed."""
    with connection.transaction(), connection.cursor("published_events") as cursor:
        cursor.itersize = 10
        cursor.execute(
            """
            SELECT first, kind, events, previous_hash, hash FROM published_events
            WHERE last > %(after)s AND (%(kinds)s::text[] IS NULL OR kind = ANY(%(kinds)s)) ORDER BY last
            """,
            {"after": after, "kinds": None if kinds is None else list(kinds)},
        )
        for first, kind, events, previous_hash, hash_ in cursor:
            yield PublishedRow(first, kind, tuple(zlib.decompress(events).split(b"\n")), previous_hash, hash_)


def count_by_kind(connection: Connection, first: int, last: int) -> dict[str, int]:
    """The number of events of each kind between these numbers."""
    rows = connection.execute(
        """
        SELECT kind, sum(least(last, %(last)s) - greatest(first, %(first)s) + 1) FROM published_events
        WHERE last >= %(first)s AND first <= %(last)s GROUP BY kind
        """,
        {"first": first, "last": last},
    )
    return {kind: int(count) for kind, count in rows}


def published_at(connection: Connection, number: int) -> datetime | None:
    """When this event was published, or where it was deleted, the next one that is kept; None where there is none."""
    row = connection.execute("SELECT at FROM published_events WHERE last >= %s ORDER BY last LIMIT 1", (number,)).fetchone()
    return row[0] if row else None


def last_published_before(connection: Connection, at: datetime) -> int:
    """The number of the last event that was published before then; 0 where none is kept."""
    row = connection.execute("SELECT last FROM published_events WHERE at < %s ORDER BY last DESC LIMIT 1", (at,)).fetchone()
    return int(row[0]) if row else 0


def overdue(connection: Connection, before: datetime) -> int:
    """The number of events that were published before then."""
    row = connection.execute("SELECT coalesce(sum(last - first + 1), 0) FROM published_events WHERE at < %s", (before,)).fetchone()
    return int(row[0]) if row else 0


def forget(connection: Connection, before: datetime) -> int:
    """Delete some of the oldest rows that were published before then; returns their number."""
    return connection.execute(
        "DELETE FROM published_events WHERE last IN (SELECT last FROM published_events WHERE at < %s ORDER BY last LIMIT %s)",
        (before, ROWS_PER_STEP),
    ).rowcount


# -- what a change is about --------------------------------------------------------------------------------------------


def campaigns(connection: Connection, numbers: Sequence[int]) -> dict[int, tuple[str, dict[str, Any]]]:
    """Id and spec of these campaigns, by number."""
    rows = connection.execute("SELECT no, id, spec FROM campaigns WHERE no = ANY(%s)", (list(numbers),))
    return {no: (campaign_id, spec) for no, campaign_id, spec in rows}


def triggers(connection: Connection, chunks: Sequence[int]) -> dict[int, tuple[str, dict[str, Any]]]:
    """Key and spec of the triggers with these chunks, by chunk."""
    rows = connection.execute("SELECT chunk, key, spec FROM triggers WHERE chunk = ANY(%s)", (list(chunks),))
    return {chunk: (key, spec) for chunk, key, spec in rows}

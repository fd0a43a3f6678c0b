"""Kafka and files: the program's own readers of the stream. Each has a cursor in the ledger and works under a lease.

A sink that fails waits longer each time, and delays nothing else. It is shown by `dispatcher check` and by the metrics.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

import structlog

from dispatcher.events.webhook_delivery import backoff_seconds
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.events import sink_cursors, stream
from dispatcher.ledger.events.sink_cursors import EventSink
from dispatcher.ledger.maintenance import alerts
from dispatcher.runtime.services import Services

LEASE_SECONDS = 60.0  # for one step. After a lost worker, so long until another takes over
PAUSE_SECONDS_MAX = 60.0
ALERT_AFTER_ATTEMPTS = 5  # some two minutes: a broker that restarts needs no person
DELETED = "deleted"  # the code of the alert where retention deleted events before a sink had them

log = structlog.get_logger()


class SinkId(StrEnum):
    """The sinks, by their ids in the ledger."""

    KAFKA = "kafka"
    FILES = "files"


@dataclass(frozen=True, slots=True)
class SinkStatus:
    """How far a sink is. `lag_events` are events behind the end of the stream; `error` is the code of the last attempt, if it
    failed; `overdue` names a period of files that should be complete."""

    sink: EventSink | None
    lag_events: int
    overdue: str | None = None

    @property
    def error(self) -> str | None:
        """The code of the last attempt, if that failed."""
        return self.sink.error if self.sink else None


def configured(services: Services) -> frozenset[str]:
    """The ids of the sinks that are configured."""
    settings = {SinkId.KAFKA: services.kafka, SinkId.FILES: services.event_files}
    return frozenset(str(sink_id) for sink_id, setting in settings.items() if setting is not None)


def status(services: Services, sink_id: SinkId) -> SinkStatus:
    """How far a sink is. One that was never used is behind by all events that are kept."""
    with lend(services.pool) as connection:
        sink = sink_cursors.find(connection, sink_id)
        cursor = sink.cursor if sink else stream.oldest(connection) - 1
        return SinkStatus(sink, max(stream.head(connection).last - cursor, 0))


class SinkLease:
    """A leased sink, and what may be written under the lease."""

    def __init__(self, services: Services, sink: EventSink) -> None:
        self._services = services
        self._sink = sink
        self._attempts = sink.attempts  # that failed before this one
        self.cursor = sink.cursor
        self.progress = sink.progress

    def renew(self, connection: Connection) -> bool:
        """Keep the lease for the next step; False where it was lost."""
        return sink_cursors.renew(connection, self._sink, LEASE_SECONDS)

    def move(self, cursor: int, progress: Mapping[str, Any] | None = None) -> bool:
        """All up to this event is done; False where the lease was lost."""
        progress = self.progress if progress is None else progress
        with lend(self._services.pool) as connection:
            is_held = sink_cursors.move(connection, self._sink, cursor, progress, self._services.clock())
        self.cursor, self.progress, self._attempts = cursor, progress, 0
        return is_held

    def fail(self, error: str) -> None:
        """Record a failed attempt, and when the next one is due."""
        now = self._services.clock()
        pause = min(backoff_seconds(self._attempts, None, self._services.random()), PAUSE_SECONDS_MAX)
        log.warning("event sink failed", sink=self._sink.id, error=error, after=self.cursor)
        with lend(self._services.pool) as connection, connection.transaction():
            sink_cursors.fail(connection, self._sink, error, now, now + timedelta(seconds=pause))
            if self._attempts + 1 >= ALERT_AFTER_ATTEMPTS:
                alerts.note(connection, self._sink.id, error, True, now)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Record an exception as a failed attempt: one that only stopped the task would be seen by nobody. An error of a sink with
        a code of its own is recorded before it gets here."""
        try:
            yield
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{frame.filename.rpartition('/')[2]}:{frame.lineno}"  # no text: it can have values of an event
            log.error("an event sink has a fault", sink=self._sink.id, error=type(error).__name__, place=place)
            self.fail(type(error).__name__)

    def release(self) -> None:
        """End the lease."""
        with lend(self._services.pool) as connection:
            sink_cursors.release(connection, self._sink)

    def skip_deleted(self, connection: Connection) -> tuple[int, int] | None:
        """Go on with the oldest event that is kept, where retention deleted the next one, and tell a person; returns the first and
        last event that are missing."""
        first, oldest = self.cursor + 1, stream.oldest(connection)
        if oldest <= first:
            return None
        log.warning("events were deleted before a sink had them", sink=self._sink.id, first=first, last=oldest - 1)
        alerts.note(connection, self._sink.id, DELETED, True, self._services.clock())
        self.cursor = oldest - 1
        return first, oldest - 1


def take(services: Services, sink_id: SinkId) -> SinkLease | None:
    """Lease a sink; None while another worker has it, or the time of the next attempt has not come."""
    with lend(services.pool) as connection, connection.transaction():
        sink_cursors.ensure(connection, sink_id)
        sink = sink_cursors.lease(connection, sink_id, LEASE_SECONDS, services.clock())
    return SinkLease(services, sink) if sink else None

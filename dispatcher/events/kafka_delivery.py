"""Delivery of events to a Kafka topic: CloudEvents in structured mode, each event at least once, in order for each key.

The key of a message is the event's `partitionkey`, as CloudEvents' Kafka binding has it: so the events of one recipient are in one
partition. The producer is idempotent, and messages never time out in it. So what a partition has after a failure is a beginning of
the batch without a gap. The batch is produced again from the first event without a delivery report: the order in which events first
appear is that of the stream. The cursor moves only after the delivery reports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from dispatcher.events import event_sinks
from dispatcher.events.event_sinks import SinkId, SinkLease, SinkStatus
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.events import sink_cursors, stream
from dispatcher.runtime.event_settings import KafkaSettings
from dispatcher.runtime.services import Services

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

RUN_SECONDS = 20.0  # of one task; then the next one goes on
BATCH_EVENTS = 2_000  # at least, where there are so many; at most a row of the stream more
FLUSH_SECONDS = 15.0  # to get all delivery reports of a batch; far less than the lease
CHECK_SECONDS = 5.0
HEADERS = {"content-type": "application/cloudevents+json"}
TIMED_OUT = "timed_out"
# What the promise needs, whatever the properties file says. `enable.gapless.guarantee`: after a message that is refused, nothing
# later of the batch is produced. `message.timeout.ms` 0: never.
FIXED: Mapping[str, Any] = {
    "enable.idempotence": True,
    "acks": "all",
    "enable.gapless.guarantee": True,
    "message.timeout.ms": 0,
    "log_level": 2,  # librdkafka writes to stderr; its errors are in the ledger and our log
}
DEFAULTS: Mapping[str, Any] = {"client.id": "dispatcher", "linger.ms": 5, "reconnect.backoff.max.ms": 2_000}

Event = tuple[int, str, bytes]  # number, key, line


class KafkaBatch:
    """One batch and its delivery reports."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events
        self._is_delivered = [False] * len(events)
        self.error: str | None = None

    def produce(self, producer: Any, topic: str) -> None:
        """Hand all events to the producer, and wait for their delivery reports."""
        from confluent_kafka import KafkaException

        try:
            for place, (_, key, line) in enumerate(self._events):
                producer.produce(topic, key=key, value=line, headers=HEADERS, on_delivery=self._report(place))
                if not place % 500:
                    producer.poll(0)
            if producer.flush(FLUSH_SECONDS):
                self.error = self.error or TIMED_OUT
        except (KafkaException, BufferError) as error:
            self.error = self.error or error_code(error)

    def _report(self, place: int) -> Any:
        def report(error: KafkaError | None, _: Message) -> None:
            if error is None:
                self._is_delivered[place] = True
            else:
                self.error = self.error or error.name()

        return report

    @property
    def delivered(self) -> int:
        """How many events were delivered before the first one that was not."""
        return self._is_delivered.index(False) if False in self._is_delivered else len(self._events)


def error_code(error: Exception) -> str:
    """The name of an error, without the text: that can name hosts."""
    first: Any = error.args[0] if error.args else None
    return str(first.name()) if hasattr(first, "name") else type(error).__name__


def is_due(services: Services) -> bool:
    """Whether Kafka is configured and has not got all events, and no worker is at it."""
    if services.kafka is None:
        return False
    with lend(services.pool) as connection:
        sink = sink_cursors.find(connection, SinkId.KAFKA)
        is_behind = sink is None or sink.cursor < stream.head(connection).last
        return is_behind and sink_cursors.is_free(connection, SinkId.KAFKA, services.clock())


def deliver(services: Services, seconds_max: float = RUN_SECONDS) -> int:
    """Deliver what is due, until nothing is, an attempt fails or the time is over; returns the number of events."""
    if services.kafka is None or (lease := event_sinks.take(services, SinkId.KAFKA)) is None:
        return 0
    end = services.monotonic_clock() + seconds_max
    delivered = 0
    try:
        with lease.attempt():
            producer = _producer(services.kafka, lease)
            while producer is not None and services.monotonic_clock() < end and (count := _step(services, lease, producer)):
                delivered += count
    finally:
        lease.release()
    return delivered


def _producer(settings: KafkaSettings, lease: SinkLease) -> Any:
    """A producer for one run; None where the properties are wrong, which is a failed attempt."""
    from confluent_kafka import KafkaException, Producer

    try:
        return Producer(properties(settings))
    except (KafkaException, TypeError, ValueError) as error:
        lease.fail(error_code(error))
        return None


def properties(settings: KafkaSettings) -> dict[str, Any]:
    """The configuration of librdkafka."""
    return {**DEFAULTS, **settings.properties, "bootstrap.servers": settings.brokers, **FIXED}


def _step(services: Services, lease: SinkLease, producer: Any) -> int:
    """One batch; returns how many events were delivered, 0 also after a failure."""
    assert services.kafka is not None  # noqa: S101
    with lend(services.pool) as connection:
        lease.skip_deleted(connection)
        events = _next_events(connection, lease.cursor)
        if not lease.renew(connection):
            return 0
    if not events:
        return 0
    batch = KafkaBatch(events)
    batch.produce(producer, services.kafka.topic)
    count = batch.delivered
    if count and not lease.move(events[count - 1][0]):
        return 0
    if count < len(events):
        producer.purge()  # the next run produces them again
        lease.fail(batch.error or TIMED_OUT)
        return 0
    return count


def _next_events(connection: Connection, after: int) -> list[Event]:
    events: list[Event] = []
    with closing(stream.read(connection, after)) as rows:
        for row in rows:
            numbered = enumerate(row.lines, start=row.first)
            events += [(number, str(from_json(line)["partitionkey"]), line) for number, line in numbered if number > after]
            if len(events) >= BATCH_EVENTS:
                break
    return events


def check(services: Services) -> tuple[SinkStatus, str | None]:
    """How far Kafka is, and the code of an error where no broker answers now."""
    from confluent_kafka import KafkaException, Producer

    assert services.kafka is not None  # noqa: S101
    status = event_sinks.status(services, SinkId.KAFKA)
    try:
        Producer(properties(services.kafka)).list_topics(services.kafka.topic, timeout=CHECK_SECONDS)
    except (KafkaException, TypeError, ValueError) as error:
        return status, error_code(error)
    return status, None

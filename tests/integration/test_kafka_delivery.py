"""Kafka out: every event arrives in its topic, in order for each recipient, whatever brokers and workers do.

The brokers are librdkafka's own mock cluster: real sockets and Kafka's protocol, in the process of the test.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from dispatcher.domain.preferences import Change
from dispatcher.events import event_sinks, kafka_delivery, publication
from dispatcher.events.event_sinks import SinkId
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import events
from dispatcher.ledger.consent.events import ConsentStatement, Provenance
from dispatcher.ledger.maintenance import alerts
from dispatcher.maintenance import metrics
from dispatcher.runtime.event_settings import KafkaSettings
from dispatcher.runtime.services import Services
from tests.integration.test_events import everything_once
from tests.support.feed import all_events
from tests.support.services import Clock, add_people, make_services, person

TOPIC = "dispatcher.events"
PEOPLE = ("anna", "bert", "carl")
# A worker that delivers small batches until it is killed.
WORKER = """
import sys
from dispatcher.events import kafka_delivery
from dispatcher.runtime.event_settings import KafkaSettings
from dataclasses import replace
from datetime import UTC, datetime
from tests.support.services import Clock, make_services
kafka_delivery.BATCH_EVENTS = 1
with make_services(sys.argv[1], Clock(datetime.now(UTC))) as services:
    while True:
        kafka_delivery.deliver(replace(services, kafka=KafkaSettings(sys.argv[2], sys.argv[3])))
"""


@pytest.fixture(scope="module")
def brokers() -> Iterator[str]:
    """Three brokers of a mock cluster, as `host:port` with commas between them."""
    cluster = Producer({"test.mock.num.brokers": 3, "log_level": 0})
    found = cluster.list_topics(timeout=60).brokers.values()
    yield ",".join(f"{each.host}:{each.port}" for each in found)
    del cluster


@pytest.fixture
def services(database: str, brokers: str, numbers: Iterator[int]) -> Iterator[Services]:
    with make_services(database, Clock(datetime.now(UTC))) as made:
        add_people(made, *(person(recipient_id, number) for number, recipient_id in enumerate(PEOPLE, start=1)))
        yield replace(made, kafka=KafkaSettings(brokers, f"{TOPIC}.{next(numbers)}"))


def clock(services: Services) -> Clock:
    assert isinstance(services.clock, Clock)
    return services.clock


def say(services: Services, times: int) -> None:
    """Record choices of each person and publish them: an event each."""
    for number in range(times):
        for recipient_id in PEOPLE:
            statement = ConsentStatement(recipient_id, (Change("channel:email", "on" if number % 2 else "off"),), services.clock())
            with lend(services.pool) as connection:
                events.record(connection, services.secret, statement, Provenance("branch", "clerk-0815"), services.clock())
        publication.publish(services)


def received(services: Services, count: int) -> list[Any]:
    """The messages of the topic, until so many different events are there; each partition in its order."""
    assert services.kafka is not None
    consumer = Consumer({"bootstrap.servers": services.kafka.brokers, "group.id": services.kafka.topic, "log_level": 0})
    known = consumer.list_topics(services.kafka.topic, timeout=60).topics[services.kafka.topic].partitions
    consumer.assign([TopicPartition(services.kafka.topic, partition, 0) for partition in known])
    messages: list[Any] = []
    while len({each.value() for each in messages}) < count:
        message = consumer.poll(120)
        assert message is not None, f"{len(messages)} messages, {count} events expected"
        assert message.error() is None, message.error()
        messages.append(message)
    consumer.close()
    return messages


def first_seen(messages: list[Any]) -> dict[bytes, list[int]]:
    """The numbers of the events of each key, without repetitions, in the order in which they came."""
    numbers: dict[bytes, list[int]] = defaultdict(list)
    for message in messages:
        number = int(json.loads(message.value())["sequence"])
        if number not in numbers[message.key()]:
            numbers[message.key()].append(number)
    return numbers


def is_complete(services: Services, messages: list[Any]) -> bool:
    expected: dict[bytes, list[int]] = defaultdict(list)
    for event in all_events(services):
        expected[event["partitionkey"].encode()].append(int(event["sequence"]))
    return first_seen(messages) == expected


def test_each_event_arrives_in_kafka_once_and_in_order(services: Services) -> None:
    everything_once(services)
    say(services, 4)
    count = len(all_events(services))
    assert kafka_delivery.deliver(services) == count
    messages = received(services, count)
    assert len(messages) == count
    assert is_complete(services, messages)
    assert {tuple(message.headers()) for message in messages} == {(("content-type", b"application/cloudevents+json"),)}
    feed = {json.dumps(each, sort_keys=True) for each in all_events(services)}
    assert {json.dumps(json.loads(each.value()), sort_keys=True) for each in messages} == feed
    assert not kafka_delivery.is_due(services)
    private = b"example.org", b"Geheimtuin", b"+3247", b"0815", b"wording-4711"
    assert not [each for each in private if any(each in message.value() + message.key() for message in messages)]


def test_a_killed_worker_leaves_no_gap_in_kafka(services: Services, database: str) -> None:
    assert services.kafka is not None
    say(services, 40)
    count = len(all_events(services))
    command = (sys.executable, "-c", WORKER, database, services.kafka.brokers, services.kafka.topic)
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}) as worker:
        try:
            while event_sinks.status(services, SinkId.KAFKA).lag_events == count:
                assert worker.poll() is None
                time.sleep(0.005)
        finally:
            worker.send_signal(signal.SIGKILL)
    assert 0 < event_sinks.status(services, SinkId.KAFKA).lag_events < count
    assert kafka_delivery.deliver(services) == 0  # its lease has not ended
    with lend(services.pool) as connection:
        connection.execute("UPDATE event_sinks SET leased_until = '-infinity'")
    kafka_delivery.deliver(services)
    assert is_complete(services, received(services, count))


def test_a_batch_without_its_commit_is_produced_again(services: Services) -> None:
    """The worker is lost between the delivery reports and the move of the cursor."""
    say(services, 3)
    count = len(all_events(services))
    taken = event_sinks.take(services, SinkId.KAFKA)
    assert taken is not None
    with lend(services.pool) as connection:  # frozen: another worker gets the lease
        connection.execute("UPDATE event_sinks SET leased_until = '-infinity'")
    assert kafka_delivery.deliver(services) == count
    assert not taken.move(1)  # the frozen one wakes up
    assert event_sinks.status(services, SinkId.KAFKA).lag_events == 0
    with lend(services.pool) as connection:
        connection.execute("UPDATE event_sinks SET cursor = 3")
    assert kafka_delivery.deliver(services) == count - 3
    messages = received(services, count)
    assert is_complete(services, messages)


def test_brokers_that_are_away_are_shown_and_tried_again(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    assert services.kafka is not None
    say(services, 1)
    count = len(all_events(services))
    away = replace(services, kafka=KafkaSettings("127.0.0.1:1", services.kafka.topic))
    for attempt in range(1, event_sinks.ALERT_AFTER_ATTEMPTS + 1):
        with monkeypatch.context() as patience:  # only for brokers that never answer
            patience.setattr(kafka_delivery, "FLUSH_SECONDS", 0.3)
            assert kafka_delivery.deliver(away) == 0
        status = event_sinks.status(services, SinkId.KAFKA)
        assert status.sink is not None
        assert (status.sink.attempts, status.lag_events, status.error) == (attempt, count, "timed_out")
        assert not kafka_delivery.is_due(away)
        assert kafka_delivery.deliver(away) == 0  # its time has not come
        clock(services).pass_(event_sinks.PAUSE_SECONDS_MAX)
    with lend(services.pool) as connection:
        assert ("kafka", "timed_out") in {(each.provider, each.code) for each in alerts.newest(connection)}
    assert kafka_delivery.check(away)[1] == "_TRANSPORT"
    (shown,) = metrics.collect(away).sinks
    assert (shown.id, shown.is_failing, shown.lag_events) == ("kafka", True, count)
    assert kafka_delivery.deliver(services) == count
    status, error = kafka_delivery.check(services)
    assert (status.error, status.lag_events, error) == (None, 0, None)
    assert is_complete(services, received(services, count))


def test_events_that_retention_deleted_are_skipped_and_told(services: Services) -> None:
    say(services, 2)
    count = len(all_events(services))
    assert event_sinks.take(services, SinkId.KAFKA) is not None
    with lend(services.pool) as connection:
        connection.execute("DELETE FROM published_events WHERE last = (SELECT min(last) FROM published_events)")
        connection.execute("UPDATE event_sinks SET leased_until = '-infinity'")
    assert 0 < kafka_delivery.deliver(services) < count
    with lend(services.pool) as connection:
        assert ("kafka", event_sinks.DELETED) in {(each.provider, each.code) for each in alerts.newest(connection)}

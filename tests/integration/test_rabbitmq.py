"""RabbitMQ as the broker: lanes are quorum queues, and what Valkey does for the order of work has its replacement."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from kombu.exceptions import ChannelError

from celeryconfig import CAMPAIGN_FIRST, LANES
from dispatcher.campaigns import scheduler
from dispatcher.client import BrokerClient, BrokerUnavailable, rabbitmq
from dispatcher.domain.sealed_jobs import public_key
from dispatcher.ledger.connection import lend
from dispatcher.ledger.maintenance.heartbeats import Heartbeat, newest_heartbeats
from dispatcher.maintenance.surroundings import look
from dispatcher.runtime.services import Services, Watched
from tests.integration.test_broker_places import tls_front
from tests.integration.test_restores import submit
from tests.support.command import run_command, variables
from tests.support.rabbitmq import RabbitNode, purge, rabbit_node
from tests.support.services import Clock, add_people, make_services, person

QUEUES = (*LANES, CAMPAIGN_FIRST)
DELAYED = [f"celery_delayed_{level}" for level in range(28)]
PATIENCE_SECONDS = 90.0
SOON = "99999999-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def running() -> Iterator[RabbitNode]:
    """One node for all tests of this module."""
    with rabbit_node() as node:
        yield node


@pytest.fixture
def node(running: RabbitNode) -> Iterator[RabbitNode]:
    """The node, with empty lanes."""
    yield running
    purge(running.url)


def publish(node: RabbitNode, store_url: str, program: str, url: str = "") -> str:
    """Publish with the program's own application in a process of its own; what it prints."""
    environ = {**os.environ, "DISPATCHER_BROKER_URL": url or node.url, "DISPATCHER_STORE_URL": store_url}
    done = subprocess.run((sys.executable, "-c", program), env=environ, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def wait_until(met: Callable[[], bool], log: Path | None = None) -> None:
    """Poll. `log` is what to show if it never happens."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not met():
        assert time.monotonic() < deadline, log.read_text() if log else ""
        time.sleep(0.2)


# -- queues ------------------------------------------------------------------------------------------------------------

CHUNKS = """
from dispatcher import tasks
from dispatcher.campaigns.scheduler import DueChunk
tasks.publish([
    DueChunk(202611, 1, 5, is_first_of_campaign=True), DueChunk(202611, 2, 1),
    DueChunk(202611, 3, 5), DueChunk(202611, 4, 5, is_repeat=True), DueChunk(202611, 5, 8, is_first_of_campaign=True),
    DueChunk(202611, 6, None), DueChunk(202611, 7, None, is_repeat=True),
])
print(tasks.lane_depths())
"""


def connection_to(node: RabbitNode) -> Any:
    rabbitmq.install()
    return Connection(node.url)


def test_zero_goes_first_where_a_queue_has_priorities(node: RabbitNode) -> None:
    queue = Queue("ordered", Exchange("ordered"), routing_key="ordered", queue_arguments={"x-max-priority": 9})
    with connection_to(node) as connection, connection.SimpleQueue(queue) as lane:
        for priority in (9, 5, 0):
            lane.put(priority, priority=priority)
        messages = [lane.get(timeout=30) for _ in range(3)]
        assert [(each.payload, each.properties["priority"]) for each in messages] == [(0, 0), (5, 5), (9, 9)]
        for each in messages:
            each.ack()


def test_an_unknown_certificate_is_refused(node: RabbitNode, broker_url: str, tmp_path: Path) -> None:
    with tls_front(node.port, tmp_path) as port:
        known = f"amqps://guest:guest@127.0.0.1:{port}//?ssl_ca_certs={tmp_path / 'ca.pem'}"
        assert publish(node, broker_url, CHUNKS, known) == "LaneDepths(campaign=5, transactional=2)"
        assert rabbitmq.waiting(known, ["campaign"], 30.0) == {"campaign": 3}
        with pytest.raises(BrokerUnavailable, match="SSLCertVerificationError"):
            rabbitmq.waiting(f"amqps://guest:guest@127.0.0.1:{port}//", ["campaign"], 30.0)


# -- the client of other systems ---------------------------------------------------------------------------------------


def test_the_client_needs_lanes_and_no_right_to_make_them(node: RabbitNode, broker_url: str, database: str) -> None:
    with make_services(database) as services:
        client = BrokerClient(node.url, public_key(services.secret.newest))
    with connection_to(node) as connection, connection.channel() as channel:
        channel.queue_delete("transactional")
        channel.exchange_delete("transactional")
    with pytest.raises(BrokerUnavailable, match="does not take jobs for the lane transactional"):
        client.send_trigger("k-1", "c-1", "loan_offer", {})
    publish(node, broker_url, CHUNKS)
    client.send_trigger("k-1", "c-1", "loan_offer", {})
    client.close()
    assert rabbitmq.waiting(node.url, ["transactional"], 30.0) == {"transactional": 3}


# -- what people see ---------------------------------------------------------------------------------------------------


@pytest.fixture
def services(database: str) -> Iterator[Services]:
    with make_services(database, Clock(datetime.now(UTC).replace(hour=12))) as made:
        yield made


def test_depth_and_age_of_a_lane_are_known(node: RabbitNode, broker_url: str, services: Services) -> None:
    add_people(services, person("c-1"))
    submit(services, "spring", ["c-1"])
    (due,) = scheduler.due_chunks(services)
    publish(node, broker_url, CHUNKS)
    around = look(replace(services, watched=Watched(broker_url=node.url, store_url=broker_url)))
    assert around.engines == {"database": True, "broker": True, "store": True}
    assert (around.lanes["campaign"].tasks, around.lanes["campaign"].oldest_at) == (5, services.clock().timestamp())
    assert (around.lanes["transactional"].tasks, around.lanes["transactional"].oldest_at) == (2, None)
    assert due.number


def test_an_engine_that_does_not_answer_is_named(services: Services) -> None:
    away = Watched(broker_url="amqp://guest:guest@127.0.0.1:1//", store_url="redis://127.0.0.1:1/0")
    around = look(replace(services, watched=away))
    assert around.engines == {"database": True, "broker": False, "store": False}
    assert around.lanes == {}


def test_the_check_shows_broker_and_store(node: RabbitNode, broker_url: str, database: str, tmp_path: Path) -> None:
    urls = {"DISPATCHER_BROKER_URL": node.url, "DISPATCHER_STORE_URL": broker_url}
    done = run_command(database, tmp_path, "check", **urls)
    assert "✓  broker" in done.stdout
    assert "✓  store" in done.stdout
    done = run_command(database, tmp_path, "check", "--before-upgrade", **urls)
    assert "tasks that wait: none" in done.stdout


def components(services: Services) -> Mapping[str, Heartbeat]:
    with lend(services.pool) as connection:
        return newest_heartbeats(connection)


# -- a worker ----------------------------------------------------------------------------------------------------------


def test_a_message_with_a_time_takes_no_place_of_a_worker(
    node: RabbitNode, broker_url: str, database: str, services: Services, tmp_path: Path
) -> None:
    """A worker with one process, which also takes from the second queue of the lane campaign."""
    publish(node, broker_url, CHUNKS)
    later = {"eta": (datetime.now(UTC) + timedelta(minutes=4)).isoformat()}
    with connection_to(node) as connection, connection.Producer() as producer:
        for number in range(3):
            task = {"task": "dispatcher.record_heartbeat", "id": f"{number:08}-0000-4000-8000-000000000000"}
            producer.publish([[], {}, {}], exchange="campaign", routing_key="campaign", serializer="json", headers=task | later)
        producer.publish([[], {}, {}], exchange="campaign", routing_key="campaign", serializer="json", headers=task)
        soon = {"task": "dispatcher.record_heartbeat", "id": SOON, "eta": (datetime.now(UTC) + timedelta(seconds=20)).isoformat()}
        producer.publish([[], {}, {}], exchange=CAMPAIGN_FIRST, routing_key=CAMPAIGN_FIRST, serializer="json", headers=soon)
    environ = {**os.environ, **variables(database, tmp_path, DISPATCHER_BROKER_URL=node.url, DISPATCHER_STORE_URL=broker_url)}
    options = ("--queues", "campaign", "--concurrency", "1", "--without-gossip", "--without-mingle")
    log = tmp_path / "log"
    with log.open("wb") as file:
        argv = (sys.executable, "-m", "celery", "-A", "dispatcher", "worker", *options)
        worker = subprocess.Popen(argv, stdout=file, stderr=file, env=environ)
    try:
        wait_until(lambda: not any(rabbitmq.waiting(node.url, ("campaign", CAMPAIGN_FIRST), 30.0).values()), log)
        wait_until(lambda: sum(rabbitmq.waiting(node.url, DELAYED, 30.0).values()) == 3, log)
        wait_until(lambda: "campaign" in components(services), log)
        wait_until(lambda: f"[{SOON}] succeeded" in log.read_text(), log)  # it comes back to its queue
    finally:
        worker.terminate()
        worker.wait()
    assert not any(rabbitmq.waiting(node.url, ("campaign", CAMPAIGN_FIRST), 30.0).values())


# -- a crash -----------------------------------------------------------------------------------------------------------


def test_what_was_published_survives_a_killed_node(node: RabbitNode, broker_url: str) -> None:
    kept = dict.fromkeys(QUEUES, 0) | {CAMPAIGN_FIRST: 2, "campaign": 3, "transactional": 2}
    publish(node, broker_url, CHUNKS)
    node.stop()  # RabbitMQ 3.10 does not recover a quorum queue that was created in the last seconds before a crash
    node.start()
    wait_until(lambda: rabbitmq.waiting(node.url, QUEUES, 30.0) == kept)
    purge(node.url)
    assert publish(node, broker_url, CHUNKS) == "LaneDepths(campaign=5, transactional=2)"
    node.kill()
    node.start()
    wait_until(lambda: rabbitmq.waiting(node.url, QUEUES, 30.0) == kept)  # a queue tells no messages while it recovers
    with connection_to(node) as connection, connection.channel() as channel, pytest.raises(ChannelError, match="inequivalent arg"):
        channel.queue_declare("campaign", durable=True, auto_delete=False)  # as a classic queue

"""Celery's settings, with a real broker and a real worker: lanes, routes, and what happens to a message whose worker dies."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import amqp
import pytest
from celery import Celery
from celery.app.defaults import DEFAULTS
from redis import Redis

import celeryconfig
from dispatcher.devserver.supervisor import WORKERS, ChildCommand, supervised
from dispatcher.embedded.daemon import wait_until

LANES = {
    "dispatcher.submit_campaign": "fanout",
    "dispatcher.trigger": "transactional",
    "dispatcher.send_trigger": "transactional",
    "dispatcher.send_chunk": "campaign",
    "dispatcher.settle_events": "inbound",
    "dispatcher.load_audience": "fanout",
    "dispatcher.keep_refused_job": "maintenance",
    "dispatcher.record_heartbeat": "maintenance",
    "dispatcher.release_due": "clock",
    "dispatcher.publish_events": "clock",
    "dispatcher.deliver_webhooks": "events",
    "dispatcher.deliver_kafka": "events",
    "dispatcher.write_event_files": "events",
    "dispatcher.sweep": "maintenance",
    "dispatcher.ask_providers": "maintenance",
    "dispatcher.retain": "maintenance",
    "dispatcher.poll_whatsapp_templates": "maintenance",
    "dispatcher.run_schedules": "maintenance",
    "dispatcher.run_canaries": "maintenance",
}
# A worker with these settings. Its one task records its start, and then does what its argument says.
PROGRAM = """
import os, pathlib, signal, sys, time
from celery import Celery
app = Celery("trial", broker=os.environ["DISPATCHER_BROKER_URL"], config_source="celeryconfig")

@app.task(name="dispatcher.trigger")
def trigger(journal, act):
    with open(journal, "a") as file:
        file.write(f"{os.getpid()}\\n")
    first = len(pathlib.Path(journal).read_text().splitlines()) == 1
    if act == "die" and first:
        os.kill(os.getpid(), signal.SIGKILL)
    if act == "linger":
        time.sleep(1.5)
        with open(journal, "a") as file:
            file.write("done\\n")

app.worker_main(["worker", "--queues", "campaign", "--concurrency", "1", "--without-gossip", "--without-mingle"])
"""


@pytest.fixture
def app(broker_url: str) -> Iterator[Any]:
    with Celery("tests", broker=broker_url, config_source="celeryconfig", set_as_current=False) as app:
        yield app


@pytest.fixture
def broker(broker_url: str) -> Iterator[Redis]:
    place = urlsplit(broker_url)
    with Redis(unix_socket_path=place.path, db=int(place.query.partition("=")[2]), decode_responses=True) as client:
        yield client


@contextmanager
def worker(broker_url: str, folder: Path) -> Iterator[int]:
    environ = {**os.environ, "DISPATCHER_BROKER_URL": broker_url, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = ChildCommand("trial", (sys.executable, "-c", PROGRAM), WORKERS, stop_seconds_max=30.0)
    with supervised([command], folder, environ) as processes:
        yield processes.children["trial"].process.pid


def lines(journal: Path) -> list[str]:
    return journal.read_text().splitlines() if journal.exists() else []


def test_each_task_is_in_its_lane_as_json(app: Any, broker: Redis) -> None:
    for task in LANES:
        app.send_task(task, args=[{"ref": 1}])
    for lane in celeryconfig.LANES:
        messages = [json.loads(message) for message in broker.lrange(lane, 0, -1)]
        assert {message["headers"]["task"] for message in messages} == {task for task, of in LANES.items() if of == lane}
        assert all(message["content-type"] == "application/json" for message in messages)


def test_the_lanes_are_written_as_flower_reads_them() -> None:
    assert tuple(queue.name for queue in celeryconfig.task_queues) == celeryconfig.LANES


def test_a_lane_that_nobody_serves_is_an_error(app: Any) -> None:
    with pytest.raises(Exception, match="campagne"):
        app.send_task("dispatcher.send_chunk", queue="campagne")


def test_beat_schedules_known_tasks_that_expire(app: Any) -> None:
    for entry in app.conf.beat_schedule.values():
        assert entry["task"] in LANES
        assert entry["schedule"] < entry["options"]["expires"] <= 2 * entry["schedule"]


def test_a_task_ends_before_its_message_is_redelivered(app: Any) -> None:
    """Otherwise the broker would deliver it again while it runs."""
    conf = app.conf
    assert conf.task_soft_time_limit < conf.task_time_limit < conf.broker_transport_options["visibility_timeout"]


def test_every_transport_option_is_known_to_kombu(app: Any) -> None:
    with app.connection() as connection:
        known = set(connection.transport.Channel.from_transport_options)
    assert set(celeryconfig.broker_transport_options) <= known


def test_every_option_for_rabbitmq_is_known_to_its_client() -> None:
    assert set(celeryconfig._RABBITMQ_OPTIONS) <= set(signature(amqp.Connection).parameters)


def test_every_setting_is_known_to_celery() -> None:
    written = {name for name in vars(celeryconfig) if name.islower() and not name.startswith("_")} - {"os"}
    assert written <= set(DEFAULTS)


def test_a_message_of_a_killed_child_is_processed_again(app: Any, broker_url: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    app.send_task("dispatcher.trigger", queue="campaign", args=[str(journal), "die"])
    with worker(broker_url, tmp_path):
        assert wait_until(lambda: len(lines(journal)) == 2, seconds=240)
    assert len(set(lines(journal))) == 2, "another child process ran it"


def test_a_stopping_worker_finishes_its_current_task(app: Any, broker: Redis, broker_url: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    for _ in range(2):
        app.send_task("dispatcher.trigger", queue="campaign", args=[str(journal), "linger"])
    with worker(broker_url, tmp_path) as pid:
        assert wait_until(lambda: len(lines(journal)) == 1, seconds=240)
        os.kill(pid, signal.SIGTERM)
    assert [line == "done" for line in lines(journal)] == [False, True], "it finished the running task"
    assert broker.llen("campaign") == 1, "and the waiting task is still on the broker"
    assert broker.hlen("unacked") == 0

"""Valkey as a broker: what is no message of Celery's protocol is refused, and the worker that reads it goes on."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from kombu.connection import Connection
from kombu.entity import Queue
from kombu.messaging import Consumer
from redis import Redis

from dispatcher import broker_transport, tasks
from dispatcher.broker_messages import Refusal, check
from dispatcher.celery_app import app
from dispatcher.domain.refused_job import TRIGGER_TASK, RefusalReason

ID = "5d5e2b9a-7f7d-4d0e-8c5a-1f6f2d9a0b3c"
LANE = "transactional"
DELIVERY = {"exchange": LANE, "routing_key": LANE}
PROPERTIES = {"delivery_tag": "t-1", "delivery_info": DELIVERY, "body_encoding": "base64", "priority": 0}
NO_MESSAGES = [
    b"",
    b"garbage",
    b"\xff\xfe",
    b"5",
    b"null",
    b"[]",
    b"{}",
    b"[" * 100_000,
]


def item(body: Any = '[[{"key": "k-1"}], {}, {}]', **others: Any) -> bytes:
    encoded = base64.b64encode(body.encode()).decode() if isinstance(body, str) else body
    headers = {"task": TRIGGER_TASK, "id": ID}
    message = {"body": encoded, "content-type": "application/json", "content-encoding": "utf-8", "headers": headers}
    return json.dumps({**message, "properties": PROPERTIES, **others}).encode()


def properties(**others: Any) -> dict[str, Any]:
    return {"properties": {**PROPERTIES, **others}}


BROKEN_MESSAGES = [
    item(5),
    item(None),
    item(headers=[1]),
    item(headers="x"),
    item(properties=[]),
    item(properties={}),
    item(**properties(body_encoding="zzz")),
    item(**properties(delivery_tag=[1])),
    json.dumps({**json.loads(item()), "body": "A"}).encode(),
]


def received(broker_url: str, *items: bytes) -> list[Any]:
    """What a consumer of the lane gets of these items."""
    place = urlsplit(broker_url)
    with Redis(unix_socket_path=place.path, db=int(place.query.partition("=")[2])) as valkey:
        for each in items:
            valkey.lpush(LANE, each)
    messages: list[Any] = []
    with (
        Connection(broker_url, transport=broker_transport.ValkeyTransport) as connection,
        Consumer(connection, [Queue(LANE)], on_message=messages.append, accept=["json"]),
    ):
        while len(messages) < len(items):
            connection.drain_events(timeout=120)
        for message in messages:
            message.ack()
    return messages


def test_what_is_no_message_is_refused_and_the_next_one_is_read(broker_url: str) -> None:
    assert tasks.trigger.name == TRIGGER_TASK
    *broken, good = received(broker_url, *NO_MESSAGES, *BROKEN_MESSAGES, item())
    for message in broken:
        with pytest.raises(Refusal) as caught:
            check(message, app.tasks, datetime.now(UTC))
        assert caught.value.reason is RefusalReason.UNREADABLE_MESSAGE
    assert check(good, app.tasks, datetime.now(UTC)).payload == [[{"key": "k-1"}], {}, {}]


@pytest.mark.parametrize("given", [None, "x", {}, {"exchange": "elsewhere", "routing_key": None}])
def test_a_message_goes_back_to_the_lane_it_came_from(broker_url: str, given: Any) -> None:
    (message,) = received(broker_url, item(**properties(delivery_info=given)))
    assert message.delivery_info == DELIVERY
    assert message.payload == [[{"key": "k-1"}], {}, {}]


def test_a_message_of_celery_is_left_as_it_is() -> None:
    assert broker_transport.readable(item(), LANE) == item()


def test_workers_use_these_transports() -> None:
    for scheme in ("redis", "rediss", "sentinel"):
        assert Connection(f"{scheme}://127.0.0.1:1/0").get_transport_cls().__module__ == broker_transport.__name__

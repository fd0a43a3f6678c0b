"""Valkey and Redis as a broker, on which one item that is no message of Celery's protocol does not end a worker; RabbitMQ.

There a lane is a list, and any program can push anything into it. kombu takes an item from the list and then reads it; where that
fails, the worker ends and the item is lost. After some of them the lane has no worker for minutes.
"""

from __future__ import annotations

import base64
import json
from functools import partial
from typing import Any
from uuid import uuid4

from kombu.transport import TRANSPORT_ALIASES, redis

from dispatcher.client import rabbitmq

_PRIORITY = b"\x06\x16"  # kombu's separator between a lane's name and its priority


def install() -> None:
    """Use these transports for the URL schemes of Valkey and Redis, and our own for RabbitMQ."""
    rabbitmq.install()
    own = f"{__name__}:ValkeyTransport"
    TRANSPORT_ALIASES.update(redis=own, rediss=own, sentinel=f"{__name__}:ValkeySentinelTransport")


def readable(item: bytes, lane: str) -> bytes:
    """The item, if kombu can read it. In place of any other a message that holds it, is none of Celery's, and so gets refused.

    The lane from which it came also replaces another one that it names: kombu puts it back there, if its worker is lost.
    """
    try:
        message = json.loads(item)
        properties = message["properties"]
        body, encoding = message.get("body"), properties.get("body_encoding")
        is_message = (
            isinstance(message.get("headers"), dict | None)
            and isinstance(properties["delivery_tag"], str | int)
            and isinstance(body, str)
            and encoding in (None, "base64")
        )
        if encoding:
            base64.b64decode(body)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        is_message = False
    if not is_message:
        return _as_message(item.decode(errors="replace"), lane)
    place = {"exchange": lane, "routing_key": lane}
    given = properties.get("delivery_info")
    if isinstance(given, dict) and place.items() <= given.items():
        return item
    properties["delivery_info"] = {**(given if isinstance(given, dict) else {}), **place}
    return json.dumps(message).encode()


def _as_message(text: str, lane: str) -> bytes:
    properties = {
        "body_encoding": "base64",
        "delivery_tag": str(uuid4()),
        "delivery_info": {"exchange": lane, "routing_key": lane},
        "priority": 0,
    }
    body = base64.b64encode(json.dumps([text]).encode()).decode()
    message = {"body": body, "content-type": "application/json", "content-encoding": "utf-8", "headers": {}}
    return json.dumps({**message, "properties": properties}).encode()


class _ReadableItems:
    """A client of Valkey whose BRPOP gives readable items."""

    def parse_response(self, connection: Any, command_name: str, **options: Any) -> Any:
        """The answer to a command."""
        answer = super().parse_response(connection, command_name, **options)  # type: ignore[misc]
        if command_name != "BRPOP" or not answer:
            return answer
        key, item = answer
        return key, readable(item, key.split(_PRIORITY)[0].decode())


def _with_readable_items(client: Any) -> Any:
    if isinstance(client, partial):  # kombu's client with a prefix for keys
        return partial(_with_readable_items(client.func), **client.keywords)
    return type("Client", (_ReadableItems, client), {})


class ValkeyChannel(redis.Channel):
    """kombu's channel, with readable items."""

    def _get_client(self) -> Any:
        return _with_readable_items(super()._get_client())


class ValkeySentinelChannel(redis.SentinelChannel):
    """The same for Sentinel."""

    def _get_client(self) -> Any:
        return _with_readable_items(super()._get_client())


class ValkeyTransport(redis.Transport):
    """kombu's transport, with readable items."""

    Channel = ValkeyChannel


class ValkeySentinelTransport(redis.SentinelTransport):
    """The same for Sentinel."""

    Channel = ValkeySentinelChannel

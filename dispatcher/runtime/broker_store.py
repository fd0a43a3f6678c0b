"""The broker as a store: a client of Valkey or Redis for whatever form of URL Celery has. Rates, lane depths and checks use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from redis import Redis
from redis.sentinel import Sentinel

import celeryconfig
from dispatcher.domain.broker_url import common_spelling

SENTINEL = "sentinel://"
SENTINEL_PORT = 26_379


def is_store(broker_url: str) -> bool:
    """Whether the broker is a Valkey or Redis."""
    return broker_url.startswith(("redis://", "rediss://", "redis+socket://", SENTINEL))


def connect_store(broker_url: str, seconds: float, connect_seconds: float) -> Redis:
    """A client that waits at most so long for an answer and for a connection. Behind Sentinels it follows the master."""
    timeouts = {"socket_timeout": seconds, "socket_connect_timeout": connect_seconds}
    if broker_url.startswith(SENTINEL):
        return _behind_sentinels(broker_url, timeouts)
    url = common_spelling(broker_url).replace("redis+socket://", "unix://").replace("?virtual_host=", "?db=")
    return Redis.from_url(url, **timeouts)


def _behind_sentinels(broker_url: str, timeouts: dict[str, float]) -> Redis:
    """The URLs of several Sentinels, with semicolons between them; user, password and number of the database are the master's, and
    those of the first URL count, as for kombu."""
    places = [urlsplit(part) for part in broker_url.split(";")]
    options: Mapping[str, Any] = celeryconfig.broker_transport_options
    first = places[0]
    sentinels = Sentinel(  # type: ignore[no-untyped-call]
        [(place.hostname, place.port or SENTINEL_PORT) for place in places],
        sentinel_kwargs={**options.get("sentinel_kwargs", {}), **timeouts},
    )
    database = int(first.path.strip("/") or 0)
    client: Redis = sentinels.master_for(  # type: ignore[no-untyped-call]
        options["master_name"], username=first.username, password=first.password, db=database, **timeouts
    )
    return client

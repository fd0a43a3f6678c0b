"""A client of the Valkey or Redis that is the broker or beside it, for whatever form of URL Celery has.

Rates, lane depths, the last claim and checks use it.
"""

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


def connect_store(url: str, seconds: float, connect_seconds: float) -> Redis:
    """A client that waits at most so long for an answer and for a connection. Behind Sentinels it follows the master."""
    timeouts = {"socket_timeout": seconds, "socket_connect_timeout": connect_seconds}
    if url.startswith(SENTINEL):
        return _behind_sentinels(url, timeouts)
    url = common_spelling(url).replace("redis+socket://", "unix://").replace("?virtual_host=", "?db=")
    return Redis.from_url(url, **timeouts)


def _behind_sentinels(url: str, timeouts: dict[str, float]) -> Redis:
    """The URLs of several Sentinels, with semicolons between them; user, password and number of the database are the master's, and
    those of the first URL count, as for kombu."""
    places = [urlsplit(part) for part in url.split(";")]
    options: Mapping[str, Any] = celeryconfig.SENTINEL_OPTIONS
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

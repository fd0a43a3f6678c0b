"""The settings of the broker. `celeryconfig` reads the same variables: it imports nothing of this project."""

from __future__ import annotations

from dispatcher.domain.broker_url import BadBrokerUrl, common_spelling
from dispatcher.runtime.environment import EnvironmentReader

URL = "DISPATCHER_BROKER_URL"
MASTER = "DISPATCHER_BROKER_SENTINEL"


def read_broker_url(read: EnvironmentReader) -> str:
    """The URL, in the spelling that Celery and redis-py both read; empty where it is not set."""
    url = read.url_with_password(
        URL,
        ("redis", "rediss", "redis+socket", "sentinel"),
        several=True,
        about="your own Valkey or Redis; without it an embedded one is started. Several Sentinels with semicolons between them",
    )
    master = read.text(MASTER, about="the name of the master that the Sentinels of DISPATCHER_BROKER_URL watch")
    read.secret(
        "DISPATCHER_BROKER_SENTINEL_PASSWORD", about="the password of the Sentinels, if they have one; the URL has the master's"
    )
    if url.startswith("sentinel://") and not master:
        read.fault(f"{MASTER} is not set: {URL} names Sentinels, and they must be asked for a master by name, such as mymaster.")
    try:
        return common_spelling(url)
    except BadBrokerUrl as error:
        read.fault(f"{URL} (not shown, it may hold a password): {error}.")
        return url

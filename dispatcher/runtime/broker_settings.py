"""The settings of the broker. `celeryconfig` reads the same variables: it imports nothing of this project."""

from __future__ import annotations

from dispatcher.domain.broker_url import BadBrokerUrl, common_spelling, is_rabbitmq
from dispatcher.runtime.environment import EnvironmentReader

URL = "DISPATCHER_BROKER_URL"
STORE = "DISPATCHER_STORE_URL"
MASTER = "DISPATCHER_BROKER_SENTINEL"
STORE_SCHEMES = ("redis", "rediss", "redis+socket", "sentinel")
SENTINEL = "sentinel://"


def read_broker_urls(read: EnvironmentReader) -> tuple[str, str]:
    """The URL of the broker and that of the store beside it, in the spelling that all clients read; empty where not set."""
    broker = _read(
        read,
        URL,
        (*STORE_SCHEMES, "amqp", "amqps"),
        "your own Valkey, Redis or RabbitMQ; without it an embedded Valkey is started. Several Sentinels or nodes with semicolons"
        " between them",
    )
    store = _read(
        read,
        STORE,
        STORE_SCHEMES,
        "with RabbitMQ: the Valkey or Redis beside it, for the channels' rates and the last claim; otherwise the broker has them",
    )
    master = read.text(MASTER, about="the name of the master that the Sentinels of DISPATCHER_BROKER_URL watch")
    read.secret(
        "DISPATCHER_BROKER_SENTINEL_PASSWORD", about="the password of the Sentinels, if they have one; the URL has the master's"
    )
    for name, url in ((URL, broker), (STORE, store)):
        if url.startswith(SENTINEL) and not master:
            read.fault(
                f"{MASTER} is not set: {name} names Sentinels, and they must be asked for a master by name, such as mymaster."
            )
    if is_rabbitmq(broker) and not store:
        read.fault(
            f"{STORE} is not set: {URL} names a RabbitMQ, which cannot keep the channels' rates and the last claim. It must name a"
            " Valkey or Redis for all processes, such as redis://valkey.example:6379/0."
        )
    return broker, store


def _read(read: EnvironmentReader, name: str, schemes: tuple[str, ...], about: str) -> str:
    url = read.url_with_password(name, schemes, several=True, about=about)
    try:
        return common_spelling(url)
    except BadBrokerUrl as error:
        read.fault(f"{name} (not shown, it may hold a password): {error}.")
        return url

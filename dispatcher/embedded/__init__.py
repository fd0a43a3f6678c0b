"""PostgreSQL and Valkey from wheels, in one home folder, shared by all commands that use this folder.

    with engines(home) as running:
        running.database_url, running.broker_url

The first process starts them, later ones share them, and the last one stops them (`refcount_lock`). A process that is
killed with -9 cannot stop them: they keep running, without loss of data, until the next command on the same folder takes
them over and stops them at its end. No other local user has access: both listen only on sockets in folders of mode 0700.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from dispatcher.embedded import postgres, valkey
from dispatcher.embedded.account import make_home
from dispatcher.embedded.daemon import EngineError, is_alive
from dispatcher.embedded.refcount_lock import shared_resource

__all__ = ["EngineError", "Engines", "engines"]


@dataclass(frozen=True, slots=True)
class Engines:
    """Where the two engines listen. `restart_dead` restarts those of ours that died and returns their names. It is cheap where none
    died. Raises `EngineError`."""

    database_url: str = field(repr=False)  # a URL from the environment may hold a password
    broker_url: str = field(repr=False)
    restart_dead: Callable[[], list[str]] = field(repr=False)


FindServer = Callable[[Path], psutil.Process | None]


@dataclass(slots=True)
class _WatchedEngine:
    name: str
    restart: Callable[[], str]
    find_server: Callable[[], psutil.Process | None]
    process: psutil.Process | None = None

    def restart_if_dead(self) -> bool:
        """Restart it if it is dead; returns whether it was. Only then are all processes looked at."""
        if is_alive(self.process):
            return False
        self.process = self.find_server()
        if self.process is not None:
            return False
        self.restart()
        self.process = self.find_server()
        return True


@contextmanager
def engines(home: Path, database_url: str | None = None, broker_url: str | None = None) -> Iterator[Engines]:
    """Run the engines while the block runs. An engine whose URL is given is not started.

    Raises `EngineError`, with a message for the user, if one cannot be started.
    """
    home = home.expanduser().resolve()
    watched: list[_WatchedEngine] = []
    with ExitStack() as stack:

        def join(name: str, start: Callable[[Path], str], stop: Callable[[Path], None], server: FindServer) -> str:
            folder = make_home(home) / name
            url, restart = stack.enter_context(shared_resource(home / f"{name}.lock", lambda: start(folder), lambda: stop(folder)))
            watched.append(_WatchedEngine(name, restart, lambda: server(folder)))
            return url

        database_url = database_url or join("postgres", postgres.start, postgres.stop, postgres.server)
        broker_url = broker_url or join("valkey", valkey.start, valkey.stop, valkey.server)

        def restart_dead() -> list[str]:
            return [engine.name for engine in watched if engine.restart_if_dead()]

        yield Engines(database_url, broker_url, restart_dead)

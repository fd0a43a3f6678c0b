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

from dispatcher.embedded import postgres, valkey
from dispatcher.embedded.account import make_home
from dispatcher.embedded.daemon import EngineError
from dispatcher.embedded.refcount_lock import shared_resource

__all__ = ["EngineError", "Engines", "engines"]


@dataclass(frozen=True, slots=True)
class Engines:
    """Where the two engines listen. `restart_dead` restarts those of ours that died."""

    database_url: str = field(repr=False)  # a URL from the environment may hold a password
    broker_url: str = field(repr=False)
    restart_dead: Callable[[], None] = field(repr=False)


@contextmanager
def engines(home: Path, database_url: str | None = None, broker_url: str | None = None) -> Iterator[Engines]:
    """Run the engines while the block runs. An engine whose URL is given is not started.

    Raises `EngineError`, with a message for the user, if one cannot be started.
    """
    home = home.expanduser().resolve()
    restarts: list[Callable[[], object]] = []
    with ExitStack() as stack:

        def join(name: str, start: Callable[[Path], str], stop: Callable[[Path], None]) -> str:
            folder = make_home(home) / name
            url, restart = stack.enter_context(shared_resource(home / f"{name}.lock", lambda: start(folder), lambda: stop(folder)))
            restarts.append(restart)
            return url

        database_url = database_url or join("postgres", postgres.start, postgres.stop)
        broker_url = broker_url or join("valkey", valkey.start, valkey.stop)

        def restart_dead() -> None:
            for restart in restarts:
                restart()

        yield Engines(database_url, broker_url, restart_dead)

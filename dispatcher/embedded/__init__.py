"""A real PostgreSQL and a real Valkey from wheels, under one folder, shared by every command that names that folder.

    with engines(home) as found:
        found.database_url, found.broker_url

Whoever comes first starts them, whoever comes later joins, and the last to leave stops them (`sharing`). A user that is
killed with -9 can't stop anything: its engines go on, hold all data, and belong to the next command on the same folder,
which adopts them and stops them when it is done. No other local user gets in: both listen only on sockets in folders of
mode 0700.
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
    """Where the two engines listen. `mend` starts again whichever of ours has died, and otherwise does nothing."""

    database_url: str = field(repr=False)  # a URL from the environment may hold a password
    broker_url: str = field(repr=False)
    mend: Callable[[], None] = field(repr=False)


@contextmanager
def engines(home: Path, database_url: str | None = None, broker_url: str | None = None) -> Iterator[Engines]:
    """Engines for as long as the block runs; a URL given here takes the place of an engine, which then isn't started.

    Raises `EngineError` with a sentence for the person at the keyboard when one can't be started.
    """
    home = home.expanduser().resolve()
    mends: list[Callable[[], object]] = []
    with ExitStack() as stack:

        def join(name: str, start: Callable[[Path], str], stop: Callable[[Path], None]) -> str:
            folder = make_home(home) / name
            url, mend = stack.enter_context(shared_resource(home / f"{name}.lock", lambda: start(folder), lambda: stop(folder)))
            mends.append(mend)
            return url

        database_url = database_url or join("postgres", postgres.start, postgres.stop)
        broker_url = broker_url or join("valkey", valkey.start, valkey.stop)

        def mend_all() -> None:
            for mend in mends:
                mend()

        yield Engines(database_url, broker_url, mend_all)

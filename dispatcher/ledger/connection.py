"""Connections to the ledger. Every function of this room takes one; whoever writes opens its own transaction."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import psycopg
from psycopg.types.json import set_json_loads
from psycopg_pool import ConnectionPool, PoolTimeout
from pydantic_core import from_json

from dispatcher.domain.errors import LedgerUnavailable

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]
Pool: TypeAlias = ConnectionPool[Connection]

set_json_loads(from_json)  # a recipient's row holds half a dozen documents, and this reads them twice as fast
TRUSTED_SECONDS = 1.0  # a connection that worked this long ago is not asked again whether it works
ROLE = "dispatcher_worker"  # what a connection may do: everything that work needs, and not one change to what customers said


def open_pool(database_url: str, size_max: int = 4, wait_seconds_max: float = 10.0) -> Pool:
    """A pool of autocommit connections in the role of workers, opened on first use, checked before they are lent.

    The database must have been migrated: that makes the role.
    """
    return ConnectionPool(
        database_url,
        min_size=0,
        max_size=size_max,
        timeout=wait_seconds_max,
        kwargs={"autocommit": True, "options": f"-c timezone=UTC -c role={ROLE}"},
        check=_check,
        open=False,
    )


_last_used: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()


def _check(connection: Connection) -> None:
    """Ask a connection whether it still works, unless it worked a moment ago: a worker lends it some times per batch."""
    if time.monotonic() - _last_used.get(connection, 0.0) > TRUSTED_SECONDS:
        ConnectionPool.check_connection(connection)


@contextmanager
def lend(pool: Pool, wait_seconds_max: float | None = None) -> Iterator[Connection]:
    """A connection for one piece of work, waited for as long as the pool says or as is given here.

    Raises `LedgerUnavailable` when the database is, or goes, away.
    """
    if pool.closed:
        pool.open()
    try:
        with pool.connection(wait_seconds_max) as connection:
            yield connection
            _last_used[connection] = time.monotonic()
    except (PoolTimeout, psycopg.OperationalError) as error:
        raise LedgerUnavailable("the database can't be reached; work resumes when it is back") from error

"""Connections to the ledger, and how rows are read. Every function of this package takes a connection; a function that writes opens
its own transaction.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary, WeakSet

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads
from psycopg_pool import ConnectionPool, PoolTimeout
from pydantic_core import from_json

from dispatcher.domain.errors import LedgerUnavailable
from dispatcher.ledger.roles import FULL, TASKS

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]
Pool: TypeAlias = ConnectionPool[Connection]
DatabaseError: TypeAlias = psycopg.Error  # what a statement raises

set_json_loads(from_json)  # a recipient's row has six JSON documents, and this parser takes half the time
AWAY = "the database can't be reached; work resumes when it is back"
TRUSTED_SECONDS = 1.0  # a connection that worked less than this ago is not checked again

# An opt-out needs the row of its person. A worker that is frozen, or cut off, in the middle of a transaction must not hold it for
# long: the server ends the worker's session. What waits for a lock gives up before whoever called gives up.
SESSION = {
    "timezone": "UTC",
    "idle_in_transaction_session_timeout": "5s",
    "lock_timeout": "15s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
# Behind PgBouncer in transaction mode, each transaction may get another session of the server. So no session is set up by us
# (PgBouncer refuses `options`), none keeps a prepared statement, and the pooler's own `connect_query` sets these.
POOLER = "pooler"  # in place of a role
POOLED = ("timezone", "idle_in_transaction_session_timeout", "lock_timeout")
_POOLED = f"SELECT current_user::text, {', '.join(f'current_setting({name!r})' for name in POOLED)}"
# The same from our side, for a server that vanishes: seconds, and milliseconds for unanswered data.
KEEPALIVE = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    "connect_timeout": 10,
}


ANSWER_SECONDS = 2.0  # a statement that takes longer: is the server frozen?


class FrozenServer(psycopg.OperationalError):
    """The server takes no new connections and answers nothing: it is frozen, or cut off without a word."""


class ProbingConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that does not wait for a frozen server: while a statement takes long, it looks whether the server still takes
    connections. A slow statement goes on.

    Workers wait instead: what they have handed off must still be recorded. `database_url` is set by the pool.
    """

    database_url = ""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """As psycopg's own; raises `FrozenServer`."""
        if timeout is not None or not self.database_url:
            return super().wait(gen, interval, timeout)
        while True:
            try:
                return super().wait(gen, interval, ANSWER_SECONDS)
            except psycopg.errors._WaitTimeout:  # named in psycopg's documentation of `wait`; the generator can be waited for again
                if not _takes_connections(self.database_url):
                    self.pgconn.finish()
                    raise FrozenServer(AWAY) from None


def _takes_connections(database_url: str) -> bool:
    """Whether the server answers a new connection, be it with a refusal."""
    try:
        psycopg.connect(database_url, connect_timeout=2).close()
    except psycopg.errors.ConnectionTimeout:
        return False
    except psycopg.OperationalError:
        return True
    return True


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """`name` is what the server shows for each connection. A pool that is not `patient` has `ProbingConnection`s."""

    size_max: int = 4
    wait_seconds_max: float = 10.0
    name: str = "ledger"
    role: str = FULL
    patient: bool = True


DEFAULT_OPTIONS = PoolOptions()


def open_pool(
    database_url: str,
    options: PoolOptions = DEFAULT_OPTIONS,
    check_new: Callable[[Connection], None] | None = None,
) -> Pool:
    """A pool of autocommit connections. It opens on first use, and checks a connection before lending it.

    `check_new` may refuse a new one with `LedgerUnavailable`: the pool keeps trying,
    and who waits for a connection gets that error. The database must have been migrated: a migration creates the role.
    """

    def configure(connection: Connection) -> None:
        if isinstance(connection, ProbingConnection):
            connection.database_url = database_url
        if check_new is None:
            return
        try:
            check_new(connection)
        except LedgerUnavailable as error:
            _refusals[pool] = error
            raise
        _refusals.pop(pool, None)

    kind: type[Connection] = psycopg.Connection if options.patient else ProbingConnection
    pool: Pool = ConnectionPool(
        database_url,
        connection_class=kind,
        min_size=0,
        max_size=options.size_max,
        timeout=options.wait_seconds_max,
        kwargs={**_options(options.role), "application_name": options.name},
        configure=configure,
        check=_check,
        open=False,
    )
    _pools.add(pool)
    return pool


# When Python 3.13 ends, a pool that is still open waits five seconds for each of its threads, which no longer run.
_pools: WeakSet[Pool] = WeakSet()


@atexit.register
def _close_pools() -> None:
    for pool in list(_pools):
        pool.close()


def _options(role: str) -> dict[str, Any]:
    if role == POOLER:
        return {"autocommit": True, "prepare_threshold": None, **KEEPALIVE}
    session = {**SESSION, "role": role}
    return {"autocommit": True, "options": " ".join(f"-c {name}={value}" for name, value in session.items()), **KEEPALIVE}


def check_pooled(connection: Connection) -> None:
    """Check that the pooler sets what each session needs. Raises `LedgerUnavailable`, which shows the setting."""
    role, *values = connection.execute(_POOLED).fetchone() or ()
    if role not in (FULL, TASKS) or values != [SESSION[name] for name in POOLED]:
        statements = "; ".join((f"SET role = {FULL}", *(f"SET {name} = '{SESSION[name]}'" for name in POOLED)))
        raise LedgerUnavailable(
            "DISPATCHER_DATABASE_ROLE is pooler, and the pooler does not set role, time zone and time limits of its sessions. For"
            f' PgBouncer: connect_query="{statements}" in the entry of the database'
        )


@contextmanager
def connect_once(database_url: str, role: str = FULL) -> Iterator[Connection]:
    """A connection like those of a pool, for a check before there is one. Raises `LedgerUnavailable`."""
    try:
        with psycopg.connect(database_url, **_options(role)) as connection:
            yield connection
    except psycopg.OperationalError as error:
        raise LedgerUnavailable("the database can't be reached") from error


_refusals: WeakKeyDictionary[Pool, LedgerUnavailable] = WeakKeyDictionary()  # why a pool gets no connection
_last_used: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()


def _check(connection: Connection) -> None:
    """Check that a connection works, unless it worked a moment ago: a worker borrows one several times per batch."""
    if time.monotonic() - _last_used.get(connection, 0.0) > TRUSTED_SECONDS:
        ConnectionPool.check_connection(connection)


@contextmanager
def lend(pool: Pool, wait_seconds_max: float | None = None) -> Iterator[Connection]:
    """A connection for one piece of work. Waits for a free one as long as is given here, or else as the pool allows.

    Raises `LedgerUnavailable` when the database cannot be reached, or the connection is lost during the work.
    """
    if pool.closed:
        pool.open()
    try:
        with pool.connection(wait_seconds_max) as connection:
            yield connection
            _last_used[connection] = time.monotonic()
    except PoolTimeout as error:
        refusal = _refusals.get(pool)
        raise type(refusal)(str(refusal)) if refusal else LedgerUnavailable(AWAY) from error
    except (psycopg.OperationalError, psycopg.errors.IdleInTransactionSessionTimeout) as error:
        raise LedgerUnavailable(AWAY) from error


# -- rows by name ------------------------------------------------------------------------------------------------------
# For all queries but those of gather, claim and settle, which read thousands of rows by position.


def allow_idle_minute(connection: Connection) -> None:
    """Let this transaction wait up to a minute between two statements: its caller reads a file and holds no person's row."""
    connection.execute("SET LOCAL idle_in_transaction_session_timeout = '60s'")


def fetch_all(connection: Connection, statement: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All rows of a query, each by the names of its columns."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement, parameters).fetchall()


def fetch_one(connection: Connection, statement: str, parameters: Mapping[str, Any]) -> dict[str, Any] | None:
    """The first row of a query by the names of its columns; None where there is none."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement, parameters).fetchone()

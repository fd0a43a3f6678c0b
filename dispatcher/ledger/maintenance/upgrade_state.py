"""What a migration meets in the database: who is connected, what is open, how much there is. Reads only what every schema has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from dispatcher.ledger.connection import Connection
from dispatcher.ledger.secret_keys import PROCESS

VERSION_MARK = "v"  # of the word in a connection's name that holds version and schema
LONG_SECONDS = 3.0  # as long as a migration waits for a table


@dataclass(frozen=True, slots=True)
class LongTransaction:
    """A transaction of another session that has been open for long."""

    pid: int
    open_for: timedelta


@dataclass(frozen=True, slots=True)
class UpgradeState:
    """`programs`: connections by version and schema, such as "1.2.0/0039"; "" for programs that do not name them."""

    programs: Mapping[str, int]
    long_transactions: tuple[LongTransaction, ...]
    campaigns: Mapping[str, int]  # those that have not ended, by state
    claimed: int
    database_bytes: int


def program_mark(version: str, schema: str) -> str:
    """The word of a connection's name that says which program it is."""
    return f"{VERSION_MARK}{version}/{schema}"


def read_upgrade_state(connection: Connection) -> UpgradeState:
    """The state of this connection's database. Sessions of other logins are seen only with the rights of `pg_read_all_stats`."""
    long = connection.execute(
        "SELECT pid, clock_timestamp() - xact_start FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        " AND xact_start < clock_timestamp() - make_interval(secs => %s) ORDER BY 1",
        (LONG_SECONDS,),
    ).fetchall()
    campaigns = connection.execute(
        "SELECT state, count(*) FROM campaigns WHERE state NOT IN ('finished', 'cancelled') GROUP BY 1 ORDER BY 1"
    ).fetchall()
    row = connection.execute(
        "SELECT (SELECT count(*) FROM messages WHERE state = 'claimed'), pg_database_size(current_database())"
    ).fetchone()
    assert row is not None  # noqa: S101  a query without FROM has one row
    return UpgradeState(
        programs=connected_programs(connection),
        long_transactions=tuple(LongTransaction(*each) for each in long),
        campaigns=dict(campaigns),
        claimed=row[0],
        database_bytes=row[1],
    )


def connected_programs(connection: Connection) -> Mapping[str, int]:
    """Connections of the program to this database, by version and schema; "" for programs that do not name them."""
    names = connection.execute(
        "SELECT application_name FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND split_part(application_name, ' ', 1) = %s",
        (PROCESS,),
    ).fetchall()
    return Counter(_program(name) for (name,) in names)


def _program(connection_name: str) -> str:
    return next((word[1:] for word in connection_name.split(" ") if word.startswith(VERSION_MARK) and "/" in word), "")

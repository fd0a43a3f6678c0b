"""The migrations of the ledger's schema, applied by Alembic."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.errors import DeadlockDetected, LockNotAvailable

from dispatcher.domain.errors import LedgerUnavailable
from dispatcher.ledger.connection import POOLER, check_pooled, connect_once
from dispatcher.ledger.maintenance.upgrade_state import connected_programs
from dispatcher.ledger.roles import FULL

HERE = Path(__file__).parent
VERSIONS = HERE / "versions"
HEAD = max(step.name[:4] for step in VERSIONS.glob("[0-9]*.py"))
ROLE_MISSING = (
    "an administrator has to run: CREATE ROLE dispatcher_worker; GRANT dispatcher_worker TO {login};"
    " (only the second where the role exists)"
)
TRIES_MAX = 10  # with a pause and 3 s of waiting for a lock each: for half a minute
PAUSE_SECONDS = 1.0
DIRECTLY = "run `dispatcher check` with the server's own URL and DISPATCHER_DATABASE_ROLE=dispatcher_worker"
_LOCKED = (LockNotAvailable, DeadlockDetected)
LOCKED = "a table stays in use: look for long transactions in pg_stat_activity, end them, and try again"

log = logging.getLogger("dispatcher.ledger")


def migrate(database_url: str, revision: str = HEAD, role: str = FULL) -> None:
    """Bring a database to the newest schema, or to an older revision than that; fast where it has it already.

    A schema that a newer program has made stays as it is: until all processes are upgraded, older ones go on with it.

    Raises `LedgerUnavailable`, also where the login may not migrate, may not work in the role of this process, or the schema is too
    new for this program.
    """
    schema, login = read_schema(database_url)
    if schema.is_newer:
        if schema.oldest_program > HEAD:
            raise LedgerUnavailable(
                f"the database has the schema {schema.revision} of a newer version of this program; it can be used by programs from"
                f" schema {schema.oldest_program} on, and this one knows {HEAD}: install the newer version"
            )
    elif schema.revision != revision:
        if role == POOLER:
            raise LedgerUnavailable(f"the database has to be migrated to {revision} first, over a direct connection: {DIRECTLY}")
        _upgrade(database_url, revision, login)
    if role == POOLER:
        with connect_once(database_url, role) as connection:
            check_pooled(connection)
    elif revision == HEAD:
        _try_role(database_url, login, role)


def refuse_older_programs(database_url: str) -> None:
    """Let only programs of this version and newer ones use the ledger. What older ones could not read is written from then on.

    Raises `LedgerUnavailable`, also where an older program is connected, or the login does not own the tables.
    """
    try:
        with psycopg.connect(database_url) as connection:
            older = sorted(mark for mark in connected_programs(connection) if mark.partition("/")[2] < HEAD)
            if older:
                raise LedgerUnavailable(f"older versions are still connected: {', '.join(mark or 'unnamed' for mark in older)}")
            connection.execute("UPDATE schema_compatibility SET oldest_program = %s WHERE oldest_program < %s", (HEAD, HEAD))
    except psycopg.Error as error:
        raise LedgerUnavailable(f"the database can't be changed: {_first_line(error)}") from None


@dataclass(frozen=True, slots=True)
class Schema:
    """The schema of a database. `oldest_program`: the newest revision that the oldest usable program knows."""

    revision: str | None  # None: the database is empty
    oldest_program: str

    @property
    def is_newer(self) -> bool:
        """Whether a newer program has migrated the database."""
        return self.revision is not None and self.revision > HEAD


def read_schema(database_url: str) -> tuple[Schema, str]:
    """The schema of a database, and the login. Raises `LedgerUnavailable`."""
    try:
        with psycopg.connect(database_url, autocommit=True) as connection:
            encoding = connection.info.parameter_status("server_encoding")
            if encoding not in (None, "UTF8"):  # a server that was set up without a language has SQL_ASCII
                raise LedgerUnavailable(
                    f"the database has the encoding {encoding}: create it with ENCODING 'UTF8' TEMPLATE template0"
                )
            return _schema(connection), connection.info.user
    except psycopg.Error as error:
        raise LedgerUnavailable(f"the database can't be reached: {_first_line(error)}") from None


def pending_files(revision: str | None) -> list[Path]:
    """The migrations that come after a revision, in their order."""
    return sorted(file for file in VERSIONS.glob("[0-9]*.py") if file.name[:4] > (revision or ""))


def _upgrade(database_url: str, revision: str, login: str) -> None:
    from alembic.config import Config
    from alembic.util import CommandError
    from sqlalchemy.exc import DBAPIError

    config = Config()
    config.set_main_option("script_location", str(HERE))
    config.attributes |= {"database_url": database_url, "is_newest": revision == HEAD}
    try:
        _upgrade_patiently(config, revision)
    except CommandError as error:
        raise LedgerUnavailable(f"the database can't be migrated: {error}; is it of a newer version of this program?") from None
    except DBAPIError as error:
        reason = LOCKED if isinstance(error.orig, _LOCKED) else _reason(error.orig, login)
        raise LedgerUnavailable(f"the database can't be migrated by {login}: {reason}") from None


def _upgrade_patiently(config: Any, revision: str) -> None:
    """Try again where a table is in use for longer than the migration may wait for it. A migration is one transaction."""
    from alembic import command
    from sqlalchemy.exc import DBAPIError

    for attempt in range(1, TRIES_MAX + 1):
        try:
            command.upgrade(config, revision)
        except DBAPIError as error:
            if attempt == TRIES_MAX or not isinstance(error.orig, _LOCKED):
                raise
        else:
            return
        log.warning("a table is in use for long; the migration tries again (%d of %d)", attempt, TRIES_MAX - 1)
        time.sleep(PAUSE_SECONDS)


def _try_role(database_url: str, login: str, role: str) -> None:
    """Every connection of workers takes this role at its start."""
    try:
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(f"SET ROLE {role}".encode())
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidParameterValue) as error:
        if role == FULL:
            raise LedgerUnavailable(f"the database can't be used by {login}: {_reason(error, login)}") from None
        raise LedgerUnavailable(
            f"the database can't be used by {login} in the role {role}: {_first_line(error)}; the owner has to run"
            f" `dispatcher ledger roles`, and an administrator: GRANT {role} TO {login}"
        ) from None
    except psycopg.Error as error:
        raise LedgerUnavailable(f"the database can't be reached: {_first_line(error)}") from None


def _reason(error: BaseException | None, login: str) -> str:
    """The server's message and, about the role of workers, what helps."""
    text = _first_line(error)
    return f"{text}; {ROLE_MISSING.format(login=login)}" if "role" in text else text


def _first_line(error: BaseException | None) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _schema(connection: psycopg.Connection) -> Schema:
    tables = connection.execute("SELECT to_regclass('alembic_version'), to_regclass('schema_compatibility')").fetchone()
    if tables is None or tables[0] is None:
        return Schema(None, HEAD)
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    oldest = tables[1] and connection.execute("SELECT oldest_program FROM schema_compatibility").fetchone()
    revision = row[0] if row else None
    return Schema(revision, oldest[0] if oldest else revision or HEAD)

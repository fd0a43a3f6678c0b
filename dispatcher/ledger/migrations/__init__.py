"""The migrations of the ledger's schema, applied by Alembic."""

from pathlib import Path

import psycopg

from dispatcher.domain.errors import LedgerUnavailable
from dispatcher.ledger.roles import FULL, grant_present

HERE = Path(__file__).parent
VERSIONS = HERE / "versions"
HEAD = max(step.name[:4] for step in VERSIONS.glob("[0-9]*.py"))
ROLE_MISSING = (
    "an administrator has to run: CREATE ROLE dispatcher_worker; GRANT dispatcher_worker TO {login};"
    " (only the second where the role exists)"
)


def migrate(database_url: str, revision: str = HEAD, role: str = FULL) -> None:
    """Bring a database to the newest schema, or to an older revision than that; fast where it has it already.

    Raises `LedgerUnavailable`, also where the login may not migrate, or may not work in the role of this process.
    """
    try:
        with psycopg.connect(database_url, autocommit=True) as connection:
            done, login = _revision(connection) == revision, connection.info.user
    except psycopg.Error as error:
        raise LedgerUnavailable(f"the database can't be reached: {_first_line(error)}") from None
    if not done:
        _upgrade(database_url, revision, login)
    if revision == HEAD:
        _try_role(database_url, login, role)


def _upgrade(database_url: str, revision: str, login: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError
    from sqlalchemy.exc import DBAPIError

    config = Config()
    config.set_main_option("script_location", str(HERE))
    config.attributes["database_url"] = database_url
    try:
        command.upgrade(config, revision)
        if revision == HEAD:
            with psycopg.connect(database_url, autocommit=True) as connection:
                grant_present(connection)
    except CommandError as error:
        raise LedgerUnavailable(f"the database can't be migrated: {error}; is it of a newer version of this program?") from None
    except DBAPIError as error:
        raise LedgerUnavailable(f"the database can't be migrated by {login}: {_reason(error.orig, login)}") from None


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


def _revision(connection: psycopg.Connection) -> str | None:
    if connection.execute("SELECT to_regclass('alembic_version')").fetchone() == (None,):
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return row[0] if row else None

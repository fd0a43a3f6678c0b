"""The migrations of the ledger's schema, applied by Alembic."""

from pathlib import Path

import psycopg

from dispatcher.domain.errors import LedgerUnavailable

HERE = Path(__file__).parent
HEAD = max(step.name[:4] for step in (HERE / "versions").glob("[0-9]*.py"))


def migrate(database_url: str) -> None:
    """Bring a database to the newest schema; fast where it has it already. Raises `LedgerUnavailable`."""
    try:
        if _revision(database_url) == HEAD:
            return
    except psycopg.OperationalError as error:
        raise LedgerUnavailable(f"the database can't be reached: {str(error).splitlines()[0]}") from None
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(HERE))
    config.attributes["database_url"] = database_url
    command.upgrade(config, "head")


def _revision(database_url: str) -> str | None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        if connection.execute("SELECT to_regclass('alembic_version')").fetchone() == (None,):
            return None
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return row[0] if row else None

"""Alembic's entry point: one connection, one transaction, one migrating process at a time."""

from alembic import context
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

MIGRATION_LOCK = 0x_D15_9A7C  # an arbitrary number, the same in every process that migrates


def run() -> None:
    url = context.config.attributes["database_url"].replace("postgresql://", "postgresql+psycopg://", 1)
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
        context.configure(connection=connection, transactional_ddl=True)
        context.run_migrations()


run()

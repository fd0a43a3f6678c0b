"""Alembic's entry point: one connection, one transaction, one migrating process at a time."""

import logging
from functools import partial

import psycopg
from alembic import context
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from dispatcher.ledger.roles import grant_present

MIGRATION_LOCK = 0x_D15_9A7C  # an arbitrary number, the same in every process that migrates

# An ALTER TABLE that waits for a lock makes all later statements on the table wait, also an opt-out. So it gives up soon; `migrate`
# tries again.
LOCK_TIMEOUT = "SET LOCAL lock_timeout = '3s'"

log = logging.getLogger("dispatcher.ledger")


def run() -> None:
    attributes = context.config.attributes
    connect = partial(psycopg.connect, attributes["database_url"])  # SQLAlchemy itself reads no URL with several servers
    with create_engine("postgresql+psycopg://", creator=connect, poolclass=NullPool).begin() as connection:
        if not connection.scalar(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK}):
            log.warning("another process migrates the database; this one waits for it")
            connection.execute(text("SET LOCAL lock_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
        connection.execute(text(LOCK_TIMEOUT))
        context.configure(connection=connection, transactional_ddl=True)
        context.run_migrations()
        if attributes["is_newest"]:  # under the same lock: two GRANTs on one table at once are an error
            owner = connection.connection.driver_connection
            assert owner is not None  # noqa: S101  the connection is open
            grant_present(owner)


run()

"""Migrations beside a running program: two at once, beside long transactions, and with a schema of a newer program."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from dispatcher.domain.errors import LedgerUnavailable
from dispatcher.embedded import Engines
from dispatcher.ledger.migrations import HEAD, migrate
from tests.conftest import new_database

MIGRATION_LOCK = 0x_D15_9A7C
WAITING = """
SELECT FROM pg_locks JOIN pg_database ON oid = database
WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()
"""
MIGRATE = "import sys; from dispatcher.ledger.migrations import migrate; migrate(sys.argv[1])"


@pytest.fixture
def empty_database(running_engines: Engines, numbers: Iterator[int]) -> Iterator[str]:
    with new_database(running_engines, next(numbers)) as url:
        yield url


def wait_until(met: Callable[[], bool], seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_of_two_migrations_at_once_one_waits_and_none_fails(empty_database: str) -> None:
    with psycopg.connect(empty_database) as owner:
        owner.execute("SELECT pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
        processes = [
            subprocess.Popen((sys.executable, "-c", MIGRATE, empty_database), stderr=subprocess.PIPE, text=True) for _ in range(2)
        ]
        wait_until(lambda: owner.execute(WAITING).rowcount == 2)
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert all("another process migrates the database; this one waits for it" in text for text in errors)
    with psycopg.connect(empty_database) as owner:
        assert owner.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEAD,)]


def test_a_migration_gives_way_to_others_until_a_table_is_free(empty_database: str, caplog: pytest.LogCaptureFixture) -> None:
    migrate(empty_database, "0019")  # 0020 alters `campaigns`
    with ThreadPoolExecutor(1) as pool, psycopg.connect(empty_database) as reader:
        reader.execute("SELECT FROM campaigns")  # an open transaction: nobody may alter the table
        migration = pool.submit(migrate, empty_database)
        wait_until(lambda: "the migration tries again" in caplog.text)
        with psycopg.connect(empty_database) as other:
            other.execute("UPDATE campaigns SET state = state")  # waits no longer than one try
        assert not migration.done()
        reader.commit()
        migration.result(60)
    with psycopg.connect(empty_database) as owner:
        assert owner.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEAD,)]


def test_a_program_goes_on_with_the_schema_of_a_newer_one(database: str) -> None:
    with psycopg.connect(database) as owner:
        owner.execute("UPDATE alembic_version SET version_num = '9999'")
    migrate(database)
    with psycopg.connect(database) as owner:
        assert owner.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999",)]


def test_a_program_refuses_a_schema_that_it_cannot_use(database: str) -> None:
    with psycopg.connect(database) as owner:
        owner.execute("UPDATE alembic_version SET version_num = '9999'")
        owner.execute("UPDATE schema_compatibility SET oldest_program = '9998'")
    with pytest.raises(LedgerUnavailable, match=f"from schema 9998 on, and this one knows {HEAD}: install the newer version"):
        migrate(database)

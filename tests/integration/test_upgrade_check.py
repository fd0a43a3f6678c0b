"""`dispatcher check --before-upgrade`: it names what stands in the way of an upgrade, and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dispatcher.embedded import Engines
from dispatcher.ledger.migrations import HEAD
from tests.conftest import new_database
from tests.support.command import run_command
from tests.support.released_ledgers import fill_ledger

OLD = "0019"  # 0020 alters `campaigns`, 0029 drops a table that older programs use


@pytest.fixture
def old_ledger(running_engines: Engines, numbers: Iterator[int]) -> Iterator[str]:
    """A ledger with rows, as an older version of the program left it."""
    with new_database(running_engines, next(numbers)) as url:
        fill_ledger(url, OLD)
        yield url


def check(url: str, folder: Path, broker_url: str, code: int) -> dict[str, tuple[bool, str]]:
    """What the command says, by subject."""
    done = run_command(url, folder, "check", "--before-upgrade", "--json", DISPATCHER_BROKER_URL=broker_url)
    assert done.returncode == code, done.stdout + done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return {row["what"]: (row["ok"], row["says"]) for row in rows}


def revision(url: str) -> str:
    with psycopg.connect(url) as owner:
        row = owner.execute("SELECT version_num FROM alembic_version").fetchone()
    assert row is not None
    return str(row[0])


def test_it_lists_what_follows_and_migrates_nothing(old_ledger: str, broker_url: str, tmp_path: Path) -> None:
    said = check(old_ledger, tmp_path, broker_url, 1)
    assert [what for what, (ok, _) in said.items() if not ok] == ["migration 0038"]
    assert "writes of consent_events for long: it is large; pause the running campaigns first" in said["migration 0038"][1]
    assert f"the database has {OLD}" in said["schema"][1]
    assert "reads and writes of campaigns" in said["migration 0020"][1]
    assert said["running programs"] == (True, "none is connected")
    assert "running" in said["open campaigns"][1]
    assert said["broker"] == (True, "tasks that wait: none")
    assert revision(old_ledger) == OLD


def test_programs_that_a_migration_would_break_have_to_stop_first(old_ledger: str, broker_url: str, tmp_path: Path) -> None:
    with psycopg.connect(old_ledger, application_name="dispatcher 1a2b3c4d"):
        ok, says = check(old_ledger, tmp_path, broker_url, 1)["running programs"]
    assert not ok
    assert "connected: an older version (1 connections). Stop them first: migration 0029" in says


def test_programs_beside_a_schema_that_fits_may_go_on(database: str, broker_url: str, tmp_path: Path) -> None:
    with psycopg.connect(database, application_name=f"dispatcher 1a2b3c4d v0.0.9/{HEAD}"):
        said = check(database, tmp_path, broker_url, 0)
    assert said["running programs"] == (True, f"connected: 0.0.9/{HEAD} (1 connections)")
    assert said["schema"] == (True, f"the database has {HEAD}; no migration follows")


def test_a_long_transaction_and_a_missing_broker_are_named(database: str, tmp_path: Path) -> None:
    with psycopg.connect(database) as reader:
        reader.execute("SELECT pg_sleep(3.1)")
        said = check(database, tmp_path, "redis://127.0.0.1:1/0", 1)
        assert f"process {reader.info.backend_pid} of PostgreSQL has had a transaction open" in said["long transaction"][1]
    assert said["broker"] == (False, "cannot be reached (ConnectionError)")


def test_a_newer_schema_is_named(database: str, broker_url: str, tmp_path: Path) -> None:
    with psycopg.connect(database) as owner:
        owner.execute("UPDATE alembic_version SET version_num = '9999'")
        owner.execute("UPDATE schema_compatibility SET oldest_program = '9999'")
    ok, says = check(database, tmp_path, broker_url, 1)["schema"]
    assert not ok
    assert "9999, which a newer version made" in says

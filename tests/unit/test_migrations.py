"""Migrations expand the schema first and contract it later, so that two versions of the program can run side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

from dispatcher.ledger.migrations import HEAD, VERSIONS
from dispatcher.ledger.migrations.effects import Lock, SchemaEffect, read_migration

FIRST = "0039"  # the first revision that the rule holds for
CHECKED = sorted(file for file in VERSIONS.glob("[0-9]*.py") if file.name[:4] >= FIRST)


@pytest.mark.parametrize("file", CHECKED, ids=lambda file: file.name[:4])
def test_a_migration_lets_the_previous_version_go_on(file: Path) -> None:
    migration = read_migration(file)
    oldest_program = migration.oldest_program
    assert not migration.breaks or oldest_program, (
        f"{file.name}: {migration.effects}. Stop using it in one release, and remove it in a later one: oldest_program is the"
        " newest revision that the first program without it knows. Where nothing is broken, say why in compatible"
    )
    if oldest_program:
        assert oldest_program < file.name[:4], "no program that knows the schema has stopped using it before"
        assert f"oldest_program = '{oldest_program}'" in file.read_text(encoding="utf-8"), "write it to schema_compatibility"


@pytest.mark.parametrize("file", CHECKED, ids=lambda file: file.name[:4])
def test_a_migration_holds_no_long_lock(file: Path) -> None:
    long = [effect for effect in read_migration(file).effects if effect.is_long and effect.lock is not Lock.ROWS]
    assert not long, f"{file.name}: {long}. Create the index with the next month's partitions, or add a constraint as NOT VALID"


# The lock that each statement takes, whether the previous version could fail, and whether it takes long.
STATEMENTS = {
    "ALTER TABLE chunks ADD COLUMN note text": (Lock.ALL, False, False),
    "ALTER TABLE chunks ADD COLUMN note text NOT NULL DEFAULT ''": (Lock.ALL, False, False),
    "ALTER TABLE chunks ADD COLUMN a text NOT NULL DEFAULT '', ADD COLUMN b text NOT NULL": (Lock.ALL, True, False),
    "ALTER TABLE chunks ADD note text NOT NULL": (Lock.ALL, True, False),
    "ALTER TABLE chunks DROP COLUMN note": (Lock.ALL, True, False),
    "ALTER TABLE chunks ALTER COLUMN note DROP NOT NULL": (Lock.ALL, False, False),
    "ALTER TABLE chunks ALTER COLUMN note SET NOT NULL": (Lock.ALL, True, True),
    "ALTER TABLE chunks ALTER note TYPE bigint": (Lock.ALL, True, True),
    "ALTER TABLE chunks RENAME COLUMN note TO remark": (Lock.ALL, True, False),
    "ALTER TABLE alerts ADD CONSTRAINT one CHECK (no > 0)": (Lock.ALL, True, False),
    "DROP TABLE alerts": (Lock.ALL, True, False),
    "CREATE INDEX by_note ON messages (note)": (Lock.WRITES, False, True),
    "CREATE INDEX by_note ON alerts (note)": (Lock.WRITES, False, False),
    "CREATE UNIQUE INDEX by_note ON alerts (note)": (Lock.WRITES, True, False),
    "REVOKE UPDATE ON alerts FROM dispatcher_worker": (Lock.ROWS, True, False),
    "UPDATE messages SET note = ''": (Lock.ROWS, False, True),
}


@pytest.mark.parametrize("statement", STATEMENTS)
def test_the_effect_of_a_statement_is_recognised(statement: str, tmp_path: Path) -> None:
    file = tmp_path / "9999_step.py"
    file.write_text(f'SCHEMA = """\n{statement};\nCREATE TABLE fresh (no bigint);\nCREATE INDEX ON fresh (no);\n"""\n')
    (effect,) = read_migration(file).effects
    assert (effect.lock, bool(effect.breaks), effect.is_long) == STATEMENTS[statement]


def test_the_table_that_a_migration_creates_is_no_effect() -> None:
    (file,) = VERSIONS.glob("0039*.py")
    assert read_migration(file).effects == ()
    assert (
        SchemaEffect("console_sessions", Lock.ALL, "removes what it uses")
        in read_migration(next(VERSIONS.glob("0029*.py"))).effects
    )
    assert HEAD >= FIRST

"""Major upgrade of the embedded PostgreSQL: a data folder of Debian's PostgreSQL 15 becomes one of the embedded version."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import psycopg
import pytest

from dispatcher.embedded import EngineError, account, engines, postgres
from dispatcher.ledger.migrations import HEAD
from tests.support import debian_postgres
from tests.support.command import run_command
from tests.support.released_ledgers import fill_ledger

pytestmark = pytest.mark.skipif(
    debian_postgres.IS_MISSING and not debian_postgres.IS_REQUIRED, reason="no PostgreSQL 15 on this machine"
)


@pytest.fixture(scope="module")
def old_data() -> Iterator[Path]:
    """A data folder of PostgreSQL 15 with a full ledger, at rest."""
    with debian_postgres.debian_postgres() as url:
        fill_ledger(url, HEAD)
        data = Path(url.partition("?host=")[2])
        with psycopg.connect(url, autocommit=True) as owner:
            owner.execute("CHECKPOINT")
        owner_account = account.owner(data)
        account.run([debian_postgres.BIN / "pg_ctl", "-D", data, "-w", "-s", "-m", "fast", "stop"], owner_account, data)
        yield data
        options = f"-k {data} -c listen_addresses='' -c fsync=off"
        start: list[str | Path | float] = [
            debian_postgres.BIN / "pg_ctl",
            "-D",
            data,
            "-w",
            "-s",
            "-l",
            data / "log",
            "-o",
            options,
            "start",
        ]
        account.run(start, owner_account, data)  # the helper stops it


@pytest.fixture
def home(old_data: Path) -> Iterator[Path]:
    """A home folder whose embedded data is of PostgreSQL 15."""
    folder = Path(tempfile.mkdtemp(prefix="upgrade-"))
    account.allow_traversal(folder)
    shutil.copytree(old_data, folder / "postgres")
    owner = account.owner(old_data)
    for path in (folder / "postgres", *(folder / "postgres").rglob("*")):
        account.change_owner(path, owner)
    (folder / "postgres").chmod(0o700)
    yield folder
    shutil.rmtree(folder)


def command(home: Path, *arguments: str) -> CompletedProcess[str]:
    return run_command("", home, *arguments, DISPATCHER_HOME=str(home))


def counts(home: Path) -> tuple[int, ...]:
    with engines(home, broker_url="redis://nobody") as running, psycopg.connect(running.database_url) as owner:
        tables = ("recipients", "consent_events", "messages", "suppressions")
        return tuple(owner.execute(f"SELECT FROM {table}").rowcount for table in tables)


def test_the_data_of_an_older_major_is_converted_and_kept(home: Path) -> None:
    with pytest.raises(EngineError, match="is of PostgreSQL 15, and this version of the program brings 18: `dispatcher engines"):
        counts(home)
    done = command(home, "engines", "upgrade", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)["upgraded"]
    assert (result["old_major"], result["new_major"], result["old_folder"]) == (15, 18, str(home / "postgres.old-15"))
    assert result["rows"] > 100
    assert all(counts(home))
    with engines(home, broker_url="redis://nobody") as running, psycopg.connect(running.database_url) as owner:
        assert owner.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEAD,)]
        owner.execute("SET ROLE dispatcher_worker")
        assert owner.execute("SELECT count(*) > 0 FROM recipients").fetchall() == [(True,)]
    assert json.loads(command(home, "engines", "upgrade", "--json").stdout) == {"upgraded": None}

    assert (home / "postgres.old-15" / "PG_VERSION").read_text() == "15\n"
    assert json.loads(command(home, "engines", "delete-old", "--json").stdout) == {"deleted": [str(home / "postgres.old-15")]}
    assert sorted(path.name for path in home.glob("postgres*") if path.is_dir()) == ["postgres"]


def test_without_the_old_programs_it_names_the_way_out(home: Path, tmp_path: Path) -> None:
    done = command(home, "engines", "upgrade", "--programs", str(tmp_path))
    assert done.returncode == 1
    assert f"its programs are not in {tmp_path}. Install PostgreSQL 15 (Debian: apt-get install postgresql-15)" in done.stderr
    assert (home / "postgres" / "PG_VERSION").read_text() == "15\n"


def test_an_upgrade_that_was_interrupted_in_the_swap_is_finished(home: Path) -> None:
    assert command(home, "engines", "upgrade").returncode == 0
    (home / "postgres").rename(home / postgres.UPGRADED)  # as between the two renames
    with pytest.raises(EngineError, match="was interrupted: `dispatcher engines upgrade` finishes it"):
        counts(home)
    done = command(home, "engines", "upgrade", "--json")
    assert json.loads(done.stdout)["upgraded"]["old_major"] == 15
    assert all(counts(home))
    shutil.rmtree(home / "postgres.old-15")


def test_data_that_is_in_use_is_left_alone(home: Path) -> None:
    shutil.rmtree(home / "postgres")
    with engines(home, broker_url="redis://nobody"):
        done = command(home, "engines", "upgrade")
    assert done.returncode == 1
    assert "is in use: stop `dispatcher up` and all other commands" in done.stderr

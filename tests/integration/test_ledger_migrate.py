"""`dispatcher ledger migrate`: what a job runs before the processes of a new version start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg

from dispatcher.embedded import Engines
from tests.conftest import new_database
from tests.support.command import run_command


def test_it_migrates_and_checks_the_key_without_the_broker(
    running_engines: Engines, numbers: Iterator[int], tmp_path: Path
) -> None:
    with new_database(running_engines, next(numbers)) as url:
        secrets = tmp_path / "secrets"
        secrets.mkdir()
        (secrets / "DISPATCHER_DATABASE_URL").write_text(f"{url}\n")
        more = {"DISPATCHER_DATABASE_URL": "", "DISPATCHER_SECRETS": str(secrets)}
        for _ in range(2):
            done = run_command(url, tmp_path, "ledger", "migrate", "--json", **more)
            assert (done.returncode, done.stdout) == (0, '{\n  "migrated": true\n}\n'), done.stderr
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT to_regclass('campaigns') IS NOT NULL").fetchone() == (True,)
        assert run_command(url, tmp_path, "ledger", "migrate", **more, DISPATCHER_SECRET_KEY="another" * 8).returncode != 0


def test_a_database_without_an_encoding_is_refused_in_a_sentence(
    running_engines: Engines, numbers: Iterator[int], tmp_path: Path
) -> None:
    """PostgreSQL makes such databases where the system has no language, as in small images."""
    with new_database(running_engines, next(numbers), "ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0") as url:
        done = run_command(url, tmp_path, "ledger", "migrate")
        wrong = "the database has the encoding SQL_ASCII: create it with ENCODING 'UTF8' TEMPLATE template0\n"
        assert (done.returncode, done.stderr) == (1, wrong)

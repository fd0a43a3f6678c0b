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

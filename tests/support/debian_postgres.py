"""Debian's PostgreSQL 15: the oldest server that the program supports, beside the embedded one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dispatcher.embedded import account

BIN = Path("/usr/lib/postgresql/15/bin")
IS_MISSING = not (BIN / "postgres").exists()
IS_REQUIRED = bool(os.environ.get("CI"))


@contextmanager
def debian_postgres() -> Iterator[str]:
    """A server with a superuser `dispatcher` and a database `dispatcher`, as the embedded one has; its URL."""
    assert not IS_MISSING, "CI must have PostgreSQL 15: apt-get install postgresql-15"
    home = Path(tempfile.mkdtemp(prefix="postgres-15-"))
    owner = account.owner(home / "data")
    account.make_folder(home / "data", owner)
    options = f"-k {home / 'data'} -c listen_addresses='' -c fsync=off"
    initdb: list[str | Path] = [
        BIN / "initdb",
        "-D",
        home / "data",
        "-U",
        "dispatcher",
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C",
    ]
    account.run(initdb, owner, home / "data")
    server: list[str | Path] = [BIN / "pg_ctl", "-D", home / "data", "-w", "-s"]
    account.run([*server, "-l", home / "data" / "log", "-o", options, "start"], owner, home / "data")
    try:
        account.run([BIN / "createdb", "-h", home / "data", "-U", "dispatcher", "dispatcher"], owner, home / "data")
        yield f"postgresql://dispatcher@/dispatcher?host={home / 'data'}"
    finally:
        account.run([*server, "-m", "immediate", "stop"], owner, home / "data")
        shutil.rmtree(home)

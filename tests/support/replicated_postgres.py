"""Two servers of the embedded PostgreSQL: a primary and a standby that follows it by streaming replication."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from dispatcher.embedded import account
from dispatcher.embedded.postgres import BIN, INSTALLED
from dispatcher.ledger.migrations import migrate
from tests.conftest import memory_folder

NAMES = PRIMARY, STANDBY = ("primary", "standby")
ROLE = DATABASE = "dispatcher"


class Replication:
    """A migrated primary and its standby. They listen on 127.0.0.1 only."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.owner = account.owner(home / PRIMARY)
        self.ports = {name: _free_port() for name in NAMES}
        servers = ",".join(f"127.0.0.1:{port}" for port in self.ports.values())
        self.url = f"postgresql://{ROLE}@{servers}/{DATABASE}?target_session_attrs=read-write"

    def url_of(self, name: str) -> str:
        """The URL of one server."""
        return f"postgresql://{ROLE}@127.0.0.1:{self.ports[name]}/{DATABASE}"

    def sql(self, name: str, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement on one server."""
        with psycopg.connect(self.url_of(name), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def start(self, name: str) -> None:
        """Start a server."""
        port, data = self.ports[name], self.home / name
        options = f"-p {port} -c listen_addresses=127.0.0.1 -k '' -c fsync=off"
        if name == STANDBY:
            options += f" -c primary_conninfo='host=127.0.0.1 port={self.ports[PRIMARY]} user={ROLE} application_name={STANDBY}'"
        account.run([BIN / "pg_ctl", "start", "-D", data, "-l", data / "log", "-w", "-s", "-o", options], self.owner, data)

    def stop(self, name: str, mode: str = "immediate") -> None:
        """Stop a server, by default as a crash would: without a checkpoint, and with all connections cut."""
        data = self.home / name
        account.run([BIN / "pg_ctl", "stop", "-D", data, "-m", mode, "-w", "-s"], self.owner, data)

    def promote(self) -> None:
        """Make the standby the primary."""
        data = self.home / STANDBY
        account.run([BIN / "pg_ctl", "promote", "-D", data, "-w", "-s"], self.owner, data)

    def wait_for_each_commit(self) -> None:
        """Synchronous replication: a commit returns when the standby has it on disk."""
        self.sql(PRIMARY, f"ALTER SYSTEM SET synchronous_standby_names = '{STANDBY}'")
        self.sql(PRIMARY, "SELECT pg_reload_conf()")
        while self.sql(PRIMARY, "SELECT sync_state FROM pg_stat_replication") != [("sync",)]:
            time.sleep(0.05)

    def create(self) -> None:
        """Create both, and stop them."""
        account.allow_reading(*INSTALLED)
        primary, standby = (self.home / name for name in NAMES)
        for folder in (primary, standby):
            account.make_folder(folder, self.owner)
        settings: list[str | Path] = ["-U", ROLE, "--auth=trust", "--encoding=UTF8", "--locale=C"]
        account.run([BIN / "initdb", "-D", primary, *settings], self.owner, primary)
        self.start(PRIMARY)
        place = ["-h", "127.0.0.1", "-p", str(self.ports[PRIMARY]), "-U", ROLE]
        account.run([BIN / "createdb", *place, DATABASE], self.owner, primary)
        migrate(self.url)
        account.run([BIN / "pg_basebackup", *place, "-D", standby, "-R", "-X", "stream", "--checkpoint=fast"], self.owner, standby)
        self.stop(PRIMARY, "fast")


@contextmanager
def stopped_servers() -> Iterator[Path]:
    """A folder with a migrated primary and a standby of it, both stopped: `replication` runs copies of them."""
    with _home() as home:
        Replication(home).create()
        yield home


@contextmanager
def replication(stopped: Path) -> Iterator[Replication]:
    """A primary and a standby that follows it."""
    with _home() as home:
        subprocess.run(("/bin/cp", "-a", *(str(stopped / name) for name in NAMES), str(home)), check=True)
        servers = Replication(home)
        for name in NAMES:
            servers.start(name)
        yield servers


@contextmanager
def _home() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="replication-", dir=memory_folder()))
    account.allow_traversal(home)
    try:
        yield home
    finally:
        for name in NAMES:
            if (home / name / "postmaster.pid").exists():
                Replication(home).stop(name)
        shutil.rmtree(home)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])

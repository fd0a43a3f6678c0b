"""An owner of the ledger without superuser rights, as managed PostgreSQL services give one: on the newest server and the oldest."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from urllib.parse import urlsplit

import psycopg
import pytest

from dispatcher.domain.errors import LedgerUnavailable
from dispatcher.embedded import postgres
from dispatcher.inbound import provider_events
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import erasure
from dispatcher.ledger.maintenance import audit
from dispatcher.ledger.migrations import migrate
from dispatcher.maintenance import retention
from tests.support import debian_postgres
from tests.support.command import run_command
from tests.support.released_ledgers import fill_ledger
from tests.support.services import NOON, Clock, make_services, states, work

SERVERS = [
    "embedded",
    pytest.param(
        "debian",
        marks=pytest.mark.skipif(
            debian_postgres.IS_MISSING and not debian_postgres.IS_REQUIRED, reason="no PostgreSQL 15 on this machine"
        ),
    ),
]


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The superuser's URL of a server of its own: roles belong to the whole server, and here they are missing at first."""
    if request.param == "debian":
        with debian_postgres.debian_postgres() as url:
            yield url
        return
    home = Path(tempfile.mkdtemp(prefix="plain-owner-"))
    yield postgres.start(home / "postgres")
    postgres.stop(home / "postgres")
    rmtree(home)


@contextmanager
def owned_database(server: str, *before: str, attributes: str = "", owner_of_database: str = "plain") -> Iterator[str]:
    """The URL of a new database whose owner `plain` is no superuser. `before`: statements that an administrator ran."""
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE plain LOGIN NOSUPERUSER {attributes}".encode())
        for statement in before:
            admin.execute(statement.encode())
        admin.execute(f"CREATE DATABASE ledger OWNER {owner_of_database}".encode())
        try:
            yield urlsplit(server)._replace(path="/ledger").geturl().replace("dispatcher@", "plain@")
        finally:
            admin.execute("DROP DATABASE ledger WITH (FORCE)")
            for role in ("plain", "dispatcher_worker"):
                admin.execute(f"DROP ROLE IF EXISTS {role}".encode())


ADMINISTRATOR = ("CREATE ROLE dispatcher_worker", "GRANT dispatcher_worker TO plain")


@pytest.mark.parametrize(
    ("before", "attributes"), [((), "CREATEROLE"), (ADMINISTRATOR, "NOCREATEROLE")], ids=["creates the role", "was given the role"]
)
def test_a_plain_owner_can_do_everything(server: str, before: tuple[str, ...], attributes: str) -> None:
    with owned_database(server, *before, attributes=attributes) as url:
        fill_ledger(url, "0001")
        migrate(url)
        migrate(url)
        with make_services(url, Clock(NOON.replace(hour=22))) as services:
            work(services)
            while provider_events.apply_batch(services, lambda _: None):
                pass
            assert states(services, "bare") == {"accepted": 2}
            with lend(services.pool) as connection:
                erasure.erase(connection, services.secret, "anna", "desk", services.clock())
            cleared = {done.data.what for done in retention.clear(services) if done.cleared}
            assert cleared >= {"months of decisions", "consent events of erased people"}
            with lend(services.pool) as connection:
                assert audit.verify(connection, services.secret, services.clock(), 60) == []
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute("DELETE FROM consent_events")


FAILURES = {
    "no role, and may not create it": ((), "plain", "an administrator has to run: CREATE ROLE dispatcher_worker"),
    "role of another owner": (("CREATE ROLE dispatcher_worker",), "plain", "GRANT dispatcher_worker TO plain"),
    "database of another owner": (ADMINISTRATOR, "dispatcher", "permission denied for schema public"),
}


@pytest.mark.parametrize(("before", "owner", "said"), FAILURES.values(), ids=FAILURES.keys())
def test_what_is_missing_is_said_in_one_sentence(
    server: str, before: tuple[str, ...], owner: str, said: str, tmp_path: Path
) -> None:
    with owned_database(server, *before, owner_of_database=owner) as url:
        with pytest.raises(LedgerUnavailable, match=said):
            migrate(url)
        if owner == "dispatcher":  # a process takes long to start: one of these cases is enough
            done = run_command(url, tmp_path, "check")
            assert done.returncode == 1
            assert "Traceback" not in done.stderr + done.stdout
            assert said in " ".join((done.stderr + done.stdout).split())


def test_an_unreachable_database_is_said_in_one_sentence(tmp_path: Path) -> None:
    done = run_command("postgresql://nobody@127.0.0.1:1/ledger", tmp_path, "check")  # `up` reports the same and waits for it
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    assert "the database can't be reached" in " ".join((done.stderr + done.stdout).split())

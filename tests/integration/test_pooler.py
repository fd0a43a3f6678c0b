"""PgBouncer in transaction mode between the program and PostgreSQL: each transaction may get another session."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psutil
import pytest

from dispatcher.campaigns import submission
from dispatcher.consent import suppressions
from dispatcher.consent.suppressions import SuppressionRequest
from dispatcher.domain.errors import LedgerUnavailable
from dispatcher.embedded import Engines, account
from dispatcher.intake.campaign import parse_request
from dispatcher.ledger.connection import POOLER, connect_once, lend
from dispatcher.ledger.maintenance import audit
from dispatcher.ledger.migrations import HEAD, migrate
from dispatcher.runtime.services import Services
from tests.conftest import new_database
from tests.support.services import add_people, make_services, person, states, work

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = pytest.mark.skipif(PROGRAM is None and not os.environ.get("CI"), reason="no PgBouncer on this machine")

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
SESSIONS = 3  # fewer than connections: they are mixed
QUERY = (
    "SET role = dispatcher_worker; SET timezone = 'UTC'; SET idle_in_transaction_session_timeout = '5s'; SET lock_timeout = '15s'"
)


@contextmanager
def pooler(database_url: str, connect_query: str = QUERY) -> Iterator[str]:
    """The URL of a PgBouncer before a database."""
    assert PROGRAM is not None, "CI must have PgBouncer: apt-get install pgbouncer"
    parts = urlsplit(database_url)
    (sockets,) = parse_qs(parts.query)["host"]
    name, folder = parts.path[1:], Path(tempfile.mkdtemp(prefix="pooler-"))
    owner = account.owner(Path(sockets))
    account.change_owner(folder, owner)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    query = f" connect_query='{connect_query.replace(chr(39), chr(39) * 2)}'" if connect_query else ""
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n{name} = host={sockets} user=dispatcher{query}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
        f"auth_type = any\nunix_socket_dir =\npool_mode = transaction\ndefault_pool_size = {SESSIONS}\n"
        f"logfile = {folder}/log\npidfile = {folder}/pid\n"
    )
    account.change_owner(folder / "pgbouncer.ini", owner)
    account.run([PROGRAM, "-q", "-d", folder / "pgbouncer.ini"], owner, folder)
    wait_until((folder / "pid").exists)
    process = psutil.Process(int((folder / "pid").read_text()))
    try:
        yield f"postgresql://dispatcher@127.0.0.1:{port}/{name}"
    finally:
        process.kill()
        wait_until(lambda: not process.is_running())
        shutil.rmtree(folder)


def wait_until(met: Callable[[], bool], seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def services(database: str) -> Iterator[Services]:
    with pooler(database) as url:
        migrate(url, role=POOLER)
        with make_services(url, role=POOLER) as made:
            yield made


def import_list(services: Services, folder: Path, number: int, *, dry_run: bool) -> tuple[int, int]:
    file = folder / f"list-{number}-{dry_run}.csv"
    file.write_text("email\n" + "".join(f"gone-{number}-{each}@example.org\n" for each in range(2_500)))
    result = suppressions.import_list(
        services, SuppressionRequest(file, "bank", dry_run=dry_run, reason="hard_bounce", source="crm")
    )
    return result.taken, result.counts.new


def test_parallel_work_is_not_mixed_up_between_sessions(services: Services, tmp_path: Path) -> None:
    add_people(services, *(person(f"c-{number}", number % 100) for number in range(400)))

    def run_campaign(number: int) -> dict[str, int]:
        rows = [{"recipient": f"c-{100 * number + each}", "data": OFFER} for each in range(100)]
        form = {"id": f"spring-{number}", "template": "loan_offer", "channels": ["email"], "audience": rows}
        submission.accept(services, parse_request(form))
        work(services)
        return states(services, f"spring-{number}")

    with ThreadPoolExecutor(8) as threads:
        campaigns = [threads.submit(run_campaign, number) for number in range(4)]
        previews = [threads.submit(import_list, services, tmp_path, number, dry_run=True) for number in range(2)]
        imports = [threads.submit(import_list, services, tmp_path, number, dry_run=False) for number in range(2, 4)]
        assert [preview.result() for preview in previews] == [(2_500, 2_500)] * 2
        assert [each.result() for each in imports] == [(2_500, 2_500)] * 2
        for campaign in campaigns:
            campaign.result()
    work(services)
    assert [states(services, f"spring-{number}") for number in range(4)] == [{"accepted": 100}] * 4
    with lend(services.pool) as connection:
        assert audit.verify(connection, services.secret, services.clock(), 60) == []


def test_a_pooler_that_sets_up_no_session_is_refused(database: str) -> None:
    with pooler(database, connect_query="") as url, pytest.raises(LedgerUnavailable, match=r"connect_query=.SET role = dispatcher"):
        migrate(url, role=POOLER)


def test_nobody_migrates_through_a_pooler(running_engines: Engines, numbers: Iterator[int]) -> None:
    with (
        new_database(running_engines, next(numbers)) as empty,
        pooler(empty, connect_query="") as url,
        pytest.raises(LedgerUnavailable, match=f"has to be migrated to {HEAD} first, over a direct connection"),
    ):
        migrate(url, role=POOLER)


def test_each_session_of_a_pooler_has_the_role_and_the_limits(database: str) -> None:
    with pooler(database) as url, connect_once(url, POOLER) as first, connect_once(url, POOLER) as second:
        for connection in (first, second):
            with connection.transaction():
                assert connection.execute("SELECT current_user::text, current_setting('lock_timeout')").fetchall() == [
                    ("dispatcher_worker", "15s")
                ]

"""A standby of PostgreSQL is promoted in mid campaign: nothing is sent twice, nothing is lost, and a lost commit holds sending."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from channels.base import Channel, Outbound, Result
from channels.providers.outbox import Outbox
from dispatcher.campaigns import scheduler
from dispatcher.delivery.pipeline import run_chunk
from dispatcher.domain.errors import LedgerUnavailable
from dispatcher.runtime.ledger_watch import CLAIM_MISSING
from dispatcher.runtime.services import Services
from tests.integration.test_restores import Installation, mails, submit, the_restore
from tests.support.replicated_postgres import PRIMARY, STANDBY, Replication, replication, stopped_servers
from tests.support.services import add_people, person, states, work

PEOPLE = [f"c-{number}" for number in range(160)]
ATTEMPTS = 20  # of a worker, until it has the new primary


@pytest.fixture(scope="module")
def stopped() -> Iterator[Path]:
    """The data folders of both servers."""
    with stopped_servers() as folder:
        yield folder


@pytest.fixture
def servers(stopped: Path) -> Iterator[Replication]:
    """A primary and its standby."""
    with replication(stopped) as running:
        yield running


@pytest.fixture
def installation(servers: Replication, tmp_path: Path) -> Installation:
    """An installation that knows both servers, with a campaign that nobody has worked on."""
    made = Installation(servers.url, tmp_path)
    with made.processes() as services:
        add_people(services, *(person(each, number % 100) for number, each in enumerate(PEOPLE)))
        submit(services, "spring", PEOPLE)
    return made


class FailoverOutbox(Outbox):
    """An outbox in which something happens when half of the people have their message: between hand-off and settlement."""

    def __init__(self, event: Callable[[], None]) -> None:
        super().__init__(Channel.EMAIL)
        self._event = event

    def _take(self, outbound: Outbound) -> Result:
        result = super()._take(outbound)
        if len(self.sent) == len(PEOPLE) // 2:
            self._event()
        return result


def work_on(services: Services, installation: Installation) -> None:
    """What a worker does until all is done: a task whose connection was lost is repeated."""
    for _ in range(ATTEMPTS):
        with suppress(LedgerUnavailable):
            work(services)
            if states(services, "spring") == {"accepted": len(PEOPLE)}:
                return
        installation.clock.pass_(services.limits.lease_seconds + 1)


def test_a_promotion_in_mid_campaign_sends_each_message_once(servers: Replication, installation: Installation) -> None:
    servers.wait_for_each_commit()

    def fail_over() -> None:
        servers.stop(PRIMARY)
        servers.promote()

    installation.providers = {**installation.providers, Channel.EMAIL: FailoverOutbox(fail_over)}
    with installation.processes() as services:
        work_on(services, installation)
        assert states(services, "spring") == {"accepted": len(PEOPLE)}
    assert installation.sent() == mails(*PEOPLE)
    with installation.processes():  # the new primary has the last claim: nothing is held
        pass
    assert servers.sql(STANDBY, "SELECT count(*) FROM ledger_generations") == [(1,)]


def test_an_old_primary_that_goes_on_can_send_nothing(servers: Replication, installation: Installation) -> None:
    servers.wait_for_each_commit()
    old = Installation(servers.url_of(PRIMARY), installation.folder / "old", installation.clock, installation.providers)
    old.folder.mkdir()
    with old.processes() as cut_off, ThreadPoolExecutor(1) as pool:
        (due,) = scheduler.due_chunks(cut_off)
        servers.promote()
        lost = pool.submit(run_chunk, cut_off, due.period, due.number)
        while not servers.sql(PRIMARY, "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"):
            time.sleep(0.1)
            assert not lost.done()
        assert installation.sent() == []  # its claim waits for the standby
        new = Installation(servers.url_of(STANDBY), installation.folder, installation.clock, installation.providers)
        with new.processes() as services:
            work_on(services, new)
        assert installation.sent() == mails(*PEOPLE)
        servers.stop(PRIMARY)
        with suppress(LedgerUnavailable):
            lost.result()
        cut_off.pool.close()
    assert installation.sent() == mails(*PEOPLE)


def test_claims_that_a_failover_lost_hold_sending(servers: Replication, installation: Installation) -> None:
    while servers.sql(STANDBY, "SELECT count(*) FROM campaigns") != [(1,)]:
        time.sleep(0.1)
    servers.stop(STANDBY)  # without synchronous replication, the primary goes on
    with installation.processes() as services:
        work(services)
        assert states(services, "spring") == {"accepted": len(PEOPLE)}
    servers.stop(PRIMARY)
    servers.start(STANDBY)
    servers.promote()
    with installation.processes() as services:
        restore = the_restore(services)
        assert (restore.is_held, restore.generation.cause) == (True, CLAIM_MISSING)
        work(services)
        assert [(each.work.campaign_id, each.work.open) for each in restore.works] == [("spring", len(PEOPLE))]
    assert installation.sent() == mails(*PEOPLE)

"""Each standstill is named within half a minute: by `/readyz`, `/metrics`, `dispatcher check` and the console."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.testclient import TestClient

from channels.base import Channel
from dispatcher.campaigns import actions, scheduler
from dispatcher.campaigns.actions import CampaignAction
from dispatcher.domain.errors import LedgerUnavailable
from dispatcher.events import publication
from dispatcher.ledger.connection import Connection, PoolOptions, lend, open_pool
from dispatcher.ledger.maintenance import stopped_channels
from dispatcher.ledger.maintenance.heartbeats import record_heartbeats
from dispatcher.maintenance.heartbeats import BEAT, SILENT_SECONDS, record
from dispatcher.maintenance.standstills import Standstill, examine, lanes
from dispatcher.runtime.services import Services
from dispatcher.web.app import create
from tests.chaos.proxy import Proxy
from tests.integration.test_campaign_ends import open_chunks, submit
from tests.support.services import Broker, Clock, make_services, work

ALL = (BEAT, *lanes())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def services(database: str, clock: Clock) -> Iterator[Services]:
    with make_services(database, clock) as made:
        yield made


def alive(services: Services, *components: str) -> None:
    with lend(services.pool) as connection:
        record_heartbeats(connection, dict.fromkeys(components or ALL, services.clock()), "worker-1:4711")


def found(services: Services) -> list[tuple[Standstill, str]]:
    return [(each.kind, each.subject) for each in examine(services).findings]


def readiness(services: Services) -> tuple[int, list[str]]:
    answer = TestClient(create(services, Broker())).get("/readyz")
    return answer.status_code, answer.json().get("standstills", [])


def gauge(services: Services, kind: str) -> float:
    text = TestClient(create(services, Broker())).get("/metrics").text
    return float(next(line.split()[-1] for line in text.splitlines() if line.startswith(f'dispatcher_standstill{{kind="{kind}"}}')))


def test_before_the_first_start_nothing_stands_still(services: Services) -> None:
    assert found(services) == []
    alive(services)
    assert found(services) == []


def test_a_frozen_worker_is_named_by_its_lane(services: Services, clock: Clock) -> None:
    alive(services)
    clock.pass_(SILENT_SECONDS + 1)
    alive(services, *(component for component in ALL if component != "campaign"))
    assert found(services) == [(Standstill.LANE, "campaign")]
    assert readiness(services) == (200, ["lane"])
    assert (gauge(services, "lane"), gauge(services, "beat")) == (1, 0)


def test_a_dead_beat_is_named(services: Services, clock: Clock) -> None:
    alive(services)
    clock.pass_(SILENT_SECONDS + 1)
    alive(services, *lanes())
    assert found(services) == [(Standstill.BEAT, "")]


def test_silence_of_all_parts_is_one_standstill(services: Services, clock: Clock) -> None:
    alive(services)
    clock.pass_(SILENT_SECONDS + 1)
    assert found(services) == [(Standstill.NOTHING_RUNS, "")]


def test_a_sign_says_that_beat_lives_too(services: Services, clock: Clock) -> None:
    record(services, "campaign", (clock() - timedelta(seconds=1)).timestamp())
    heartbeats = examine(services).heartbeats
    assert set(heartbeats) == {BEAT, "campaign"}
    assert heartbeats["campaign"].seen_at - heartbeats[BEAT].seen_at == timedelta(seconds=1)
    clock.pass_(-9)  # a heartbeat of another machine, whose clock is behind
    record(services, "campaign")
    assert examine(services).heartbeats["campaign"].seen_at == heartbeats["campaign"].seen_at


def test_a_lane_that_never_had_a_worker_is_named(services: Services, clock: Clock) -> None:
    others = [component for component in ALL if component != "fanout"]
    alive(services, *others)
    assert found(services) == []  # it may still be starting
    clock.pass_(SILENT_SECONDS + 1)
    alive(services, *others)
    assert found(services) == [(Standstill.LANE, "fanout")]


def test_a_campaign_that_did_not_start_is_named(services: Services, clock: Clock) -> None:
    submit(services, send_at=(clock() + timedelta(minutes=10)).isoformat())
    publication.publish(services)
    clock.pass_(600 + 10)
    assert found(services) == []
    clock.pass_(20)
    assert found(services) == [(Standstill.CAMPAIGN_NOT_STARTED, "spring")]


def test_a_campaign_without_progress_is_named(services: Services, clock: Clock) -> None:
    submit(services)
    scheduler.due_chunks(services)  # on the broker, and no worker takes it
    clock.pass_(30)
    assert found(services) == [(Standstill.CAMPAIGN_IDLE, "spring")]
    clock.pass_(60)  # the chunk counts as lost
    work(services)
    publication.publish(services)
    assert found(services) == []


def test_a_campaign_with_a_rate_is_not_idle_between_its_messages(services: Services, clock: Clock) -> None:
    submit(services, rate_per_second=0.1, seeds=["jana-maes"])
    clock.pass_(3600)  # it waits for its release, and all of its chunks are due
    actions.apply(services, "spring", CampaignAction.RELEASE, "Bart")
    work(services)
    publication.publish(services)
    assert (open_chunks(services), found(services)) == (1, [])
    clock.pass_(30)
    assert found(services) == [(Standstill.CAMPAIGN_IDLE, "spring")]


def test_a_stopped_channel_is_named_with_its_code(services: Services, clock: Clock) -> None:
    with lend(services.pool) as connection:
        stopped_channels.stop(connection, Channel.SMS, "twilio", "20003", clock())
    finding = examine(services).findings[0]
    assert (finding.kind, finding.subject) == (Standstill.CHANNEL_STOPPED, "sms")
    assert "20003" in finding.text


@pytest.fixture
def cut_off(services: Services, database: str) -> Iterator[tuple[Services, Proxy]]:
    """The services behind a proxy that can fall silent, as a frozen server does, with a connection that has worked before."""
    host = Path(parse_qs(urlsplit(database).query)["host"][0])
    proxy = Proxy(host / ".s.PGSQL.5432")
    url = f"postgresql://dispatcher@127.0.0.1:{proxy.port}{urlsplit(database).path}?sslmode=disable"
    with open_pool(url, PoolOptions(patient=False)) as pool:
        with lend(pool) as connection:
            connection.execute("SELECT 1")
        yield replace(services, pool=pool), proxy
    proxy.close()


def test_no_page_waits_for_a_frozen_database(cut_off: tuple[Services, Proxy]) -> None:
    services, proxy = cut_off
    client = TestClient(create(services, Broker()))
    assert client.get("/readyz").status_code == 200
    time.sleep(1.1)  # a connection that has just worked is not checked
    proxy.cut()
    assert client.get("/readyz").status_code == 503
    assert found(services) == [(Standstill.DATABASE, "")]
    assert 'dispatcher_standstill{kind="database"} 1' in client.get("/metrics").text
    proxy.heal(forget=True)
    assert client.get("/readyz").status_code == 200


def test_a_slow_statement_is_not_taken_for_a_frozen_one(cut_off: tuple[Services, Proxy]) -> None:
    services, _ = cut_off
    with lend(services.pool) as connection:
        assert connection.execute("SELECT 1 FROM pg_sleep(2.5)").fetchone() == (1,)


def _cut_and_ask(connection: Connection, proxy: Proxy) -> None:
    connection.execute("SELECT 1")
    proxy.cut()
    connection.execute("SELECT 2")


def test_a_frozen_server_ends_a_running_statement(cut_off: tuple[Services, Proxy]) -> None:
    services, proxy = cut_off
    with pytest.raises(LedgerUnavailable), lend(services.pool) as connection:
        _cut_and_ask(connection, proxy)
    proxy.heal(forget=True)


SCRIPT = """
import atexit, sys
pools = []
atexit.register(lambda: print([pool.closed for pool in pools]))  # runs after those that are registered later
from dispatcher.ledger.connection import lend, open_pool
pools.append(open_pool(sys.argv[1]))
with lend(pools[0]) as connection:
    connection.execute("SELECT 1")
"""


def test_a_process_closes_its_pools_when_it_ends(database: str) -> None:
    """Python 3.13 otherwise waits 20 seconds at the end of each command."""
    assert subprocess.run((sys.executable, "-c", SCRIPT, database), capture_output=True, text=True, check=True).stdout == "[True]\n"

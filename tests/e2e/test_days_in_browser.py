"""Days of the people who use the console, in a real browser: compliance answers a customer, an operator finds and mends faults."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Page
from redis import Redis

from channels.base import Channel
from dispatcher.campaigns import scheduler
from dispatcher.consent import preferences
from dispatcher.consent.preferences import PreferenceChange
from dispatcher.domain.preferences import Change
from dispatcher.events import publication
from dispatcher.ledger.connection import PoolOptions, lend, open_pool
from dispatcher.ledger.maintenance import stopped_channels
from dispatcher.ledger.maintenance.heartbeats import record_heartbeats
from dispatcher.maintenance.heartbeats import BEAT, SILENT_SECONDS
from dispatcher.maintenance.standstills import Standstill, lanes
from dispatcher.runtime.services import Watched
from dispatcher.web.console.labels import STANDSTILLS
from tests.chaos.proxy import Proxy
from tests.e2e.test_browser import browser, follow, pytestmark, serving, visits
from tests.e2e.test_desk_in_browser import signed_in
from tests.integration.test_campaign_ends import submit
from tests.support.form_client import Visits, open_visits
from tests.support.services import add_people, person, work

__all__ = ["browser", "pytestmark", "visits"]

CONTRACT = "1"


def test_compliance_answers_why_did_i_get_this(visits: Visits, browser: Browser) -> None:
    services = visits.services
    add_people(services, person("c-1", language="fr", offers={"own": "standard"}))
    change = PreferenceChange("c-1", [Change("offer:own", "tailored")], "branch", "user:dora", "x", contract_version=CONTRACT)
    event = preferences.record(services, visits.broker.publish, change).events[0]
    visits.write("c-1")
    with signed_in(visits, browser, locale="en-GB") as page:
        page.goto(f"{services.public_url}/console/people")
        page.locator("main input[name=q]").fill("c-1@example.org")
        page.keyboard.press("Enter")
        page.get_by_text("History of choices").click()
        row = page.get_by_role("row").filter(has_text=f"consent:{event.no}").last.inner_text()
        assert ("tailored" in row, "branch" in row, f"\t{CONTRACT}\t" in row) == (True, True, True)
        with page.expect_download() as download:
            page.get_by_text("Export for an access request").click()
        assert "loan_offer" in json.dumps(json.loads(download.value.path().read_text())["messages"])
        follow(page.get_by_role("row").filter(has_text="loan_offer").get_by_role("link", name="Why"))
        assert "Pour les offres de la" in page.locator("[lang=fr]").last.inner_text()
        assert f"consent:{event.no}" in page.inner_text("main")


# -- the operator ------------------------------------------------------------------------------------------------------


class OperatorDay:
    """Services whose database and broker can fall silent, and the operator's page about them."""

    def __init__(self, visits: Visits, proxies: tuple[Proxy, Proxy], queue: Redis, page: Page) -> None:
        self.services, self.clock = visits.services, visits.clock
        self.database, self.broker = proxies
        self.queue, self.page = queue, page

    def beat(self, *silent: str) -> None:
        """Time passes in which all but these components send heartbeats."""
        self.clock.pass_(SILENT_SECONDS + 1)
        names = [name for name in (BEAT, *lanes()) if name not in silent]
        with lend(self.services.pool) as connection:
            record_heartbeats(connection, dict.fromkeys(names, self.clock()), "worker-1:4711")
        if BEAT in names:
            publication.publish(self.services)

    def alerts(self) -> list[str]:
        """What the page names."""
        self.page.goto(f"{self.services.public_url}/console/operations?still=true")
        return [text.rstrip(".") for text in self.page.locator("main .alert strong").all_inner_texts()]


@pytest.fixture
def installation(database: str, broker_url: str, browser: Browser) -> Iterator[OperatorDay]:
    host = Path(parse_qs(urlsplit(database).query)["host"][0])
    to_database, to_broker = Proxy(host / ".s.PGSQL.5432"), Proxy(Path(urlsplit(broker_url).path))
    number = parse_qs(urlsplit(broker_url).query)["virtual_host"][0]
    queue = Redis(unix_socket_path=urlsplit(broker_url).path, db=int(number))
    watched = Watched(broker_url=f"redis://127.0.0.1:{to_broker.port}/{number}")
    url = f"postgresql://dispatcher@127.0.0.1:{to_database.port}{urlsplit(database).path}?sslmode=disable"
    with open_visits(database) as visits, open_pool(url, PoolOptions(patient=False)) as pool:
        web = replace(visits, services=replace(visits.services, pool=pool, watched=watched))
        with serving(web) as address:
            served = replace(visits, services=replace(visits.services, public_url=address))
            with signed_in(served, browser) as page:
                yield OperatorDay(served, (to_database, to_broker), queue, page)
    queue.close()
    to_database.close()
    to_broker.close()


def test_an_operator_finds_and_mends_eight_faults(installation: OperatorDay) -> None:
    world, services = installation, installation.services
    world.beat()
    assert world.alerts() == []
    everything = (BEAT, *lanes())
    faults: list[tuple[Standstill, Callable[[], object], Callable[[], object]]] = [
        (Standstill.LANE, lambda: world.beat("campaign"), world.beat),  # frozen workers
        (Standstill.BEAT, lambda: world.beat(*everything), world.beat),  # and so no heartbeat of the workers either
        (Standstill.NOTHING_RUNS, lambda: stop_all(world), lambda: start_all(world)),
        (Standstill.BROKER, world.broker.cut, lambda: world.broker.heal(forget=True)),
        (Standstill.CHANNEL_STOPPED, lambda: set_stop(world, True), lambda: set_stop(world, False)),
        (Standstill.CAMPAIGN_NOT_STARTED, lambda: pass_start(world), lambda: scheduler.due_chunks(services)),
        (Standstill.CAMPAIGN_IDLE, lambda: wait(world, 30), lambda: go_on(world)),
    ]
    for kind, begin, mend in faults:
        begin()
        assert world.alerts() == [STANDSTILLS[kind]]
        mend()
        assert world.alerts() == []
    world.database.cut()
    world.alerts()
    assert "database does not answer" in world.page.inner_text("main")
    world.database.heal(forget=True)
    assert world.alerts() == []


def stop_all(world: OperatorDay) -> None:
    """A task waits, and beat and all workers are stopped."""
    world.queue.rpush("campaign", "{}")
    world.beat(BEAT, *lanes())


def start_all(world: OperatorDay) -> None:
    """Beat and the workers run again, and the task is done."""
    world.queue.flushdb()
    world.beat()


def set_stop(world: OperatorDay, is_stopped: bool) -> None:
    """A wrong key: the provider refuses it, and the channel is stopped; with the right one, `dispatcher check` lifts the stop."""
    with lend(world.services.pool) as connection:
        if is_stopped:
            stopped_channels.stop(connection, Channel.SMS, "twilio", "20003", world.clock())
        else:
            stopped_channels.lift(connection, Channel.SMS, world.clock())


def pass_start(world: OperatorDay) -> None:
    """A start has passed, and nothing put the campaign on the broker."""
    submit(world.services, send_at=(world.clock() + timedelta(minutes=1)).isoformat())
    wait(world, 90)


def go_on(world: OperatorDay) -> None:
    """The chunk that no worker took counts as lost, and is done again."""
    wait(world, 60)
    work(world.services)
    publication.publish(world.services)


def wait(world: OperatorDay, seconds: float) -> None:
    """Time passes; all components send heartbeats."""
    world.clock.pass_(seconds - SILENT_SECONDS - 1)
    world.beat()

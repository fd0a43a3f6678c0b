"""An operator finds and mends eight faults of whole processes, in a browser: `dispatcher up`, with parts of it frozen for real."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from playwright.sync_api import Browser, Page

from channels.sandbox import SandboxClient
from dispatcher.embedded import postgres, valkey
from dispatcher.embedded.daemon import wait_until
from dispatcher.maintenance.standstills import Standstill
from dispatcher.web.console.labels import STANDSTILLS
from tests.e2e.test_browser import browser, follow, pytestmark
from tests.e2e.test_up import LANES, Up, running_up
from tests.support.services import person, policy_without_quiet_hours

__all__ = ["browser", "pytestmark"]

NAMED_SECONDS_MAX = 30  # in which a standstill has to be named
MENDED_SECONDS_MAX = 10  # in which the messages of a mended key leave
OFFER = {"project": "a bike", "amount": 900, "offer_url": "https://www.kbc-bank.example/loan"}
PAGE_SECONDS_MAX = 30_000  # while an engine is frozen, a page waits for its time limits


class Operator:
    """Somebody with the operations page open, and a client of the API."""

    def __init__(self, up: Up, page: Page) -> None:
        self.up, self.page, self.headers = up, page, {"Authorization": f"Bearer {up.started()['key']}"}
        self.sandbox = SandboxClient(up.environ["DISPATCHER_SANDBOX_URL"])

    def named(self) -> set[str]:
        """What the page names, and the subject of each, such as the lane."""
        self.page.goto(f"{self.up.url}/console/operations?still=true")
        return {" ".join(text.split()) for text in self.page.locator("main .alert").all_inner_texts()}

    def names(self, *kinds: Standstill, about: str = "") -> bool:
        """Whether the page names all of these kinds."""
        found = self.named()
        return all(any(text.startswith(STANDSTILLS[kind]) and about in text for text in found) for kind in kinds)

    def finds(self, *kinds: Standstill, about: str = "") -> None:
        """Wait until the page names them."""
        assert wait_until(lambda: self.names(*kinds, about=about), NAMED_SECONDS_MAX), (kinds, self.named())

    def sees_mended(self, *kinds: Standstill, about: str = "") -> None:
        """Wait until the page names none of them."""
        gone = wait_until(lambda: not any(self.names(kind, about=about) for kind in kinds), NAMED_SECONDS_MAX)
        assert gone, (kinds, self.named())

    def call(self, method: str, path: str, document: object = None) -> Any:
        """A call of the API."""
        answer = httpx2.request(method, f"{self.up.url}{path}", json=document, headers=self.headers, timeout=30)
        assert answer.is_success, (path, answer.text)
        return answer.json()

    def submit(self, campaign_id: str, **changes: Any) -> None:
        rows = [{"recipient": "c-1", "data": OFFER}]
        form = {"id": campaign_id, "template": "loan_offer", "channels": ["push"], "audience": rows, **changes}
        self.call("POST", "/v1/campaigns", form)

    def state(self, campaign_id: str) -> str:
        return str(self.call("GET", f"/v1/campaigns/{campaign_id}")["state"])

    def has_left(self, address: str) -> bool:
        """Whether the provider took a message to this address."""
        return any(arrival["address"] == address for arrival in self.sandbox.log())

    def check(self) -> int:
        """`dispatcher check`."""
        program = (sys.executable, "-c", "from dispatcher.cli import main; main()", "check")
        return subprocess.run(program, env=self.up.environ, capture_output=True, check=False).returncode


@pytest.fixture(scope="module")
def operator(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    policy = policy_without_quiet_hours(tmp_path_factory.mktemp("policy"), {"\ntemplates = true #": "\ntemplates = false #"})
    with running_up(DISPATCHER_POLICY=str(policy)) as up:
        page = browser.new_page(locale="en-GB")
        page.set_default_timeout(PAGE_SECONDS_MAX)
        page.goto(f"{up.url}/console/login")
        page.get_by_label("Name").fill("local")
        page.get_by_label("Password").fill(up.started()["password"])
        follow(page.get_by_role("button", name="Sign in"))
        try:
            yield Operator(up, page)
        finally:
            thaw([*up.children(), *engine(postgres.server, up.home / "postgres"), *engine(valkey.server, up.home / "valkey")])
            page.close()


def engine(server: Callable[[Path], psutil.Process | None], folder: Path) -> list[psutil.Process]:
    """All processes of an engine."""
    found = server(folder)
    assert found is not None
    return [found, *found.children(recursive=True)]


def freeze(processes: list[psutil.Process]) -> None:
    for process in processes:
        process.suspend()


def thaw(processes: list[psutil.Process]) -> None:
    for process in processes:
        process.resume()


def test_an_operator_finds_and_mends_eight_real_faults(operator: Operator) -> None:
    up, sandbox = operator.up, operator.sandbox
    assert wait_until(up.is_ready, 120), up.output.read_text()
    operator.call("PUT", "/v1/recipients/c-1", person("c-1"))
    assert wait_until(lambda: operator.named() == set(), 60), operator.named()

    # Frozen workers, a campaign at 0/s, a start that has passed, and a channel that a wrong key stopped: all at once.
    campaign, clock = up.lane("campaign"), up.lane("clock")
    campaign.suspend()
    operator.submit("spring")
    assert wait_until(lambda: operator.state("spring") == "running", 30)
    start = datetime.now(UTC) + timedelta(seconds=2)
    operator.submit("late", send_at=start.isoformat())
    clock.suspend()
    sandbox.refuse_keys(["SG.sandbox"])
    message = {"key": "k-1", "recipient": "c-1", "template": "loan_offer", "channels": ["email"], "data": OFFER}
    operator.call("POST", "/v1/messages", message)
    operator.finds(Standstill.CHANNEL_STOPPED, about="http_401")
    operator.finds(Standstill.LANE, about="lane campaign")
    operator.finds(Standstill.CAMPAIGN_IDLE, about="spring")
    operator.finds(Standstill.CAMPAIGN_NOT_STARTED, about="late")
    clock.resume()
    campaign.resume()
    operator.sees_mended(Standstill.CAMPAIGN_NOT_STARTED, Standstill.LANE, Standstill.CAMPAIGN_IDLE)
    sandbox.refuse_keys([])
    assert not operator.has_left("c-1@example.org")
    assert operator.check() == 0
    assert wait_until(lambda: operator.has_left("c-1@example.org"), MENDED_SECONDS_MAX), operator.named()
    operator.sees_mended(Standstill.CHANNEL_STOPPED)
    assert wait_until(lambda: (operator.state("spring"), operator.state("late")) == ("finished", "finished"), 60)

    # Beat is dead to the others; then it goes on, and no worker does.
    beat = [up.lane("beat")]
    freeze(beat)
    operator.finds(Standstill.BEAT)
    workers = [up.lane(name) for name in LANES]
    freeze(workers)
    thaw(beat)
    operator.finds(Standstill.NOTHING_RUNS)
    thaw(workers)
    operator.sees_mended(Standstill.NOTHING_RUNS, Standstill.BEAT, Standstill.LANE)

    # An engine that takes connections and answers nothing.
    for kind, processes in (
        (Standstill.BROKER, engine(valkey.server, up.home / "valkey")),
        (Standstill.DATABASE, engine(postgres.server, up.home / "postgres")),
    ):
        freeze(processes)
        began = time.monotonic()
        operator.page.goto(f"{up.url}/console/operations?still=true")
        assert STANDSTILLS[kind].lower() in operator.page.inner_text("main").lower()
        assert time.monotonic() - began < NAMED_SECONDS_MAX
        thaw(processes)
        operator.sees_mended(kind)
    assert wait_until(lambda: operator.named() == set(), 60), operator.named()

"""A backup is restored in mid campaign, by the commands of the guide: nobody gets it twice, and no opt-out is forgotten."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from channels.sandbox.client import SandboxClient
from channels.sandbox.server import running
from dispatcher.campaigns import editing, submission
from dispatcher.consent import preferences
from dispatcher.consent.preferences import PreferenceChange
from dispatcher.domain.preferences import Change
from dispatcher.embedded import engines
from dispatcher.embedded.daemon import wait_until
from dispatcher.intake.campaign import parse_campaign
from dispatcher.ledger.migrations import migrate
from dispatcher.policy import parse
from dispatcher.runtime.services import Services
from tests.e2e.test_workers import STOP_SECONDS_MAX
from tests.support.command import PROGRAM, SECRET
from tests.support.feed import all_events
from tests.support.services import TEMPLATES, add_people, make_services, person, policy_without_quiet_hours, states

OFFER = {"project": "zonnepanelen", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
EVERYBODY = [f"c-{number}" for number in range(300)]
RATE = 6  # 50 seconds: time for a backup in the middle, on a slow machine, too
LEAVES = EVERYBODY[-1]  # opts out after the backup, and before the disaster


@dataclass(frozen=True)
class Site:
    """An installation with embedded engines, and the providers outside it."""

    home: Path
    sandbox: SandboxClient

    @property
    def policy(self) -> Path:
        return self.home / "policy.toml"

    @property
    def environ(self) -> Mapping[str, str]:
        """What a command or a process of it gets."""
        own = ("DISPATCHER_", "SENDGRID_", "TWILIO_")
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(own)},
            "DISPATCHER_HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "DISPATCHER_SECRET_KEY": SECRET,
            "DISPATCHER_TEMPLATES": str(TEMPLATES),
            "DISPATCHER_POLICY": str(self.policy),
            "DISPATCHER_SANDBOX_URL": self.sandbox.url,
        }

    def command(self, *arguments: str, code: int = 0) -> str:
        """Run a `dispatcher` command; what it prints."""
        done = subprocess.run((*PROGRAM, *arguments), env=self.environ, capture_output=True, text=True, check=False)
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        return done.stdout

    @contextmanager
    def at_work(self) -> Iterator[Services]:
        """Engines, a worker and beat; at the end both are killed, as in a disaster."""
        with engines(self.home) as found, (self.home / "worker.log").open("ab") as log:
            migrate(found.database_url)
            parts = (("worker", "--concurrency", "1"), ("beat", "--schedule", str(self.home / "beat"), "--pidfile", ""))
            program = (sys.executable, "-m", "celery", "-A", "dispatcher")
            with make_services(found.database_url) as made:
                children = [
                    subprocess.Popen((*program, *part), env=self.environ, stdout=log, stderr=log, start_new_session=True)
                    for part in parts
                ]
                try:
                    yield replace(made, clock=lambda: datetime.now(UTC), policy=parse(self.policy.read_text(encoding="utf-8")))
                finally:
                    for child in children:
                        os.killpg(child.pid, signal.SIGKILL)
                        child.wait(STOP_SECONDS_MAX)

    def arrived(self, after: int = 0) -> Counter[str]:
        """How many messages each address got."""
        return Counter(each["address"] for each in self.sandbox.log(after=after))

    def log(self) -> str:
        """The last lines of worker and beat."""
        return (self.home / "worker.log").read_text(encoding="utf-8")[-3000:]


@pytest.fixture
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="restore-") as folder, running() as sandbox:
        policy_without_quiet_hours(Path(folder))
        yield Site(Path(folder), sandbox)


def submit(services: Services, campaign_id: str, **options: object) -> None:
    rows = [{"recipient": each, "data": OFFER} for each in EVERYBODY]
    form = {"id": campaign_id, "template": "loan_offer", "channels": ["email"], "audience": rows, **options}
    submission.submit(services, parse_campaign(form, submission.validation_context(services)))


def opt_out(services: Services, recipient_id: str) -> None:
    change = PreferenceChange(recipient_id, [Change("channel:email", "off")], "mobile", "app", "x")
    preferences.record(services, lambda _: None, change)  # beat finds the acknowledgement


def test_after_a_restore_nobody_gets_it_twice_or_after_leaving(site: Site, tmp_path: Path) -> None:
    feed = tmp_path / "events.jsonl"
    with site.at_work() as services:
        add_people(services, *(person(each, number % 100) for number, each in enumerate(EVERYBODY)))
        submit(services, "later", send_at=(services.clock() + timedelta(hours=1)).isoformat())
        submit(services, "spring", rate_per_second=RATE)
        assert wait_until(lambda: site.arrived().total() >= 10, 240), site.log()
        backup = json.loads(site.command("backup", "create", str(tmp_path / "backups"), "--json"))["backup"]
        in_backup = site.arrived().total()
        opt_out(services, LEAVES)
        assert wait_until(lambda: site.arrived().total() >= in_backup + 20, 240), site.log()
        feed.write_text("".join(f"{json.dumps(each)}\n" for each in all_events(services)), encoding="utf-8")
    site.command("restore", "run", backup, "--replace")
    sent = site.arrived().total()

    with site.at_work() as services:
        assert "later" in site.command("restore", "status", code=1)
        time.sleep(5)  # worker and beat are at work, and nothing is sent
        assert site.arrived().total() == sent
        site.command("restore", "replay", str(feed))
        site.command("restore", "release", "--reason", "events replayed")
        assert wait_until(lambda: "pending" not in states(services, "spring"), 120), site.log()
        assert states(services, "spring")["unresolved"] > 0
        assert set(site.arrived().values()) == {1}, "somebody got it twice"
        sent = site.arrived().total()
        editing.edit(services, "later", {"send_at": None}, "tests")
        assert wait_until(lambda: states(services, "later") == {"accepted": len(EVERYBODY) - 1, "refused": 1}, 240), site.log()
    later = site.arrived(after=sent)
    assert (set(later.values()), f"{LEAVES}@example.org" in later) == ({1}, False)

"""A rolling upgrade: workers of the previous version and of this one share a ledger and a broker, with a campaign in flight."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from channels.sandbox import SandboxClient, running
from dispatcher.embedded import Engines
from dispatcher.ledger.migrations import HEAD, VERSIONS, migrate
from tests.conftest import new_database
from tests.e2e.test_workers import OFFER, SECRET, STOP_SECONDS_MAX
from tests.support.services import person

ROOT = Path(__file__).parents[2]
PEOPLE = 3_000


def git(*arguments: str) -> bytes:
    program = shutil.which("git")
    return subprocess.run((program, "-C", str(ROOT), *arguments), capture_output=True, check=False).stdout if program else b""


def previous_commit() -> str:
    """The last commit of the previous schema; empty without history, as in a source archive."""
    newest = max(file.name for file in VERSIONS.glob("[0-9]*.py"))
    path = f"dispatcher/ledger/migrations/versions/{newest}"
    added = git("log", "--diff-filter=A", "--format=%H", "-1", "--", path).decode().strip()
    return git("rev-parse", "--verify", "--quiet", f"{added}^").decode().strip() if added else ""


PREVIOUS = previous_commit()


def unpack(commit: str, folder: Path) -> Path:
    """The program as it was at a commit."""
    with tarfile.open(
        fileobj=io.BytesIO(git("archive", commit, "dispatcher", "channels", "templates", "celeryconfig.py"))
    ) as files:
        files.extractall(folder, filter="data")
    return folder


@dataclass(frozen=True)
class Version:
    """The code of one version, and what its processes need."""

    folder: Path
    environ: Mapping[str, str]

    def run(self, code: str, *arguments: str) -> None:
        done = subprocess.run(
            (sys.executable, "-c", code, *arguments), cwd=self.folder, env=self.environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def command(self, *arguments: str) -> None:
        self.run("from dispatcher.cli import main; main()", *arguments)

    @contextmanager
    def at_work(self, *processes: tuple[str, ...]) -> Iterator[Path]:
        """Celery processes of this version; their log."""
        log = self.folder / "test.log"
        with log.open("wb") as file:
            children = [
                subprocess.Popen(
                    (sys.executable, "-m", "celery", "-A", "dispatcher", *each, "--loglevel", "INFO"),
                    cwd=self.folder,
                    env=self.environ,
                    stdout=file,
                    stderr=file,
                )
                for each in processes
            ]
        try:
            yield log
        finally:
            for child in children:
                child.terminate()
            for child in children:
                child.wait(STOP_SECONDS_MAX)


def without_quiet_hours(policy: Path) -> Path:
    """The policy of the previous version, for workers that can't wait for the morning."""
    lines = policy.read_text(encoding="utf-8").splitlines()
    policy.write_text("\n".join(line for line in lines if "{ from = " not in line), encoding="utf-8")
    return policy


def worker(name: str) -> tuple[str, ...]:
    return ("worker", "--concurrency", "1", "--hostname", f"{name}@test")


def wait_until(met: Callable[[], bool], *logs: Path, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, "\n".join(log.read_text()[-3000:] for log in logs)
        time.sleep(0.05)


def write_files(folder: Path) -> tuple[Path, Path]:
    """People, and a campaign for all of them."""
    people, campaign = folder / "people.jsonl", folder / "spring.yaml"
    people.write_text("\n".join(json.dumps(person(f"c-{number}", number % 100)) for number in range(PEOPLE)))
    rows = [{"recipient": f"c-{number}", "data": OFFER} for number in range(PEOPLE)]
    form = {"id": "spring", "template": "loan_offer", "channels": ["push"], "audience": rows}
    campaign.write_text(json.dumps(form))  # JSON is YAML
    return people, campaign


def states(url: str) -> Counter[str]:
    with psycopg.connect(url) as owner:
        return Counter(dict(owner.execute("SELECT state, count(*) FROM messages GROUP BY state").fetchall()))


@pytest.fixture
def double() -> Iterator[SandboxClient]:
    with running() as client:
        yield client


@pytest.fixture
def empty_database(running_engines: Engines, numbers: Iterator[int]) -> Iterator[str]:
    with new_database(running_engines, next(numbers)) as url:
        yield url


@pytest.mark.skipif(not PREVIOUS and not os.environ.get("CI"), reason="no history of the repository")
def test_a_campaign_in_flight_goes_on_through_an_upgrade(
    empty_database: str, broker_url: str, double: SandboxClient, tmp_path: Path
) -> None:
    assert PREVIOUS, "CI must have the commit before the newest migration: fetch the history of the repository"
    old_folder = unpack(PREVIOUS, tmp_path / "old")
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("DISPATCHER_", "SENDGRID_", "TWILIO_"))},
        "DISPATCHER_HOME": str(tmp_path),
        "DISPATCHER_DATABASE_URL": empty_database,
        "DISPATCHER_BROKER_URL": broker_url,
        "DISPATCHER_SECRET_KEY": SECRET,
        "DISPATCHER_TEMPLATES": str(old_folder / "templates"),
        "DISPATCHER_POLICY": str(without_quiet_hours(old_folder / "dispatcher" / "policy" / "policy.toml")),
        "DISPATCHER_SANDBOX_URL": double.url,
    }
    (tmp_path / "new").mkdir()
    old, new = Version(old_folder, environ), Version(tmp_path / "new", {**environ, "PYTHONPATH": str(ROOT)})
    old.command("recipients", "import", *(str(file) for file in write_files(tmp_path)[:1]))
    old.command("templates", "approve", "loan_offer")
    double.set_faults([{"provider": "fcm", "delay_seconds": 5.0}])
    with old.at_work(worker("old"), ("beat", "--pidfile", "")) as old_log:
        old.command("campaign", "submit", str(tmp_path / "spring.yaml"))
        wait_until(lambda: double.counts()["total"] > 0, old_log)
        migrate(empty_database)
        before = states(empty_database)["accepted"]
        assert before < PEOPLE
        with new.at_work(worker("new")) as new_log:
            wait_until(lambda: "new@test ready" in new_log.read_text(), old_log, new_log)
            double.clear_faults()  # slow until then: the old one may not finish alone
            wait_until(lambda: states(empty_database)["accepted"] == PEOPLE, old_log, new_log)
    assert all("dispatcher.send_chunk" in log.read_text() for log in (old_log, new_log))  # both took part
    assert "Traceback" not in old_log.read_text() + new_log.read_text()
    with psycopg.connect(empty_database) as owner:
        assert owner.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEAD,)]
        unreadable = owner.execute("SELECT FROM messages WHERE jsonb_typeof(decision) <> 'object'")  # for the old one
        assert unreadable.rowcount == 0
    assert states(empty_database) == {"accepted": PEOPLE}
    assert set(Counter(arrival["message_id"] for arrival in double.log()).values()) == {1}

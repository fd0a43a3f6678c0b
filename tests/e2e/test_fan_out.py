"""Fan-out by Celery in steps: a load that takes longer than the time limit goes in, also when its worker is killed, and the clock
goes on meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psutil
from celery import Celery

from dispatcher.campaigns import overview
from dispatcher.ledger.connection import lend
from dispatcher.runtime.services import Services
from tests.support.services import TEMPLATES, make_services

ROOT = Path(__file__).parents[2]
OFFER = {"project": "zonnepanelen", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
COUNT = 100_000
LIMITS = (3, 5)  # seconds; the whole load takes longer than both
CONFIG = f"""
import runpy
globals().update({{name: value for name, value in runpy.run_path({str(ROOT / "celeryconfig.py")!r}).items() if name[0] != "_"}})
task_soft_time_limit, task_time_limit = {LIMITS}
"""


@contextmanager
def workers(environ: Mapping[str, str], folder: Path, *lanes: str) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """A worker for each lane, and beat; all with small time limits."""
    (folder / "celeryconfig.py").write_text(CONFIG)
    commands: dict[str, tuple[str, ...]] = {
        lane: ("worker", "-Q", lane, "-c", "1", "--loglevel", "INFO", "-n", f"{lane}@test") for lane in lanes
    }
    commands["beat"] = ("beat", "--schedule", str(folder / "beat"), "--pidfile", "")
    children = {}
    for name, command in commands.items():
        with (folder / f"{name}.log").open("wb") as log:
            children[name] = subprocess.Popen(
                (sys.executable, "-m", "celery", "-A", "dispatcher", *command),
                stdout=log,
                stderr=log,
                env={**environ, "PYTHONPATH": str(folder)},
                cwd=folder,
            )
    try:
        yield children
    finally:
        for child in children.values():
            child.terminate()
        for child in children.values():
            child.wait(90)


def loaded(services: Services) -> int:
    found = overview.find(services, "large")
    return found.audience if found else 0


def wait_for(met: Callable[[], bool], folder: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, (folder / "fanout.log").read_text()[-4000:]
        time.sleep(0.05)


def test_a_load_beyond_the_time_limit_goes_in_and_the_clock_goes_on(database: str, broker_url: str, tmp_path: Path) -> None:
    path = tmp_path / "audiences" / "large.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps({"recipient": f"nobody-{n}", "data": OFFER}) + "\n" for n in range(COUNT)))
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("DISPATCHER_", "SENDGRID_", "TWILIO_"))},
        "DISPATCHER_HOME": str(tmp_path),
        "DISPATCHER_DATABASE_URL": database,
        "DISPATCHER_BROKER_URL": broker_url,
        "DISPATCHER_SECRET_KEY": "a-secret-of-the-tests-that-is-long-enough",
        "DISPATCHER_TEMPLATES": str(TEMPLATES),
    }
    with make_services(database) as services, workers(environ, tmp_path, "fanout", "clock", "maintenance") as children:
        celery = Celery(broker=broker_url, set_as_current=False)
        celery.config_from_object("celeryconfig")
        celery.conf.broker_url = broker_url
        form = {"id": "large", "template": "loan_offer", "channels": ["email"], "audience": path.name, "holdout_percent": 100}
        celery.send_task("dispatcher.submit_campaign", (form,), queue="fanout")
        wait_for(lambda: loaded(services) > 0, tmp_path, 60)
        begun = time.monotonic(), datetime.now(UTC)
        for rows in (30_000, 60_000):
            wait_for(lambda rows=rows: loaded(services) >= rows, tmp_path, 60)  # type: ignore[misc]
            [child] = psutil.Process(children["fanout"].pid).children()
            child.send_signal(signal.SIGKILL)

        def is_complete() -> bool:
            found = overview.find(services, "large")
            return found is not None and found.fanned_out

        wait_for(is_complete, tmp_path, 120)
        seconds = time.monotonic() - begun[0]
        with lend(services.pool) as connection:
            row = connection.execute(
                "SELECT count(*), count(DISTINCT recipient_id), count(DISTINCT line), count(repeat_of) FROM jobs"
            ).fetchone()
        wait_for(lambda: (found := overview.find(services, "large")) is not None and found.state == "running", tmp_path, 10)
    assert row == (COUNT, COUNT, COUNT, 0)
    assert seconds > LIMITS[1], "it took longer than the time limit of a task"
    ticks = (tmp_path / "clock.log").read_text().count("release_due")
    assert ticks > seconds / 2, f"{ticks} ticks of the clock in {seconds:.0f} s"

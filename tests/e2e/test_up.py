"""`dispatcher up` as a whole: it restarts whatever is killed, says so, and costs nothing while idle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import rmtree
from urllib.parse import urlsplit

import psutil
import pytest

from dispatcher.cli import system
from dispatcher.devserver.stack import free_port
from dispatcher.embedded import postgres, valkey
from dispatcher.embedded.daemon import wait_until

ROUNDS = int(os.environ.get("KILLS", "3"))
LANES = ("transactional", "inbound", "campaign", "fanout", "events", "clock", "maintenance")


@dataclass(frozen=True)
class Up:
    """A running `dispatcher up`."""

    process: psutil.Process
    popen: subprocess.Popen[bytes]
    home: Path
    output: Path
    url: str
    environ: Mapping[str, str]

    def lane(self, name: str) -> psutil.Process:
        """The worker of a lane."""
        return next(child for child in self.children() if name in child.cmdline())

    def started(self) -> dict[str, str]:
        """What it said at its start: addresses, password and key."""
        events = map(json.loads, self.output.read_text().splitlines())
        return next(each for each in events if each["event"] == "started")

    def children(self) -> list[psutil.Process]:
        """The commands that it supervises, in the order in which they started."""
        return sorted(self.process.children(), key=lambda child: child.create_time())

    def is_ready(self) -> bool:
        """Whether the web application has its ledger and its broker, and no lane is without a worker."""
        with suppress(OSError), urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:  # noqa: S310 - our own URL
            return bool(answer.status == 200) and len(self.children()) == len(LANES) + 3
        return False

    def standstills(self) -> list[str] | None:
        """What stands still, as the web application says; None where it does not answer."""
        with suppress(OSError), urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:  # noqa: S310 - our own URL
            kinds: list[str] = json.load(answer)["standstills"]
            return kinds
        return None

    def says(self, text: str, times: int) -> bool:
        """Whether it has reported this so often."""
        return self.output.read_text().count(text) == times

    def engines(self) -> list[psutil.Process | None]:
        """The engines' servers."""
        return [postgres.server(self.home / "postgres"), valkey.server(self.home / "valkey")]


@pytest.fixture
def up() -> Iterator[Up]:
    with running_up() as started:
        yield started


@contextmanager
def running_up(**changes: str) -> Iterator[Up]:
    """`dispatcher up` with a folder of its own, and these variables besides."""
    home = Path(tempfile.mkdtemp(prefix="up-"))
    url = f"http://127.0.0.1:{free_port()}"
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("DISPATCHER_", "SENDGRID_", "TWILIO_"))},
        "DISPATCHER_HOME": str(home),
        "DISPATCHER_PUBLIC_URL": url,
        "DISPATCHER_SANDBOX_URL": f"http://127.0.0.1:{free_port()}",
        **changes,
    }
    program = (sys.executable, "-c", "from dispatcher.cli import main; main()", "up", "--no-flower", "--workers", "1", "--json")
    output = home.with_suffix(".log")
    with output.open("wb") as file:
        process = subprocess.Popen(program, env=environ, stdout=file)
    try:
        started = Up(psutil.Process(process.pid), process, home, output, url, environ)
        assert wait_until(lambda: '"event": "started"' in output.read_text(), 120), output.read_text()
        yield started
    finally:
        process.terminate()
        process.wait(120)
        rmtree(home)
        output.unlink()


def test_what_is_killed_comes_back_and_while_idle_it_costs_nothing(up: Up) -> None:
    assert wait_until(up.is_ready, 240), up.output.read_text()
    queues = [command for child in up.children() if "--queues" in (command := child.cmdline())]
    assert sorted(command[command.index("--queues") + 1] for command in queues) == sorted(LANES), "no lane shares a process"

    frozen = next(child for child in up.children() if "campaign" in child.cmdline())
    assert wait_until(lambda: up.standstills() == [], 120)
    frozen.suspend()
    assert wait_until(lambda: up.standstills() == ["lane"], 240), up.standstills()
    frozen.resume()
    assert wait_until(lambda: up.standstills() == [], 120), up.standstills()

    before = up.process.cpu_times()
    time.sleep(5)
    after = up.process.cpu_times()
    assert after.user + after.system - before.user - before.system <= 0.05

    for round_number in range(ROUNDS):
        engines, families = up.engines(), [[child, *child.children()] for child in up.children()]
        for process in engines:
            assert process is not None
            process.kill()
        if round_number:  # the engines alone, and then everything
            for child, *_ in families:
                child.kill()
        restarted = partial(up.says, "valkey ended; it is started again", round_number + 1)
        assert wait_until(restarted, 120), up.output.read_text()
        assert wait_until(lambda: None not in up.engines() and up.is_ready(), 120), up.output.read_text()
        if round_number:
            leftovers = [process for family in families for process in family]
            assert wait_until(partial(_have_ended, leftovers), 120), leftovers
    said = up.output.read_text()
    assert said.count("postgres ended; it is started again") == ROUNDS
    assert said.count("valkey ended; it is started again") == ROUNDS
    assert said.count("web ended with -9; it starts again") == ROUNDS - 1

    up.popen.terminate()
    assert up.popen.wait(120) == 0
    events = [json.loads(line) for line in up.output.read_text().splitlines()]
    assert [each["event"] for each in events if each["event"] != "notice"] == ["started", "stopping", "stopped"]
    started = next(each for each in events if each["event"] == "started")
    assert (started["web"], started["console"], started["flower"]) == (up.url, f"{up.url}/console", None)


def test_people_get_the_addresses_as_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    system.print_started({"console": "http://127.0.0.1:1/console", "key": "dsp_[x]", "flower": None, "logs": "/var/log"})
    assert capsys.readouterr().out.splitlines() == [
        "API, webhooks, console   http://127.0.0.1:1/console",
        "API key                  dsp_[x]",
        "logs                     /var/log",
        "Ctrl-C stops it.",
    ]


def test_the_sandbox_reports_events_as_json_lines(tmp_path: Path) -> None:
    program = (sys.executable, "-c", "from dispatcher.cli import main; main()", "sandbox", "--json", "--port")
    with subprocess.Popen((*program, "0"), stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        started = json.loads(process.stdout.readline())
        assert started["event"] == "started"
        port = str(urlsplit(started["url"]).port)
        second = subprocess.run((*program, port), capture_output=True, text=True, check=False, cwd=tmp_path)
        assert (second.returncode, json.loads(second.stdout)["event"]) == (2, "failed")
        process.terminate()
        assert json.loads(process.stdout.readline()) == {"event": "stopped"}
        assert process.wait(30) == 0


def _have_ended(processes: Sequence[psutil.Process]) -> bool:
    return not any(map(_is_at_work, processes))


def _is_at_work(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False

"""`dispatcher run`: one process of an installation, and the probe that health checks use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from dispatcher.cli.command_groups import command_line
from dispatcher.cli.errors import run
from dispatcher.devserver.processes import LANES, flower_login, lane_worker
from dispatcher.runtime.settings import InvalidSettings, Settings

BECOME = """
import sys
from dispatcher.devserver.processes import become
from dispatcher.devserver.supervisor import ChildCommand
shown = "import os, json; print(json.dumps([os.getpid(), os.nice(0), os.umask(0), os.environ['A'], os.environ['B']]))"
become(ChildCommand("x", (sys.executable, "-c", shown), 0, nice=3, environ={"B": "2"}), {"A": "1", "B": "0"})
"""


class Answers(BaseHTTPRequestHandler):
    """200 for /healthz, else 503."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200 if self.path == "/healthz" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Write nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    """A web server of this process."""
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def call(*arguments: str) -> int:
    """The exit code of `dispatcher run` with these arguments."""
    return run(command_line("run"), ["run", *arguments])


def test_a_process_is_replaced_with_its_priority_and_umask() -> None:
    with subprocess.Popen([sys.executable, "-c", BECOME], stdout=subprocess.PIPE, text=True) as process:
        out, _ = process.communicate()
    pid, nice, umask, *environ = json.loads(out)
    assert (pid, nice, umask, environ) == (process.pid, min(19, os.nice(0) + 3), 0o077, ["1", "2"])


@pytest.mark.parametrize("lane", LANES)
def test_each_lane_has_a_worker_that_takes_it_alone(lane: str) -> None:
    argv = lane_worker(Settings.from_environment({}), lane, 3).argv
    assert argv[argv.index("--queues") + 1] == lane
    assert argv[argv.index("--concurrency") + 1] == "3"


def test_a_misspelt_lane_is_refused_with_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("worker", "campain") == 2
    assert "did you mean campaign?" in capsys.readouterr().err


@pytest.mark.parametrize(("path", "code"), [("/healthz", 0), ("/readyz", 1)])
def test_a_probe_says_whether_a_process_answers(url: str, path: str, code: int) -> None:
    assert call("probe", url + path) == code


def test_a_health_check_imports_hardly_anything(url: str) -> None:
    """It runs every few seconds in each container."""
    script = "import sys, dispatcher.cli\ntry:\n    dispatcher.cli.main()\nfinally:\n    print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script, "run", "probe", f"{url}/healthz"], capture_output=True, text=True, check=True
    )
    imported = done.stdout.split()
    assert {name for name in imported if name.startswith("dispatcher")} == {"dispatcher", "dispatcher.cli", "dispatcher.cli.probe"}
    assert "typer" not in imported


def test_a_probe_fails_where_nothing_listens() -> None:
    assert call("probe", "http://127.0.0.1:1/healthz") == 1
    assert call("probe", "file:///etc/passwd") == 2


def test_flower_needs_a_login_from_environment_or_secrets(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="FLOWER_BASIC_AUTH"):
        flower_login({})
    (tmp_path / "FLOWER_BASIC_AUTH").write_text("jana:secret\n")
    assert flower_login({"DISPATCHER_SECRETS": str(tmp_path)}) == "jana:secret"
    assert flower_login({"FLOWER_BASIC_AUTH": "bart:other"}) == "bart:other"

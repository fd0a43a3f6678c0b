"""Supervision of child processes: they get ready, are restarted, stop in order, and none outlives its parent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from dispatcher.devserver.stack import free_port
from dispatcher.devserver.supervisor import (
    SERVERS,
    SOURCES,
    WORKERS,
    ChildCommand,
    PortError,
    ProcessError,
    beat,
    check_ports,
    flower,
    sandbox,
    stop_signals,
    supervised,
    web,
)
from dispatcher.embedded.daemon import wait_until

SLEEPS = "import time; print('up', flush=True); time.sleep(600)"
# Ends on SIGTERM, and records that in a file; all write to one file, which shows their order.
ENDS_ON_SIGTERM = """
import signal, sys, time
def end(*_):
    open(sys.argv[2], "a").write(sys.argv[1] + "\\n")
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
time.sleep(600)
"""
IGNORES_SIGTERM = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"


def python(name: str, program: str, *arguments: object, stage: int = WORKERS, stop_seconds_max: float = 20.0) -> ChildCommand:
    return ChildCommand(name, (sys.executable, "-c", program, *map(str, arguments)), stage, stop_seconds_max)


def said(log: Path, words: str = "up") -> bool:
    return wait_until(lambda: log.exists() and words in log.read_text(), seconds=240)


def test_children_stop_stage_by_stage(tmp_path: Path) -> None:
    order = tmp_path / "order"
    commands = [python(str(stage), ENDS_ON_SIGTERM, stage, order, stage=stage) for stage in (SERVERS, WORKERS, SOURCES)]
    with supervised(commands, tmp_path, os.environ) as processes:
        assert all(said(processes.log(command.name)) for command in commands)
    assert order.read_text().split() == ["0", "1", "2"]


def test_a_child_that_ignores_sigterm_is_killed_with_its_children(tmp_path: Path) -> None:
    program = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEPS!r}]); {IGNORES_SIGTERM}"
    with supervised([python("ignores", program, stop_seconds_max=0.5)], tmp_path, os.environ) as processes:
        assert wait_until(lambda: processes.log("ignores").exists() and processes.log("ignores").read_text().count("up") == 2, 120)
        family = psutil.Process(processes.children["ignores"].process.pid)
        members = [family, *family.children()]
    assert wait_until(lambda: all(not p.is_running() or p.status() == psutil.STATUS_ZOMBIE for p in members), 120)


def test_restarts_back_off(tmp_path: Path) -> None:
    now = 0.0
    with supervised([python("weak", "raise SystemExit(3)")], tmp_path, os.environ) as processes:
        processes.clock = lambda: now
        child = processes.children["weak"]
        child.started_at = now
        waits = []
        for _ in range(7):
            child.process.wait()
            processes.restart_ended()
            waits.append(0.0 if child.restart_at is None else child.restart_at - now)
            now += waits[-1]
            processes.restart_ended()
        assert waits == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
        now += 61.0  # this one ran for a minute
        child.process.wait()
        processes.restart_ended()
        assert child.failed_starts == 1


def test_a_child_that_ends_before_it_is_ready_is_named_with_its_log(tmp_path: Path) -> None:
    command = ChildCommand("web", (sys.executable, "-c", "raise SystemExit(3)"), SOURCES, ready=lambda _pid: False)
    with (
        supervised([command], tmp_path, os.environ) as processes,
        pytest.raises(ProcessError, match=r"web ended with 3; see .*web\.log"),
    ):
        processes.await_ready(seconds=30)


def test_a_slow_start_is_waited_for_and_reported(tmp_path: Path) -> None:
    now, said_lines = 0.0, list[str]()

    def ready(_pid: int) -> bool:
        nonlocal now
        now += 20.0
        return now > 200

    command = ChildCommand("web", (sys.executable, "-c", SLEEPS), SOURCES, ready=ready)
    with supervised([command], tmp_path, os.environ, said_lines.append) as processes:
        processes.clock = lambda: now
        processes.await_ready()
    assert said_lines == [f"web is still starting; see {tmp_path / 'web.log'}"] * 3


def test_a_child_that_ends_before_it_is_ready_starts_again(tmp_path: Path) -> None:
    counter = tmp_path / "starts"
    program = "import sys; open(sys.argv[1], 'a').write('.'); len(open(sys.argv[1]).read()) < 3 and sys.exit(1); " + SLEEPS
    argv = (sys.executable, "-c", program, str(counter))
    command = ChildCommand("web", argv, SOURCES, ready=lambda _pid: counter.exists() and len(counter.read_text()) == 3)
    with supervised([command], tmp_path, os.environ) as processes:
        processes.await_ready(seconds=30)
        assert processes.children["web"].failed_starts == 2


def _kill_and_wait(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    threading.Event().wait(5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_requests_a_stop_and_the_second_interrupts(number: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_signals() as stop_requested:
        os.kill(os.getpid(), number)
        assert stop_requested.wait(5)
        with pytest.raises(KeyboardInterrupt):
            _kill_and_wait(number)
    assert signal.getsignal(signal.SIGINT) is before


def test_children_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = """
import os, sys, time; from pathlib import Path; from dispatcher.devserver.supervisor import ChildCommand, supervised
with supervised([ChildCommand("calm", (sys.executable, "-c", sys.argv[2]), 0)], Path(sys.argv[1]), os.environ) as processes:
    print(processes.children["calm"].process.pid, flush=True)
    time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", program, tmp_path, SLEEPS], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    assert said(tmp_path / "calm.log")
    parent.kill()
    parent.communicate()
    assert wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, seconds=240)


# -- ports -------------------------------------------------------------------------------------------------------------

LISTENER = """
import socket, sys, time
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
time.sleep(600)
"""


@contextmanager
def foreign_listener(port: int = 0) -> Iterator[int]:
    """Another program that listens on a port: this test."""
    with socket.create_server(("127.0.0.1", port)) as server:
        yield server.getsockname()[1]


def web_on(port: int, *argv: str) -> ChildCommand:
    """The web application, or another program in its place."""
    command = web("127.0.0.1", port)
    return replace(command, argv=argv or command.argv)


def test_a_port_in_use_is_reported_with_the_part_and_the_setting() -> None:
    with foreign_listener() as first, foreign_listener() as second:
        with pytest.raises(PortError) as caught:
            check_ports([beat(), web_on(first), flower(second, Path(), "")], patience_seconds=0)
        web_line, flower_line = str(caught.value).splitlines()
        assert web_line.startswith(f"port {first} of web is used by ")
        assert f"(process {os.getpid()})" in web_line
        assert web_line.endswith(": end that program, or set DISPATCHER_PUBLIC_URL to a URL with another port")
        assert flower_line.startswith(f"port {second} of flower is used by ")
        assert flower_line.endswith("or start with --no-flower")
    check_ports([beat(), web_on(first), flower(second, Path(), "")])


def test_ports_of_an_earlier_run_may_be_freed_late() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        timer = threading.Timer(0.3, server.close)
        timer.start()
        check_ports([web_on(server.getsockname()[1])], patience_seconds=30)
        timer.join()


def test_two_parts_cannot_have_one_port(tmp_path: Path) -> None:
    port = free_port()
    with pytest.raises(PortError, match=rf"port {port} of web is the port of another part too: set DISPATCHER_PUBLIC_URL"):
        check_ports([web_on(port), sandbox(port, tmp_path, "http://127.0.0.1")], patience_seconds=0)


def test_a_foreign_listener_does_not_make_a_child_ready(tmp_path: Path) -> None:
    with foreign_listener() as port:
        running = web_on(port, sys.executable, "-c", SLEEPS)
        with supervised([running], tmp_path, os.environ) as processes:
            assert said(processes.log("web"))
            with pytest.raises(ProcessError, match="web is not ready"):
                processes.await_ready(seconds=0.3)
        ending = web_on(port, sys.executable, "-c", "raise SystemExit(1)")
        with supervised([ending], tmp_path, os.environ) as processes, pytest.raises(PortError, match=f"port {port} of web is used"):
            processes.await_ready(seconds=1.0)


def test_a_child_whose_port_is_taken_after_its_end_waits_until_it_is_free(tmp_path: Path) -> None:
    port, lines = free_port(), list[str]()
    command = web_on(port, sys.executable, "-c", LISTENER, str(port))
    with supervised([command], tmp_path, os.environ, lines.append) as processes:
        processes.await_ready(seconds=30)
        child = processes.children["web"]
        child.process.kill()
        child.process.wait()
        with foreign_listener(port):
            processes.restart_ended()
            assert child.process.poll() == -signal.SIGKILL, "it was not started"
            assert not child.is_ready()
        assert lines[0] == "web ended with -9; it starts again now"
        assert lines[1].startswith(f"port {port} of web is used by ")
        assert lines[1].endswith("; the next attempt is in 1 s")
        processes.await_ready(seconds=30)
        assert child.is_ready()


def test_the_web_believes_forwarded_addresses_of_named_proxies_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    assert "--no-proxy-headers" in web("127.0.0.1", 8000).argv
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "10.0.0.7")
    assert "--no-proxy-headers" not in web("127.0.0.1", 8000).argv


def test_flowers_password_is_in_no_argument(tmp_path: Path) -> None:
    command = flower(free_port(), tmp_path, "local:a-password")
    assert "a-password" not in " ".join(command.argv)
    assert command.environ == {"FLOWER_BASIC_AUTH": "local:a-password"}
    assert f"--db={tmp_path / 'flower'}" in command.argv

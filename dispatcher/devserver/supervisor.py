"""The child processes of `demo` and `up`: start them, wait until they are ready, restart what crashed, stop them in order.

    with engines_kept(engines, say), supervised(commands, log_folder, environ, say) as processes:
        processes.await_ready(until=stop_requested)
        processes.watch(until=stop_requested)

Each child has a session of its own, so that a Ctrl-C in the terminal reaches only the parent. The parent then stops the children
stage by stage: first those that bring work, then those that do it, last those that the workers need. If the parent is killed with
-9, Linux sends the children a SIGTERM in its place.
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType

from dispatcher.embedded import EngineError, Engines

PR_SET_PDEATHSIG = 1
_prctl = getattr(ctypes.CDLL(None), "prctl", None)  # Linux only

BACKOFF_SECONDS_MAX = 30.0
STARTS_MAX = 5  # a child that ends so often before it is ready will not become ready: its settings are wrong
ENGINE_PAUSE_SECONDS = 1.0  # between two looks at the engines
REMIND_SECONDS = 60.0  # how often to say that a child is still starting
STEADY_SECONDS = 60.0  # a child that ran this long has recovered: its next crash counts as the first
PAUSE_SECONDS = 0.2


Say = Callable[[str], None]  # tells a person what happens


def silent(_text: str) -> None:
    """Tell nobody."""


class ProcessError(Exception):
    """A child did not become ready; the message names it and its log."""


@dataclass(frozen=True, slots=True)
class ChildCommand:
    """One child: what to run, and how. Stages stop in ascending order; children of one stage stop together."""

    name: str
    argv: tuple[str, ...]
    stage: int
    stop_seconds_max: float = 15.0
    nice: int = 0
    ready: Callable[[], bool] | None = None  # None: ready once started


@dataclass(slots=True)
class ChildProcess:
    """A running command. `crashes` counts those since it last ran for `STEADY_SECONDS`."""

    command: ChildCommand
    process: subprocess.Popen[bytes]
    started_at: float
    crashes: int = 0
    again_at: float | None = None  # it crashed, and is restarted at this time


@dataclass(slots=True)
class Supervisor:
    """Children by name. `environ` is their environment; each writes to its own log."""

    log_folder: Path
    environ: Mapping[str, str]
    say: Say = silent
    clock: Callable[[], float] = time.monotonic
    children: dict[str, ChildProcess] = field(default_factory=dict)

    def start(self, command: ChildCommand) -> None:
        """Start a child and register it under its name."""
        self.children[command.name] = ChildProcess(command, self._open(command), self.clock())

    def log(self, name: str) -> Path:
        """The log of a child."""
        return self.log_folder / f"{name}.log"

    def await_ready(self, seconds: float = math.inf, until: threading.Event | None = None) -> None:
        """Return when all are ready, or `until` is set. Restarts what ends.

        Raises `ProcessError` when one is not ready in `seconds`, or ends `STARTS_MAX` times before it is ready.
        """
        deadline = self.clock() + seconds
        for child in self.children.values():
            ready, remind_at = child.command.ready, self.clock() + REMIND_SECONDS
            while ready is not None and not ready():
                if until is not None and until.is_set():
                    return
                self.restart_ended()
                if child.crashes >= STARTS_MAX or self.clock() > deadline:
                    code = child.process.poll()
                    what = "is not ready" if code is None else f"ended with {code}"
                    raise ProcessError(f"{child.command.name} {what}; see {self.log(child.command.name)}")
                if self.clock() > remind_at:
                    self.say(f"{child.command.name} is still starting; see {self.log(child.command.name)}")
                    remind_at += REMIND_SECONDS
                time.sleep(PAUSE_SECONDS / 4)

    def restart_ended(self) -> None:
        """Restart children that have ended: at once the first time, then after 1, 2, 4 … seconds."""
        for child in self.children.values():
            now = self.clock()
            if child.again_at is None and child.process.poll() is not None:
                child.crashes = 0 if now - child.started_at > STEADY_SECONDS else child.crashes
                wait = min(BACKOFF_SECONDS_MAX, 2.0 ** (child.crashes - 1) if child.crashes else 0.0)
                child.again_at = now + wait
                child.crashes += 1
                self.say(f"{child.command.name} ended with {child.process.returncode}; it starts again {_after(wait)}")
            if child.again_at is not None and now >= child.again_at:
                child.process, child.started_at, child.again_at = self._open(child.command), now, None

    def watch(self, until: threading.Event) -> None:
        """Restart what ends, until `until` is set."""
        while not until.wait(PAUSE_SECONDS):
            self.restart_ended()

    def stop(self) -> None:
        """Stop stage by stage with SIGTERM (a Celery worker finishes its tasks first), and kill what does not end in time."""
        for stage in sorted({child.command.stage for child in self.children.values()}):
            stopping = [child for child in self.children.values() if child.command.stage == stage]
            for child in stopping:
                child.process.terminate()
            deadline = self.clock() + max(child.command.stop_seconds_max for child in stopping)
            for child in stopping:
                _end(child.process, max(0.0, deadline - self.clock()))
        self.children.clear()

    def _open(self, command: ChildCommand) -> subprocess.Popen[bytes]:
        with self.log(command.name).open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - our own commands
                command.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(self.environ),
                start_new_session=True,
                preexec_fn=partial(_in_child, command.nice),  # noqa: PLW1509 - two system calls, looked up before the fork
            )


@contextmanager
def engines_kept(engines: Engines, say: Say) -> Iterator[None]:
    """Restart engines that end, as long as the block lasts and as often as it takes. In a thread: the recovery of a large database
    must not delay the restart of a child."""
    end = threading.Event()
    thread = threading.Thread(target=_keep_engines, args=(engines, say, end), name="engines")
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def _keep_engines(engines: Engines, say: Say, end: threading.Event) -> None:
    pause = ENGINE_PAUSE_SECONDS
    while not end.wait(pause):
        try:
            for name in engines.restart_dead():
                say(f"{name} ended; it is started again")
            pause = ENGINE_PAUSE_SECONDS
        except (EngineError, OSError) as error:
            pause = min(BACKOFF_SECONDS_MAX, 2 * pause)
            say(f"{error}\nthe next attempt is in {pause:.0f} s")


@contextmanager
def supervised(
    commands: Sequence[ChildCommand], log_folder: Path, environ: Mapping[str, str], say: Say = silent
) -> Iterator[Supervisor]:
    """Run `commands`, started in their order, as long as the block lasts; stopped by stages, also when it raises."""
    log_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    processes = Supervisor(log_folder, environ, say)
    try:
        for command in commands:
            processes.start(command)
        yield processes
    finally:
        processes.stop()


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets, instead of an interruption; the second one interrupts."""
    stop_requested = threading.Event()

    def request(number: int, frame: FrameType | None) -> None:
        if stop_requested.is_set():
            signal.default_int_handler(number, frame)
        stop_requested.set()

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop_requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# -- commands of this program ------------------------------------------------------------------------------------------

SOURCES, WORKERS, SERVERS = 0, 1, 2  # stages: what brings work, what does it, what the workers need until the end


def worker(name: str, lanes: Sequence[str], concurrency: int, nice: int = 0) -> ChildCommand:
    """A Celery worker. Its warm shutdown may last as long as the longest task."""
    options = ("--queues", ",".join(lanes), "--concurrency", str(concurrency), "--hostname", f"{name}@%h", "--loglevel", "INFO")
    quiet = ("--without-gossip", "--without-mingle")  # these exchange messages between workers that we do not use
    return ChildCommand(name, (*_celery(), "worker", *options, *quiet), WORKERS, stop_seconds_max=550.0, nice=nice)


def beat() -> ChildCommand:
    """Celery's scheduler; exactly one per installation. It needs no pid file: the engines' lock and the parent ensure that."""
    return ChildCommand("beat", (*_celery(), "beat", "--pidfile", "", "--loglevel", "INFO"), SOURCES)


def flower(port: int) -> ChildCommand:
    """Celery's dashboard, on this machine only."""
    return ChildCommand("flower", (*_celery(), "flower", "--address=127.0.0.1", f"--port={port}"), SOURCES)


def web(host: str, port: int) -> ChildCommand:
    """API, webhooks, preference centre and console."""
    where = ("--host", host, "--port", str(port), "--no-access-log")  # an access log would hold unsubscribe tokens
    argv = (sys.executable, "-m", "uvicorn", "--factory", "dispatcher.web:app", *where)
    return ChildCommand("web", argv, SOURCES, ready=partial(_listens, port))


def sandbox(port: int, state: Path, public_url: str) -> ChildCommand:
    """The doubles of all providers, which report to our webhooks. Stops last, because workers may still be sending."""
    options = ("--port", str(port), "--state", str(state), "--dispatcher", public_url)
    argv = (sys.executable, "-m", "channels.sandbox", *options)
    return ChildCommand("sandbox", argv, SERVERS, ready=partial(_listens, port))


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _celery() -> tuple[str, ...]:
    return (sys.executable, "-m", "celery", "-A", "dispatcher")


def _in_child(nice: int) -> None:
    if _prctl is not None:
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.nice(nice)


def _after(seconds: float) -> str:
    return f"in {seconds:.0f} s" if seconds else "now"


def _end(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its session is its own: its children go with it
        process.wait()

"""The child processes of `demo` and `up`: start them, wait until they are ready, restart those that end, stop them in order.

    with engines_kept(engines, say), supervised(commands, log_folder, environ, say) as processes:
        processes.await_ready(until=stop_requested)
        processes.watch(until=stop_requested)

Each child runs in its own session, so that a Ctrl-C in the terminal reaches only the parent. The parent then stops the children by
stage: first those that create work, then the workers, last the servers that the workers need. If the parent is killed with -9,
Linux sends each child a SIGTERM.
"""

from __future__ import annotations

import ctypes
import errno
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import FrameType

import psutil

from dispatcher.embedded import EngineError, Engines

PR_SET_PDEATHSIG = 1
_prctl = getattr(ctypes.CDLL(None), "prctl", None)  # Linux only

BACKOFF_SECONDS_MAX = 30.0
FAILED_STARTS_MAX = 5  # a child that fails to start this often never becomes ready: its settings are wrong
ENGINE_PAUSE_SECONDS = 1.0  # between two checks of the engines
REMIND_SECONDS = 60.0  # how often to report that a child is still starting
STEADY_SECONDS = 60.0  # after this time the count of failed starts begins again at zero
PAUSE_SECONDS = 0.2  # between two checks of the children
PORT_PATIENCE_SECONDS = 3.0  # how long the children of an earlier run may take to end

Say = Callable[[str], None]  # reports to a person what happens


def silent(_text: str) -> None:
    """Report nothing."""


class ProcessError(Exception):
    """A child did not become ready; the message names it and its log."""


class PortError(ProcessError):
    """A child cannot listen on its port; the message names both, and what to change."""


@dataclass(frozen=True, slots=True)
class ListenPort:
    """A TCP port of this machine that a child listens on. `remedy` tells a person how to choose another one."""

    number: int
    remedy: str


@dataclass(frozen=True, slots=True)
class ChildCommand:
    """One child: what to run, and how. Stages stop in ascending order; children of one stage stop together."""

    name: str
    argv: tuple[str, ...]
    stage: int
    stop_seconds_max: float = 15.0
    nice: int = 0
    port: ListenPort | None = None
    environ: Mapping[str, str] = field(default_factory=dict)  # in addition to that of all children
    ready: Callable[[int], bool] | None = None  # is given the process id; None: ready once started


@dataclass(slots=True)
class ChildProcess:
    """A running command. `failed_starts` counts its ends, and the starts that waited for a busy port, since it last ran for
    `STEADY_SECONDS`."""

    command: ChildCommand
    process: subprocess.Popen[bytes]
    started_at: float
    failed_starts: int = 0
    restart_at: float | None = None  # set while it does not run

    def is_ready(self) -> bool:
        """Whether it runs and its command's own check passes."""
        check = self.command.ready
        return check is None or (self.process.poll() is None and check(self.process.pid))


@dataclass(slots=True)
class Supervisor:
    """The children, by name. `environ` is their environment; each writes its own log."""

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
        """Return when all are ready at the same time, or `until` is set. Restarts children that end.

        Raises `ProcessError` when one is not ready in `seconds`, or fails to start `FAILED_STARTS_MAX` times.
        """
        now = self.clock()
        deadline, remind_at = now + seconds, now + REMIND_SECONDS
        while unready := [child for child in self.children.values() if not child.is_ready()]:
            if until is not None and until.is_set():
                return
            self.restart_ended()
            for child in unready:
                if child.failed_starts >= FAILED_STARTS_MAX or self.clock() > deadline:
                    raise self._start_error(child)
            if self.clock() > remind_at:
                for child in unready:
                    self.say(f"{child.command.name} is still starting; see {self.log(child.command.name)}")
                remind_at += REMIND_SECONDS
            time.sleep(PAUSE_SECONDS / 4)

    def restart_ended(self) -> None:
        """Restart children that have ended: at once the first time, then after 1, 2, 4 … seconds.

        A child whose port another program took meanwhile waits until it is free.
        """
        for child in self.children.values():
            now = self.clock()
            if child.restart_at is None and child.process.poll() is not None:
                child.failed_starts = 0 if now - child.started_at > STEADY_SECONDS else child.failed_starts
                again = self._schedule_restart(child, now)
                self.say(f"{child.command.name} ended with {child.process.returncode}; it starts again {again}")
            if child.restart_at is None or now < child.restart_at:
                continue
            if (fault := port_fault(child.command)) is not None:
                self.say(f"{fault}; the next attempt is {self._schedule_restart(child, now)}")
            else:
                child.process, child.started_at, child.restart_at = self._open(child.command), now, None

    def _schedule_restart(self, child: ChildProcess, now: float) -> str:
        wait = min(BACKOFF_SECONDS_MAX, 2.0 ** (child.failed_starts - 1) if child.failed_starts else 0.0)
        child.restart_at = now + wait
        child.failed_starts += 1
        return f"in {wait:.0f} s" if wait else "now"

    def _start_error(self, child: ChildProcess) -> ProcessError:
        name, code = child.command.name, child.process.poll()
        if code is None:
            return ProcessError(f"{name} is not ready; see {self.log(name)}")
        if (fault := port_fault(child.command)) is not None:
            return PortError(fault)
        return ProcessError(f"{name} ended with {code}; see {self.log(name)}")

    def watch(self, until: threading.Event) -> None:
        """Restart children that end, until `until` is set."""
        while not until.wait(PAUSE_SECONDS):
            self.restart_ended()

    def stop(self) -> None:
        """Stop the children by stage: SIGTERM, on which a Celery worker finishes its tasks, then SIGKILL."""
        for stage in sorted({child.command.stage for child in self.children.values()}):
            stopping = [child for child in self.children.values() if child.command.stage == stage]
            for child in stopping:
                child.process.terminate()
            deadline = self.clock() + max(child.command.stop_seconds_max for child in stopping)
            for child in stopping:
                _end(child.process, max(0.0, deadline - self.clock()))
        self.children.clear()

    def _open(self, command: ChildCommand) -> subprocess.Popen[bytes]:
        with os.fdopen(os.open(self.log(command.name), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as log:
            return subprocess.Popen(  # noqa: S603 - our own commands
                command.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**self.environ, **command.environ},
                start_new_session=True,
                preexec_fn=partial(_in_child, command.nice),  # noqa: PLW1509 - two system calls; the function was found before the fork
            )


@contextmanager
def engines_kept(engines: Engines, say: Say) -> Iterator[None]:
    """Restart engines that end, as long as the block lasts. In a thread, because the recovery of a large database must not delay
    the restart of a child."""
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
    """Run `commands` as long as the block lasts. Starts them in their order, and stops them by stage, also after an error."""
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
    """An event that the first Ctrl-C or SIGTERM sets. The second one raises KeyboardInterrupt."""
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

FLOWER_OPTIONS = (
    "--persistent=True",
    "--state_save_interval=60000",  # milliseconds; Flower's own default saves its history only when it is stopped
    "--max_tasks=10000",  # 10 MB, written each time
    "--tasks_columns=name,args,state,received,runtime,worker,uuid",  # the arguments say which chunk of which campaign
)

SOURCES, WORKERS, SERVERS = 0, 1, 2  # stages, in the order of stopping: they create work, do it, are needed by the workers


def worker(name: str, lanes: Sequence[str], concurrency: int, nice: int = 0) -> ChildCommand:
    """A Celery worker. It drains within a minute or two; a hanging task may take as long as its time limit."""
    options = ("--queues", ",".join(lanes), "--concurrency", str(concurrency), "--hostname", f"{name}@%h", "--loglevel", "INFO")
    quiet = ("--without-gossip", "--without-mingle")  # we do not use the messages that workers exchange
    return ChildCommand(name, (*_celery(), "worker", *options, *quiet), WORKERS, stop_seconds_max=550.0, nice=nice)


def beat() -> ChildCommand:
    """Celery's scheduler. There must be one per installation; the engines' lock and the parent ensure that, not a pid file."""
    return ChildCommand("beat", (*_celery(), "beat", "--pidfile", "", "--loglevel", "INFO"), SOURCES)


def with_metrics(command: ChildCommand, port: int) -> ChildCommand:
    """The same child, which serves its metrics on this port."""
    remedy = "set DISPATCHER_METRICS_PORT to another number"
    return replace(command, port=ListenPort(port, remedy), environ={"DISPATCHER_METRICS_PORT": str(port)})


def flower(port: int, home: Path, login: str, host: str = "127.0.0.1") -> ChildCommand:
    """Celery's dashboard, with its history in `home`. Nothing waits for it, because nothing needs it.

    `login` is "user:password". Whoever signs in can stop tasks and workers, so nobody gets in without it. It is passed in the
    environment: the arguments of a process can be read by everybody on the machine.
    """
    where = (f"--address={host}", f"--port={port}", f"--db={home / 'flower'}")
    argv = (sys.executable, "-m", "dispatcher.devserver.flower_process", *where, *FLOWER_OPTIONS)
    remedy = ListenPort(port, "start with --no-flower")
    return ChildCommand("flower", argv, SOURCES, port=remedy, environ={"FLOWER_BASIC_AUTH": login})


def web(host: str, port: int) -> ChildCommand:
    """API, webhooks, preference centre and console."""
    where = ("--host", host, "--port", str(port), "--no-access-log")  # the program writes its own
    # By default uvicorn believes X-Forwarded-For of each program on this machine, but failed sign-ins are counted by address.
    proxies = () if os.environ.get("FORWARDED_ALLOW_IPS") else ("--no-proxy-headers",)
    argv = (sys.executable, "-m", "uvicorn", "--factory", "dispatcher.web:app", *where, *proxies)
    remedy = "set DISPATCHER_PUBLIC_URL to a URL with another port"
    return ChildCommand("web", argv, SOURCES, port=ListenPort(port, remedy), ready=partial(_listens, port))


def sandbox(port: int, state: Path, public_url: str) -> ChildCommand:
    """The doubles of all providers, which call our webhooks. It stops last, because workers may still be sending."""
    options = ("--port", str(port), "--state", str(state), "--dispatcher", public_url)
    argv = (sys.executable, "-m", "channels.sandbox", *options)
    remedy = "set DISPATCHER_SANDBOX_URL to a URL with another port"
    return ChildCommand("sandbox", argv, SERVERS, port=ListenPort(port, remedy), ready=partial(_listens, port))


def _listens(port: int, pid: int) -> bool:
    """Whether this process itself listens on the port. A connection would succeed too where another program listens."""
    with suppress(psutil.Error):
        sockets = psutil.Process(pid).net_connections("tcp")
        return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in sockets)
    return False


# -- ports -------------------------------------------------------------------------------------------------------------


def check_ports(commands: Sequence[ChildCommand], patience_seconds: float = PORT_PATIENCE_SECONDS) -> None:
    """Raise `PortError` where a port cannot be listened on, or two children have the same; one line for each.

    Waits for a while: after a parent was killed, its children still listen until they have ended.
    """
    deadline = time.monotonic() + patience_seconds
    while (faults := _port_faults(commands)) and time.monotonic() < deadline:
        time.sleep(PAUSE_SECONDS)
    if faults:
        raise PortError("\n".join(faults))


def _port_faults(commands: Sequence[ChildCommand]) -> list[str]:
    numbers = Counter(command.port.number for command in commands if command.port is not None)
    faults = [
        f"port {command.port.number} of {command.name} is the port of another part too: {command.port.remedy}"
        if command.port is not None and numbers[command.port.number] > 1
        else port_fault(command)
        for command in commands
    ]
    return [fault for fault in faults if fault is not None]


def port_fault(command: ChildCommand) -> str | None:
    """Why this child cannot listen on its port now, and what to change; None where it can."""
    if command.port is None:
        return None
    number = command.port.number
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections of an earlier run do not count
        try:
            probe.bind(("127.0.0.1", number))
        except OSError as error:
            why = f"is used by {_listener(number)}" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
            return f"port {number} of {command.name} {why}: end that program, or {command.port.remedy}"
    return None


def _listener(port: int) -> str:
    """The program that listens on a port, as far as this user may see it."""
    with suppress(psutil.Error):
        for each in psutil.net_connections("tcp"):
            if each.status == psutil.CONN_LISTEN and each.laddr.port == port and each.pid is not None:
                return f"{psutil.Process(each.pid).name()} (process {each.pid})"
    return "another program"


def _celery() -> tuple[str, ...]:
    return (sys.executable, "-m", "celery", "-A", "dispatcher", "--quiet")  # no banner: each line of a log is JSON


def _in_child(nice: int) -> None:
    if _prctl is not None:
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.umask(0o077)  # what a child writes, such as the schedule of beat, is for this account only
    os.nice(nice)


def _end(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # it leads its own process group: its children are killed too
        process.wait()

"""Shared by both engines: find their processes, and wait until they start, answer or exit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

PAUSE_SECONDS = 0.02
LAUNCHES_MAX = 5  # of one start


class EngineError(Exception):
    """An engine cannot be started or stopped. The message says which, why, and what to do."""


def processes(name: str, folder: Path) -> list[psutil.Process]:
    """The processes of the engine in `folder`, with its children: those with this name and this working directory.

    They come from the process table: pid files survive their processes, and pids are reused, often so in containers.
    """
    return [process for process in psutil.process_iter() if _is_engine(process, name, folder)]


def find_or_launch(
    name: str, server: Callable[[], psutil.Process | None], answers: Callable[[], bool], launch: Callable[[], None], seconds: float
) -> bool:
    """Whether an engine answers within `seconds`: the running one, or a new one if none runs or the running one exits.

    An engine may be killed at any moment, also between two looks or just after its launch. Raises `EngineError` at once for one
    that a signal has stopped: it does not answer until another signal lets it go on.
    """
    launches = 0

    def answers_or_launch() -> bool:
        nonlocal launches
        if answers():
            return True
        process = server()
        if process is not None and is_stopped(process):
            raise EngineError(
                f"{name} is frozen: a signal has stopped process {process.pid}; `kill -CONT {process.pid}` lets it go on"
            )
        if process is None:
            if launches == LAUNCHES_MAX:
                raise EngineError("it exits as soon as it is started")
            launches += 1
            launch()
        return False

    return wait_until(answers_or_launch, seconds)


def is_alive(process: psutil.Process | None) -> bool:
    """Whether this very process runs. Cheap: reads one file."""
    return process is not None and process.is_running() and _is_alive(process)


def is_stopped(process: psutil.Process) -> bool:
    """Whether a signal has stopped it."""
    try:
        return bool(process.status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False


def wait_for_exit(processes: Iterable[psutil.Process], seconds: float) -> bool:
    """Whether all processes exit within `seconds`. A zombie counts as exited."""
    return wait_until(lambda: not any(process.is_running() and _is_alive(process) for process in processes), seconds)


def wait_until(done: Callable[[], bool], seconds: float) -> bool:
    """Poll `done` until it is true, for at most `seconds`. Returns its last result."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return done()
        time.sleep(PAUSE_SECONDS)
    return True


def tail(log: Path, lines: int = 8) -> str:
    """The last lines of a log, for an error message."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else "(no log)"


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _is_engine(process: psutil.Process, name: str, folder: Path) -> bool:
    try:
        return process.name().startswith(name) and _is_alive(process) and Path(process.cwd()) == folder
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # exited in the meantime, or another user's process
        return False

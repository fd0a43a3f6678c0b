"""What the two engines have in common: processes that answer, or don't yet, or are gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

PAUSE_SECONDS = 0.02


class EngineError(Exception):
    """An engine can't be started or stopped; the message says which, why, and what to do."""


def processes(name: str, folder: Path) -> list[psutil.Process]:
    """The processes of the engine in `folder`, its children too: those of that name that work there.

    The kernel knows best: pid files outlive their processes, and pids come back, most of all in a container.
    """
    return [process for process in psutil.process_iter() if _is_engine(process, name, folder)]


def find_or_launch(running: Callable[[], bool], answers: Callable[[], bool], launch: Callable[[], None], seconds: float) -> bool:
    """Whether an engine answers within `seconds`: one that runs or, if none does or goes on, a new one."""
    settled = wait_until(lambda: answers() or not running(), seconds)
    if settled and not running():
        launch()
    return wait_until(lambda: answers() or not running(), seconds) and answers()


def wait_for_exit(processes: Iterable[psutil.Process], seconds: float) -> bool:
    """Whether all have ended within `seconds`; a process that nobody has buried yet has ended."""
    return wait_until(lambda: not any(process.is_running() and _is_alive(process) for process in processes), seconds)


def wait_until(done: Callable[[], bool], seconds: float) -> bool:
    """Look again and again until `done`, at most `seconds` long; the last look is the answer."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return done()
        time.sleep(PAUSE_SECONDS)
    return True


def tail(log: Path, lines: int = 8) -> str:
    """The last words of a log, for a person who asks why."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else "(no log)"


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _is_engine(process: psutil.Process, name: str, folder: Path) -> bool:
    try:
        return process.name().startswith(name) and _is_alive(process) and Path(process.cwd()) == folder
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # gone meanwhile, or another user's
        return False

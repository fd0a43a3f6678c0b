"""The cost of a run: processor time by part, broker commands, memory of the workers. Linux only."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from redis import Redis

Snapshot = Mapping[str, float]  # part -> processor seconds so far; "commands" -> the broker's commands so far


@dataclass(frozen=True, slots=True)
class ProcessMeters:
    """The measured processes, by the ids of their parents."""

    postgres: int
    sink: int
    broker_url: str = field(repr=False)

    def read(self, worker: int) -> Snapshot:
        """All totals so far, with the worker of this process id."""
        with Redis(unix_socket_path=urlsplit(self.broker_url).path) as broker:
            info = broker.info()
        assert isinstance(info, dict)
        return {
            "workers": cpu_seconds(worker),
            "postgres": cpu_seconds(self.postgres),
            "broker": float(info["used_cpu_sys"]) + float(info["used_cpu_user"]),
            "sink": cpu_seconds(self.sink),
            "commands": float(info["total_commands_processed"]),
        }


def between(before: Snapshot, after: Snapshot) -> dict[str, float]:
    """The difference of two snapshots."""
    return {name: after[name] - before[name] for name in before}


def cpu_seconds(pid: int) -> float:
    """Processor seconds of a process and its descendants, also of those that ended."""
    total = 0.0
    parent = psutil.Process(pid)
    for process in (parent, *parent.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def pid_of_postgres(home: Path) -> int:
    """The postmaster's process id."""
    return int((home / "postgres" / "postmaster.pid").read_text().split()[0])


def pss_bytes(pid: int) -> int:
    """The proportional set size of a process; 0 if it ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


@dataclass(slots=True)
class PeakMemory:
    """The largest PSS of a single worker process so far."""

    bytes: int = 0


@contextmanager
def watch_memory(worker: int, every_seconds: float = 0.5) -> Iterator[PeakMemory]:
    """Sample the worker and its descendants while the block runs."""
    peak, stop = PeakMemory(), threading.Event()

    def sample() -> None:
        while True:
            with suppress(psutil.NoSuchProcess):
                below = psutil.Process(worker).children(recursive=True)
                peak.bytes = max(peak.bytes, pss_bytes(worker), *(pss_bytes(child.pid) for child in below))
            if stop.wait(every_seconds):
                return

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()

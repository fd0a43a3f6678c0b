"""Clocks of single processes that a fault can move, by libfaketime. Only the date jumps: the monotonic clocks go on."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

READ_SECONDS = 1  # how often a process reads its file


@dataclass(frozen=True, slots=True)
class MovableClock:
    """The clock of the processes that start with `environ`. The file holds its difference to the system's clock."""

    file: Path

    def move(self, seconds: int) -> None:
        """Set the difference to the system's clock. Takes effect within `READ_SECONDS`."""
        draft = self.file.with_suffix(".new")
        draft.write_text(f"{seconds:+d}\n")
        draft.replace(self.file)

    @property
    def environ(self) -> tuple[str, ...]:
        """For `env`: the variables that put this clock in the place of the system's."""
        return (
            f"LD_PRELOAD={_library()}",
            f"FAKETIME_TIMESTAMP_FILE={self.file}",
            f"FAKETIME_CACHE_DURATION={READ_SECONDS}",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
        )


def movable_clock(file: Path) -> MovableClock:
    """A clock that shows the system's time until it is moved. Raises `OSError` where the library does not work on this machine."""
    file.parent.mkdir(exist_ok=True)
    clock = MovableClock(file)
    clock.move(10**6)
    program = "import time; print(time.time())"
    here = subprocess.run((sys.executable, "-c", program), capture_output=True, check=True)
    moved = subprocess.run(("/usr/bin/env", *clock.environ, sys.executable, "-c", program), capture_output=True, check=False)
    clock.move(0)
    if moved.returncode or float(moved.stdout) < float(here.stdout) + 10**5:
        raise OSError(f"libfaketime does not work here: {moved.stderr.decode().strip()[-200:]}")
    return clock


def _library() -> Path:
    package = find_spec("libfaketime")
    if package is None or package.origin is None:
        raise OSError("libfaketime is not installed")
    return Path(package.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"

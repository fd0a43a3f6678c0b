"""A disk of its own for PostgreSQL's data, which a fault can fill. Needs Linux and the right to mount."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage

SIZE_BYTES = 8 * 1024**3  # a limit; memory is used only for what is written


@dataclass(frozen=True, slots=True)
class LedgerDisk:
    """A file system in memory, mounted over the data folder of PostgreSQL."""

    folder: Path

    def fill(self) -> None:
        """Leave no free space."""
        self._resize(disk_usage(self.folder).used)

    def empty(self) -> None:
        """Give back the free space."""
        self._resize(SIZE_BYTES)

    def _resize(self, size_bytes: int) -> None:
        _run("mount", "-o", f"remount,size={size_bytes}", str(self.folder))


@contextmanager
def ledger_disk(data: Path) -> Iterator[LedgerDisk]:
    """Move a data folder, whose server is stopped, to a disk of its own while the block runs. Raises `OSError` where it cannot."""
    disk = data.with_name("ledger-disk")
    disk.mkdir()
    with ExitStack() as stack:
        _run("mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "ledger-disk", str(disk))
        stack.callback(_run, "umount", "--lazy", str(disk))
        _run("cp", "-a", f"{data}/.", str(disk))
        _run("mount", "--bind", str(disk), str(data))
        stack.callback(_run, "umount", "--lazy", str(data))
        yield LedgerDisk(disk)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.decode().strip()}")

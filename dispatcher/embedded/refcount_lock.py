"""The rule by which several processes share one engine: first in starts it, last out stops it.

Being a user means holding a shared file lock, which the kernel takes back from a process that dies, however it dies. So
there is no list of users to keep true, and no dead user keeps an engine alive. A second lock, the gate, lets one
process at a time come or go. Both are `flock`s and belong to the open file: forked children share their parent's use, and if
the parent is killed, they keep it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

T = TypeVar("T")


@contextmanager
def shared_resource(lock: Path, start: Callable[[], T], stop: Callable[[], None]) -> Iterator[tuple[T, Callable[[], T]]]:
    """Use what `start` starts, while the block runs, together with everyone else who names the same `lock`.

    Yields what `start` returned, and a function that calls it again behind the gate. `start` must find and adopt what
    already runs: it is called by each who comes, in turn. `stop` is called by the last who leaves, also if `start`
    raised.
    """
    user = os.getpid()
    gate = lock.with_name(f"{lock.name}.gate")

    def start_alone() -> T:
        with _exclusive(gate):
            return start()

    with _open(lock) as users:
        with _exclusive(gate):
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield start_alone(), start_alone
        finally:
            if os.getpid() == user:  # a forked child that comes by here is not the one to end it
                with _exclusive(gate):
                    if _is_last_user(users):
                        stop()
                    users.close()


@contextmanager
def _exclusive(gate: Path) -> Iterator[None]:
    with _open(gate) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _open(lock: Path) -> IO[bytes]:
    file = os.fdopen(os.open(lock, os.O_RDWR | os.O_CREAT, 0o600), "wb")
    if os.geteuid() == 0:  # root at work in an ordinary user's folder: leave no file there that its owner can't open
        folder = lock.parent.stat()
        os.fchown(file.fileno(), folder.st_uid, folder.st_gid)
    return file


def _is_last_user(users: IO[bytes]) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

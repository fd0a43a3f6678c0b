"""Reference counting across processes: the first user of an engine starts it, the last one stops it.

A user holds a shared file lock. The kernel releases it when the process dies, in whatever way, so there is no list of users
to maintain, and a dead user does not keep an engine running. A second lock, the gate, lets one process at a time start or
stop to be a user. Both are `flock`s and belong to the open file: forked children share their parent's lock, and keep it if
the parent is killed.
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
    """Share a resource with all processes that use the same `lock`, while the block runs.

    Yields the result of `start`, and a function that calls `start` again under the gate lock. Each user calls `start`, one
    after the other, so it must reuse a resource that is running already. The last user calls `stop`, even if `start` raised.
    """
    user = os.getpid()
    gate = lock.with_name(f"{lock.name}.gate")

    def start_exclusively() -> T:
        with _exclusive(gate):
            return start()

    with _open(lock) as users:
        with _exclusive(gate):
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield start_exclusively(), start_exclusively
        finally:
            if os.getpid() == user:  # not in a forked child that leaves the block
                with _exclusive(gate):
                    if _is_last_user(users):
                        stop()
                    users.close()


@contextmanager
def without_users(lock: Path) -> Iterator[bool]:
    """Whether nobody uses the resource; if so, who wants to use it waits until the block ends."""
    with _open(lock) as users:
        yield _is_last_user(users)


@contextmanager
def _exclusive(gate: Path) -> Iterator[None]:
    with _open(gate) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _open(lock: Path) -> IO[bytes]:
    file = os.fdopen(os.open(lock, os.O_RDWR | os.O_CREAT, 0o600), "wb")
    if os.geteuid() == 0:  # root in an ordinary user's folder: the owner must be able to open the file
        folder = lock.parent.stat()
        os.fchown(file.fileno(), folder.st_uid, folder.st_gid)
    return file


def _is_last_user(users: IO[bytes]) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

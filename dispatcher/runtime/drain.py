"""Whether this worker drains: it was asked to stop, starts no task, and gives back what it has not handed to a provider.

Only the parent of a worker gets the signal, and its children do the work. So the flag is in memory that they share: children are
forked after this module was imported.
"""

from __future__ import annotations

from mmap import mmap

_flag = mmap(-1, 1)


def begin() -> None:
    """Make this worker drain, with all its children. Safe in a signal handler."""
    _flag[0] = 1


def is_draining() -> bool:
    """Whether this worker drains."""
    return _flag[0] == 1


def never() -> bool:
    """The answer of processes that are no workers: they do not drain."""
    return False

"""Until when the messages of a claim may be handed off, and which of them have been started.

A claim gives one worker the right to send until a deadline. The worker may be frozen or slow meanwhile, so each hand-off asks
`may_start_sending` at the last possible moment: just before the HTTP client writes the request body. After the deadline, nothing
more of the claim is sent.

The clock counts the time that a machine sleeps, where the system has such a clock: a laptop that wakes must not send what was
claimed before it fell asleep.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

MonotonicClock: TypeAlias = Callable[[], float]


def boot_seconds() -> float:
    """Seconds since the machine started, sleep included. Never goes back, whatever happens to the date."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)  # Linux only
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def _always() -> bool:
    return True


def _never() -> bool:
    return False


@dataclass(slots=True)
class SendWindow:
    """The time in which the messages of one claim may be handed off. For one thread at a time, or for several.

    `started` holds the ids of messages of which a byte may have been sent. `on_first` is called once, before the first of them: if
    it returns False, nothing is sent. `is_draining` closes the window early: the process was asked to stop.
    """

    deadline: float  # time on `monotonic_clock`
    monotonic_clock: MonotonicClock = boot_seconds
    on_first: Callable[[], bool] = _always
    started: set[str] = field(default_factory=set)
    last_started_at: float | None = None  # on `monotonic_clock`: when a message was last started
    is_draining: Callable[[], bool] = _never

    def is_open(self) -> bool:
        """Whether a message may still be handed off now."""
        return self.monotonic_clock() < self.deadline and not self.is_draining()

    def may_start_sending(self, ids: Iterable[str]) -> bool:
        """Whether these messages may be sent: asked before each part of them. If so, they count as started.

        A process that drains sends what it has started to its end: half a message would be unresolved.
        """
        ids = tuple(ids)
        has_time = self.monotonic_clock() < self.deadline
        if not has_time or (self.is_draining() and not self.started.issuperset(ids)):
            return False
        if not self.started and not self.on_first():
            return False
        self.started.update(ids)
        now = self.monotonic_clock()  # once more: `on_first` may have taken its time
        if now >= self.deadline:
            return False
        self.last_started_at = now
        return True


def window_of(seconds: float) -> SendWindow:
    """A window that is open for so many seconds from now."""
    return SendWindow(boot_seconds() + seconds)

"""When requests to one server may start: the first one alone, the others once a connection is open. Pure.

libcurl's own option for this, PIPEWAIT, is not enough. It lets requests wait until the first connection is open, so that one HTTP/2
connection can carry all. But where the server then speaks HTTP/1.1, libcurl wakes the others only after the first *response*
(measured with libcurl 8.23: the first of 48 requests was slow, and the other 47 timed out without having been sent).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

STREAMS_MAX = 100  # libcurl's limit for a connection on which the server has not stated its own


@dataclass(slots=True)
class ConnectionGate:
    """The requests to one server: those in flight are counted, the others wait here.

    `multiplexes` is what its last response has shown: whether it speaks HTTP/2; None before the first one. Nothing waits for longer
    than `wait_seconds_max`: the negotiation may be slow, or its packets lost.
    """

    wait_seconds_max: float
    multiplexes: bool | None = None
    is_open: bool = False  # a connection has been opened, or found in the pool, since something was in flight
    in_flight: int = 0
    waiting: deque[Any] = field(default_factory=deque)
    _waiting_since: float = 0.0

    def wait(self, request: Any, now: float) -> None:
        """Put a request at the end of the queue."""
        if not self.waiting:
            self._waiting_since = now
        self.waiting.append(request)

    def admits(self, now: float) -> bool:
        """Whether the next request may start."""
        if not self.in_flight or self.multiplexes is False or now >= self.waits_until:
            return True
        return self.is_open and (self.multiplexes is True or self.in_flight < STREAMS_MAX)

    @property
    def waits_until(self) -> float:
        """When those that wait now are admitted in any case."""
        return self._waiting_since + self.wait_seconds_max

    @property
    def may_share(self) -> bool:
        """Whether the next request should wait for a connection that is being opened: only where that can carry it too."""
        return self.is_open and self.multiplexes is True

    def end(self, multiplexes: bool | None) -> None:
        """A request has ended; `multiplexes` is None where it had no response."""
        self.in_flight -= 1
        self.is_open = self.is_open and self.in_flight > 0
        if multiplexes is not None:
            self.multiplexes = multiplexes

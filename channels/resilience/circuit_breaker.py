"""Circuit breaker: 5 failures in a row open it for 10 seconds.

While it is open, messages are not sent and end in `Throttled`, which costs no attempt.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from channels.alerts import alert
from channels.base import Outbound, Provider, Result, StaleClaim, Throttled, Unavailable, Uncertain
from channels.http_adapter import Clock
from channels.measurements import observer
from channels.resilience.wrapper import ProviderWrapper, Results
from channels.send_window import SendWindow


class CircuitBreaker(ProviderWrapper):
    """Stops requests for `pause_seconds` after `failures_max` requests in a row ended in `Unavailable` or `Uncertain`.

    After the pause one message is sent as a probe. Mails that shared a request count as one failure.
    """

    def __init__(self, inner: Provider, now: Clock, failures_max: int = 5, pause_seconds: float = 10.0) -> None:
        super().__init__(inner)
        self._now, self._failures_max, self._pause_seconds = now, failures_max, pause_seconds
        self._failures, self._open_until = 0, now()

    def send(self, batch: Sequence[Outbound], window: SendWindow) -> Results:
        """See `channels.base.Provider`."""
        if self._now() < self._open_until:
            yield from self._hold(batch)
        elif self._failures < self._failures_max:
            yield from self._send_and_count(batch, window)
        else:
            yield from self._send_and_count(batch[:1], window)
            yield from self._hold(batch[1:]) if self._failures else self._send_and_count(batch[1:], window)

    def _send_and_count(self, batch: Sequence[Outbound], window: SendWindow) -> Results:
        last: Result | None = None
        for outbound, result in self.inner.send(batch, window):
            if result is not last:
                self._count(result)
            last = result
            yield outbound, result

    def _count(self, result: Result) -> None:
        if isinstance(result, StaleClaim):  # says nothing of the provider
            return
        if not isinstance(result, Unavailable | Uncertain):
            self._failures = 0
            return
        self._failures += 1
        if self._failures >= self._failures_max:
            if self._now() >= self._open_until:
                alert(self.name, "paused")
                if (listener := observer()) is not None:
                    listener.breaker_opened(self.name, self.channel, self._pause_seconds)
            self._open_until = self._now() + timedelta(seconds=self._pause_seconds)

    def _hold(self, batch: Sequence[Outbound]) -> Results:
        seconds = max(0.0, (self._open_until - self._now()).total_seconds())
        yield from ((outbound, Throttled("paused", "the circuit breaker is open", seconds)) for outbound in batch)

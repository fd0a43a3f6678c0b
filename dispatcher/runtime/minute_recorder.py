"""What the providers did in each minute, as this process saw it: collected in memory until a thread stores it in the ledger.

The hot path adds to a few numbers, once per batch. Labels come from closed sets, as those of the metrics.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from channels.measurements import ACCEPTED
from dispatcher.ledger.maintenance.load_samples import ProviderMinute
from dispatcher.runtime.metric_families import OTHER, PROVIDER_SECONDS, QUICK, label_values

MINUTES_MAX = 60  # in the memory of a process that stores none, such as a command: no page shows older ones
OF_CHANNEL = ""  # the provider's name in the row of a channel's rate limit

# Classes of results by column. A stale claim asked no provider.
_REFUSED = ("rejected", "bad_address", "opted_out")
_UNAVAILABLE = ("unavailable", "misconfigured")


class MinuteRecorder:
    """Collects counts and times by minute, provider and channel. All methods may be called from any thread."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._rows: dict[tuple[int, str, str], ProviderMinute] = {}  # by minute, provider, channel

    def add_batch(self, provider: str, channel: str, results: Mapping[str, int], seconds: Sequence[float]) -> None:
        """Add the results of a batch by class, and the time to each answer."""
        answers = [0] * (len(QUICK) + 1)  # the last one for longer times
        for each in seconds:
            answers[bisect_left(QUICK, each)] += 1
        with self._lock:
            row = self._row(provider, channel)
            row.accepted += results.get(ACCEPTED, 0)
            row.refused += sum(results.get(name, 0) for name in _REFUSED)
            row.throttled += results.get("throttled", 0)
            row.unavailable += sum(results.get(name, 0) for name in _UNAVAILABLE)
            row.uncertain += results.get("uncertain", 0)
            row.answers = [old + new for old, new in zip(row.answers, answers, strict=True)] if row.answers else answers

    def add_put_back(self, channel: str, messages: int, seconds_max: float) -> None:
        """Add messages that the rate limit of a channel put back, the last of them for so long."""
        with self._lock:
            row = self._row(OF_CHANNEL, channel)
            row.put_back += messages
            row.wait_seconds_max = max(row.wait_seconds_max, seconds_max)

    def add_opening(self, provider: str, channel: str, seconds: float) -> None:
        """Add that a circuit breaker has opened, for so long."""
        with self._lock:
            row, until = self._row(provider, channel), self._now() + timedelta(seconds=seconds)
            row.openings += 1
            row.open_until = max(row.open_until, until) if row.open_until else until

    def take(self) -> list[ProviderMinute]:
        """What was collected since the last call, for the caller to store."""
        with self._lock:
            rows, self._rows = self._rows, {}
        return list(rows.values())

    def _row(self, provider: str, channel: str) -> ProviderMinute:
        minute = int(self._clock() // 60)
        provider = provider if provider in label_values(PROVIDER_SECONDS, "provider") else OTHER
        channel = channel if channel in label_values(PROVIDER_SECONDS, "channel") else OTHER
        key = (minute, provider, channel)
        if key not in self._rows:
            self._rows = {each: row for each, row in self._rows.items() if each[0] > minute - MINUTES_MAX}
            self._rows[key] = ProviderMinute(datetime.fromtimestamp(minute * 60, UTC), provider, channel)
        return self._rows[key]

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


MINUTES = MinuteRecorder()

"""Measures a provider: results by class, and the time to each answer."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from channels.base import Outbound, Result, StaleClaim
from channels.measurements import class_name, observer
from channels.resilience.wrapper import ProviderWrapper, Results
from channels.send_window import SendWindow


class Observed(ProviderWrapper):
    """Reports each batch once, when it ends. A batch is sent concurrently, so an answer's time is counted from the batch's start.

    Mails that shared a request share its answer, which counts as one time. A batch that passed the deadline has no times.
    """

    def send(self, batch: Sequence[Outbound], window: SendWindow) -> Results:
        """See `channels.base.Provider`."""
        listener = observer()
        if listener is None:
            yield from self.inner.send(batch, window)
            return
        kinds: list[type[Result]] = []  # this is the hot path: classes are named once per batch, at its end
        seconds: list[float] = []
        last: Result | None = None
        started = time.monotonic()
        try:
            for pair in self.inner.send(batch, window):
                result = pair[1]
                kinds.append(type(result))
                if result is not last:
                    seconds.append(time.monotonic() - started)
                    last = result
                yield pair
        finally:
            counts = Counter(kinds)
            if StaleClaim in counts:  # these asked no provider
                seconds = []
            results: dict[str, int] = {}
            for kind, count in counts.items():
                name = class_name(kind)
                results[name] = results.get(name, 0) + count
            listener.batch_sent(self.name, self.channel, results, seconds)

"""Measures a provider: results by class, and the time to each answer."""

from __future__ import annotations

import time
from collections.abc import Sequence

from channels.base import Outbound, Result, StaleClaim
from channels.measurements import observer, result_class
from channels.resilience.wrapper import ProviderWrapper, Results
from channels.send_window import SendWindow


class Observed(ProviderWrapper):
    """Reports each batch once, when it ends. A batch is sent concurrently, so an answer's time is counted from the batch's start.

    Mails that shared a request share its answer, which counts as one time.
    """

    def send(self, batch: Sequence[Outbound], window: SendWindow) -> Results:
        """See `channels.base.Provider`."""
        listener = observer()
        if listener is None:
            yield from self.inner.send(batch, window)
            return
        counts: dict[type[Result], tuple[Result, int]] = {}
        seconds: list[float] = []
        last: Result | None = None
        started = time.monotonic()
        try:
            for pair in self.inner.send(batch, window):
                result = pair[1]
                kind = type(result)
                example, count = counts.get(kind, (result, 0))
                counts[kind] = (example, count + 1)
                if result is not last and kind is not StaleClaim:  # a stale claim asked no provider
                    seconds.append(time.monotonic() - started)
                last = result
                yield pair
        finally:
            results: dict[str, int] = {}
            for example, count in counts.values():
                name = result_class(example)
                results[name] = results.get(name, 0) + count
            listener.batch_sent(self.name, self.channel, results, seconds)

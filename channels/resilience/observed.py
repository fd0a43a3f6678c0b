"""Measures a provider: results by class, the time to each answer, and a span of traces for each batch."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence

from opentelemetry import trace
from opentelemetry.trace import SpanKind
from opentelemetry.util.types import AttributeValue

from channels.base import Outbound, Result, StaleClaim
from channels.measurements import class_name, observer
from channels.resilience.wrapper import ProviderWrapper, Results
from channels.send_window import SendWindow

_tracer = trace.get_tracer("channels")  # does nothing where the program exports no traces


class Observed(ProviderWrapper):
    """Reports each batch once, when it ends. A batch is sent concurrently, so an answer's time is counted from the batch's start.

    Mails that shared a request share its answer, which counts as one time. A batch that passed the deadline has no times.
    """

    def send(self, batch: Sequence[Outbound], window: SendWindow) -> Results:
        """See `channels.base.Provider`."""
        listener, span = observer(), _tracer.start_span("send", kind=SpanKind.CLIENT)
        if listener is None and not span.is_recording():
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
            if listener is not None:
                listener.batch_sent(self.name, self.channel, results, seconds)
            if span.is_recording():
                span.set_attributes(self._attributes(batch, results))
            span.end()

    def _attributes(self, batch: Sequence[Outbound], results: Mapping[str, int]) -> dict[str, AttributeValue]:
        """The batch by OpenTelemetry's conventions for messaging; of a single message also its id."""
        attributes: dict[str, AttributeValue] = {
            "messaging.system": self.name,
            "messaging.operation.type": "send",
            "messaging.destination.name": str(self.channel),
            "messaging.batch.message_count": len(batch),
            "dispatcher.results": [f"{name}={number}" for name, number in sorted(results.items())],
        }
        return attributes if len(batch) > 1 else {**attributes, "messaging.message.id": batch[0].id}

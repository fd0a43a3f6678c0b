"""What traces cost a worker while they are off: the calls of one batch, as a share of rendering it. Both in one run.

`python -m benchmarks.tracing`; CPU time of this process, medians. Rendering is only a part of a worker's work, so the true share is
smaller.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from opentelemetry import trace
from opentelemetry.trace import SpanKind

from benchmarks import rendering
from dispatcher.runtime.services import BATCH_MESSAGES_MAX
from dispatcher.runtime.tracing import current_traceparent, span, within

ROUNDS, CALLS = 9, 2_000
_provider_tracer = trace.get_tracer("channels")


def batch() -> None:
    """What the pipeline calls for one batch: the steps, the provider's call and, though it is once per chunk, the chunk itself."""
    size = {"messaging.batch.message_count": BATCH_MESSAGES_MAX}
    with within(None), span("chunk", size), span("gather"):
        pass
    with span("decide and render", size):
        pass
    with span("claim", size) as claimed:
        claimed.set_attribute("dispatcher.claim", 1)
    sent = _provider_tracer.start_span("send", kind=SpanKind.CLIENT)
    if sent.is_recording():
        raise RuntimeError("traces are on")
    sent.end()
    with span("settle", size):
        pass
    current_traceparent()


def microseconds(work: Callable[[], object], calls: int = CALLS, rounds: int = ROUNDS) -> float:
    """CPU time of one call, the median of some rounds."""
    taken = []
    for _ in range(rounds):
        started = time.process_time()
        for _ in range(calls):
            work()
        taken.append((time.process_time() - started) / calls * 1e6)
    return statistics.median(taken)


def main() -> None:
    """Print both costs and their ratio."""
    off = microseconds(batch)
    rendered = rendering.measure().message_us * BATCH_MESSAGES_MAX
    print(f"a batch of {BATCH_MESSAGES_MAX} mails: {rendered:,.0f} µs to render, {off:.1f} µs for traces that are off")
    print(f"ratio: {off / rendered:.3%}")


if __name__ == "__main__":
    main()

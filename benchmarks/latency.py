"""The latency of triggers, from the caller's publish to the provider's receipt: idle, and beside a campaign."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass

from benchmarks.environment import BenchEnvironment, database, log_progress, wait_for
from benchmarks.throughput import finished, submit
from channels.base import Channel
from dispatcher.campaigns import scheduler

TEMPLATE = "coin_earned"
DATA = {"coins_earned": 5, "merchant": "Café Minuit", "coins_url": "https://www.kbc-bank.example/kate-coins"}
PAUSE_SECONDS = 0.08  # longer than one trigger takes, so that no queue builds up
_names = (f"trigger-{number}" for number in itertools.count(1))


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds."""

    count: int
    p50_ms: float
    p99_ms: float


def idle(bench: BenchEnvironment, count: int) -> Latency:
    """Triggers without other load."""
    _send_triggers(bench, 20)  # warm-up: in production, connections and templates are warm, too
    return _send_triggers(bench, count)


def under_load(bench: BenchEnvironment, count: int, people: int) -> Latency:
    """Triggers while the workers run a campaign of single mails at full speed."""
    from dispatcher import tasks

    campaign = submit(bench.services, bench, Channel.EMAIL, people)
    tasks.publish(scheduler.due_chunks(bench.services))
    time.sleep(0.5)
    measured = _send_triggers(bench, count)
    if finished(bench.services, campaign):
        log_progress("the campaign ended before the triggers: the latencies are too low")
    wait_for(campaign, lambda: finished(bench.services, campaign), 240)
    return measured


def _send_triggers(bench: BenchEnvironment, count: int) -> Latency:
    from dispatcher import tasks

    bench.forget_caps()
    published: dict[str, float] = {}
    for number in range(count):
        key = next(_names)
        published[key] = time.time()
        job = {"key": key, "recipient": f"c-{number}", "template": TEMPLATE, "data": DATA}
        tasks.trigger.apply_async((job,))
        time.sleep(PAUSE_SECONDS)
    wait_for("triggers", lambda: len(_accepted(published)) == count, 60)
    latencies_ms = sorted((at - published[key]) * 1e3 for key, at in _accepted(published).items())
    return Latency(count, latencies_ms[count // 2], latencies_ms[min(count - 1, count * 99 // 100)])


def _accepted(published: dict[str, float]) -> dict[str, float]:
    with database() as connection:
        rows = connection.execute(
            """
            SELECT t.key, extract(epoch FROM m.accepted_at)::float8
            FROM triggers t JOIN messages m ON m.period = t.period AND m.chunk = t.chunk
            WHERE t.key = ANY(%s) AND m.accepted_at IS NOT NULL
            """,
            (list(published),),
        ).fetchall()
    return dict(rows)

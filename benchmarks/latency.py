"""How long a trigger takes, from its caller's publish to the provider's receipt in hand: idle, and beside a campaign."""

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
PAUSE_SECONDS = 0.08  # longer than one takes, so that they are measured and not a queue of our own making
_names = (f"trigger-{number}" for number in itertools.count(1))


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds."""

    count: int
    p50_ms: float
    p99_ms: float


def idle(ground: BenchEnvironment, count: int) -> Latency:
    """Triggers with nothing else going on."""
    _send_triggers(ground, 20)  # the worker's connections and templates are warm in earnest, too
    return _send_triggers(ground, count)


def under_load(ground: BenchEnvironment, count: int, people: int) -> Latency:
    """Triggers while the workers run a campaign of single mails at full speed."""
    from dispatcher import tasks

    name = submit(ground.services, ground, Channel.EMAIL, people)
    tasks.publish(scheduler.due_chunks(ground.services))
    time.sleep(0.5)
    measured = _send_triggers(ground, count)
    if finished(ground.services, name):
        log_progress("the campaign was over before the triggers: these figures flatter")
    wait_for(name, lambda: finished(ground.services, name), 240)
    return measured


def _send_triggers(ground: BenchEnvironment, count: int) -> Latency:
    from dispatcher import tasks

    ground.forget_caps()
    fired: dict[str, float] = {}
    for number in range(count):
        key = next(_names)
        fired[key] = time.time()
        job = {"key": key, "recipient": f"c-{number}", "template": TEMPLATE, "data": DATA}
        tasks.trigger.apply_async((job,))
        time.sleep(PAUSE_SECONDS)
    wait_for("triggers", lambda: len(_accepted(fired)) == count, 60)
    taken = sorted((at - fired[key]) * 1e3 for key, at in _accepted(fired).items())
    return Latency(count, taken[count // 2], taken[min(count - 1, count * 99 // 100)])


def _accepted(fired: dict[str, float]) -> dict[str, float]:
    with database() as connection:
        rows = connection.execute(
            """
            SELECT t.key, extract(epoch FROM m.accepted_at)::float8
            FROM triggers t JOIN messages m ON m.period = t.period AND m.chunk = t.chunk
            WHERE t.key = ANY(%s) AND m.accepted_at IS NOT NULL
            """,
            (list(fired),),
        ).fetchall()
    return dict(rows)

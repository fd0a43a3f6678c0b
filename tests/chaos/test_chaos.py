"""The short form of `make chaos`: each kind of process dies once, and every promise holds. CHAOS_SEED repeats a run.

On RabbitMQ only the broker and a worker die: the rest is the same.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence

from tests.chaos.faults import FAULTS
from tests.chaos.program import RABBITMQ, VALKEY, Topology
from tests.chaos.run import GIVE_UP_SECONDS, RECOVER_SECONDS_MAX, run
from tests.support.rabbitmq import required

NAMES = (
    *("campaign child: kill -9", "web: kill -9", "sandbox: kill -9", "beat: kill -9"),
    *(
        "campaign worker: frozen while it sends",
        "transactional worker: kill -9",
        "Valkey: kill -9",
        "PostgreSQL: kill -9 of the postmaster",
    ),
)
ON_RABBITMQ = ("RabbitMQ: kill -9", "campaign worker: kill -9 of all")
GROUP = 4  # faults between two checks
SLACK_SECONDS = 20.0  # other tests use the processors too; the long run measures the recovery


def test_nothing_is_lost_doubled_or_late_whatever_dies() -> None:
    check(NAMES, Topology(VALKEY), RECOVER_SECONDS_MAX + SLACK_SECONDS)


def test_nothing_is_lost_doubled_or_late_on_rabbitmq() -> None:
    required()
    check(ON_RABBITMQ, Topology(RABBITMQ), GIVE_UP_SECONDS)


def check(names: Sequence[str], topology: Topology, recover_seconds_max: float) -> None:
    seed = int(os.environ.get("CHAOS_SEED", secrets.randbelow(10**6)))
    print(f"repeat with: CHAOS_SEED={seed}")  # noqa: T201 - pytest shows it where the test fails
    faults = [next(fault for fault in FAULTS if fault.name == name) for name in names]
    report = run(seed, faults, print, GROUP, recover_seconds_max=recover_seconds_max, topology=topology)
    # Celery itself logs a traceback for each task of a child that was killed; the long run counts them.
    assert [each for each in report.broken() if "tracebacks: " not in each] == []
    assert sum(one.findings.arrivals for one in report.rounds) > 30 * len(names)

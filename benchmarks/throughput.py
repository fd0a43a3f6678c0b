"""Throughput: a campaign through real workers, and the same messages through the baseline's worker."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks import baseline
from benchmarks.environment import BenchEnvironment, database, offer, wait_for
from benchmarks.resource_usage import between, cpu_seconds, watch_memory
from channels.base import Channel
from dispatcher.campaigns import scheduler, submission
from dispatcher.domain.campaign import CampaignState
from dispatcher.intake.audience_reference import AudienceSources
from dispatcher.intake.campaign import check_campaign, parse_request
from dispatcher.ledger.campaigns import lifecycle
from dispatcher.ledger.connection import lend
from dispatcher.runtime.services import Services

TEMPLATE = baseline.TEMPLATE
BASELINE = ["baseline@bench"]
RUN_SECONDS_MAX = 900.0  # for a million
_names = (f"bench-{number}" for number in itertools.count(1))


@dataclass(frozen=True, slots=True)
class ThroughputRun:
    """One campaign, per message: `cpu_us` is processor microseconds by part (workers, postgres, broker, sink), `wal_bytes` is
    PostgreSQL's log from claim to settle, `ledger_bytes` is the growth of its tables and indexes, with jobs. `fan_out_us` is what
    its submission costs this process and PostgreSQL, per row."""

    messages: int
    seconds: float
    cpu_us: Mapping[str, float]
    commands: float
    wire_bytes: float
    peak_bytes: int = 0
    fan_out_us: float = 0.0
    wal_bytes: float = 0.0
    ledger_bytes: float = 0.0

    @property
    def per_second(self) -> float:
        """Messages per second of elapsed time."""
        return self.messages / self.seconds

    @property
    def cpu_total_us(self) -> float:
        """Processor microseconds per message, of all parts."""
        return sum(self.cpu_us.values())


def median_run(runs: Sequence[ThroughputRun]) -> ThroughputRun:
    """The median run by processor time; elapsed time depends on other load, too."""
    return sorted(runs, key=lambda run: run.cpu_total_us)[len(runs) // 2]


# -- ours --------------------------------------------------------------------------------------------------------------


def submit(services: Services, bench: BenchEnvironment, channel: Channel, people: int) -> str:
    """Fan a campaign out. Returns its id."""
    name = next(_names)
    audience = bench.audience(people)
    form = {"id": name, "template": TEMPLATE, "channels": [channel], "audience": audience.name}
    request = parse_request(form, AudienceSources(audience.parent))
    admission = submission.submit(services, check_campaign(request, submission.validation_context(services)))
    assert admission.status is submission.SubmitStatus.NEW, admission
    return name


def campaign(bench: BenchEnvironment, worker: int, channel: Channel, people: int) -> ThroughputRun:
    """Run a campaign through the real workers, measured from the first message on the broker to the last settlement."""
    from dispatcher import tasks

    bench.audience(people)  # writes the file, which costs nothing here
    size = _ledger_bytes()
    fan_out = time.process_time() + cpu_seconds(bench.meters.postgres)
    name = submit(bench.services, bench, channel, people)
    fan_out = time.process_time() + cpu_seconds(bench.meters.postgres) - fan_out
    bench.forget_caps()
    before, bytes_before, wal = bench.meters.read(worker), bench.received()["bytes"], _wal_bytes()
    with watch_memory(worker) as peak:
        started = time.time()
        tasks.publish(scheduler.due_chunks(bench.services))
        wait_for(name, lambda: finished(bench.services, name), RUN_SECONDS_MAX)
    spent = between(before, bench.meters.read(worker))
    wal, size = _wal_bytes() - wal, _ledger_bytes() - size
    sent, last = _outcome(name)
    assert sent == people, f"{sent} of {people} were accepted"
    bytes_ = bench.received()["bytes"] - bytes_before
    return ThroughputRun(
        people,
        last - started,
        *_per_message(spent, people),
        wire_bytes=bytes_ / people,
        peak_bytes=peak.bytes,
        fan_out_us=fan_out / people * 1e6,
        wal_bytes=wal / people,
        ledger_bytes=size / people,
    )


def _wal_bytes() -> int:
    """The size of all WAL that PostgreSQL has written."""
    return _number("SELECT pg_current_wal_insert_lsn() - '0/0'")


def _ledger_bytes() -> int:
    """The size of the tables and indexes that grow with messages."""
    return _number(
        "SELECT sum(pg_total_relation_size(oid)) FROM pg_class"
        " WHERE relname ~ '^(jobs|messages)_[0-9]+$' OR relname = 'cap_reservations'"
    )


def _number(question: str) -> int:
    with database() as connection:
        row = connection.execute(question).fetchone()
    return int(row[0] or 0) if row else 0


def finished(services: Services, name: str) -> bool:
    with lend(services.pool) as connection:
        found = lifecycle.find(connection, name)
    return found is not None and found.state is CampaignState.FINISHED


def _outcome(name: str) -> tuple[int, float]:
    """How many were accepted, and when the last one was."""
    with database() as connection:
        row = connection.execute(
            """
            SELECT count(*) FILTER (WHERE receipt IS NOT NULL), extract(epoch FROM max(m.updated_at))
            FROM messages m JOIN campaigns c ON c.no = m.campaign_no WHERE c.id = %s
            """,
            (name,),
        ).fetchone()
    assert row
    return int(row[0]), float(row[1])


def _per_message(spent: Mapping[str, float], messages: int) -> tuple[dict[str, float], float]:
    parts = ("workers", "postgres", "broker", "sink")
    return {part: spent[part] / messages * 1e6 for part in parts}, spent["commands"] / messages


# -- the baseline ------------------------------------------------------------------------------------------------------


def baseline_is_ready() -> bool:
    """Whether the baseline's worker answers commands."""
    return bool(baseline.app.control.ping(BASELINE, timeout=0.5))


def baseline_run(bench: BenchEnvironment, worker: int, channel: Channel, people: int) -> ThroughputRun:
    """Run single tasks, which are on the broker before the clock starts: the baseline's publishing is not counted."""
    name = next(_names)
    for number in range(people):
        baseline.send.apply_async((name, f"c-{number}", channel.value, offer(number)))
    before, bytes_before = bench.meters.read(worker), bench.received()["bytes"]
    started = time.time()
    baseline.app.control.add_consumer("baseline", destination=BASELINE)
    with watch_memory(worker) as peak:
        wait_for(f"the baseline's {name}", lambda: _baseline_sent(name)[0] == people, RUN_SECONDS_MAX)
    spent = between(before, bench.meters.read(worker))
    baseline.app.control.cancel_consumer("baseline", destination=BASELINE)
    last = _baseline_sent(name)[1]
    bytes_ = bench.received()["bytes"] - bytes_before
    return ThroughputRun(people, last - started, *_per_message(spent, people), bytes_ / people, peak.bytes)


def _baseline_sent(name: str) -> tuple[int, float]:
    with database() as connection:
        row = connection.execute(
            "SELECT count(*), coalesce(extract(epoch FROM max(updated_at)), 0) FROM baseline.messages "
            "WHERE campaign = %s AND status = 'sent'",
            (name,),
        ).fetchone()
    assert row
    return int(row[0]), float(row[1])

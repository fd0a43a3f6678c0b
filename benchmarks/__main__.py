"""`make bench`: one run, one table, all ratios within the run.

Each row is the median of several campaigns through real worker processes, beside as many runs of the baseline. Everything is on
this one machine and shares its processors: workers, PostgreSQL, Valkey and the sink. Results are kept under artifacts/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks import goals, killed, latency, optouts, rendering, report, stage_costs, throughput
from benchmarks.environment import BenchEnvironment, baseline_worker, bench_environment, campaign_worker, log_progress, wait_for
from benchmarks.stage_costs import SendSetup, StageCosts
from benchmarks.throughput import ThroughputRun, median_run
from channels.base import Channel
from dispatcher.devserver.stack import CAMPAIGN_NICE
from dispatcher.runtime.services import BATCH_MESSAGES_MAX

ROWS: Mapping[str, SendSetup] = {
    "e-mail single, any template": SendSetup(Channel.EMAIL, specialise=False),
    "e-mail single, recorded paths": SendSetup(Channel.EMAIL),
    "e-mail batch": SendSetup(Channel.EMAIL, mails_per_request=100),
    "e-mail batch of 1,000": SendSetup(Channel.EMAIL, mails_per_request=1_000, batch_messages=1_000),
    "SMS": SendSetup(Channel.SMS),
    "WhatsApp": SendSetup(Channel.WHATSAPP),
    "push": SendSetup(Channel.PUSH),
}
LARGE_BATCH = 1_000  # what sub-batches of a hundred are compared with


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    repeats: int
    campaign: int
    baseline: int
    staged: int
    audiences: tuple[int, ...]
    triggers: int
    loaded: int  # the campaign beside the triggers
    race: int
    killed: int  # the campaign whose workers are killed


FULL = Sizes(3, 8_000, 400, 3_000, (1_000, 10_000, 100_000), 100, 60_000, 80, 20_000)
QUICK = Sizes(1, 3_000, 150, 1_000, (1_000, 10_000), 30, 30_000, 20, 10_000)


def main() -> None:
    """Run, print, keep."""
    options = _options()
    sizes = _sizes(options)
    wanted = {name: way for name, way in ROWS.items() if not options.only or way.channel in options.only}
    people = max(*sizes.audiences, sizes.campaign, sizes.loaded)
    with bench_environment(people, options.workers, one_authority=options.one_authority) as place:
        found: dict[str, Any] = {"machine": _machine(options.workers), "sizes": asdict(sizes)}
        found["rows"] = {name: _row(place, name, way, sizes) for name, way in wanted.items()}
        found["sink"] = _sink_ceiling(place)
        found["rendering"] = _rendering()
        if not options.only:
            found |= _other_measurements(place, sizes)
    found["goals"] = [asdict(goal) for goal in goals.evaluate(found)]
    folder = Path("artifacts")
    folder.mkdir(exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(found, indent=2))
    (folder / "bench.svg").write_text(report.chart(found))
    print(report.table(found))


def _other_measurements(place: BenchEnvironment, sizes: Sizes) -> dict[str, Any]:
    """Audiences, triggers, opt-outs, and what a killed worker leaves."""
    found: dict[str, Any] = {}
    with place.running(campaign_worker(place.workers, nice=CAMPAIGN_NICE), SENDGRID_MAILS_PER_REQUEST="1") as worker:
        throughput.campaign(place, worker, Channel.PUSH, 1_000)  # warm-up
        found["latency"] = _latency(place, sizes)  # before the audiences: PostgreSQL is long busy cleaning up after a large one
        found["audiences"] = {str(people): asdict(_audience(place, worker, people)) for people in sizes.audiences}
    found["killed"] = _killed(place, sizes)
    log_progress("opt-outs against running campaigns")
    return {**found, "opt_outs": asdict(optouts.measure(place, sizes.race))}


def _killed(place: BenchEnvironment, sizes: Sizes) -> dict[str, float]:
    """What a kill leaves unknown, and what it costs to leave no more than that."""
    unknown = killed.measure(place, sizes.killed)
    cost: dict[int, float] = {}
    for messages in (LARGE_BATCH, BATCH_MESSAGES_MAX) * 3:  # in turns, the best of each: neighbours only add
        taken = stage_costs.measure(place, SendSetup(Channel.PUSH, batch_messages=messages), max(2_000, sizes.staged)).total_us
        cost[messages] = min(taken, cost.get(messages, taken))
    small, large = cost[BATCH_MESSAGES_MAX], cost[LARGE_BATCH]
    log_progress(
        f"killed: {unknown} messages unknown per process; batches of {BATCH_MESSAGES_MAX} cost {small / large - 1:.0%} more"
    )
    return {"unknown_per_process": unknown, "small_batches_us": small, "large_batches_us": large}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a third of the size, one run each: to see that it works")
    parser.add_argument("--million", action="store_true", help="also an audience of a million")
    parser.add_argument("--sizes", type=_audiences, help="audiences to run instead of the default, such as 1000,10000")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="campaign worker processes")
    parser.add_argument("--one-authority", action="store_true", help="trust the sink's authority only: see the baseline")
    parser.add_argument("--only", action="append", type=Channel, help="only this channel's rows; may be repeated")
    return parser.parse_args()


def _audiences(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _sizes(options: argparse.Namespace) -> Sizes:
    sizes = QUICK if options.quick else FULL
    audiences = options.sizes or sizes.audiences
    return replace(sizes, audiences=(*audiences, 1_000_000) if options.million else audiences)


def _machine(workers: int) -> dict[str, Any]:
    return {
        "processors": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "workers": workers,
        "load_before": os.getloadavg()[0],
    }


def _row(place: BenchEnvironment, name: str, way: SendSetup, sizes: Sizes) -> dict[str, Any]:
    """Ours and the baseline in turns, so that both meet the same neighbours."""
    ours: list[ThroughputRun] = []
    theirs: list[ThroughputRun] = []
    channel, specialise = way.channel, "on" if way.specialise else "off"
    settings = {"SENDGRID_MAILS_PER_REQUEST": str(way.mails_per_request), "DISPATCHER_SPECIALISE": specialise}
    worker = place.running(campaign_worker(place.workers), **settings)
    with worker as own, place.running(baseline_worker(place.workers)) as other:
        wait_for("the baseline's worker", throughput.baseline_is_ready, 30)
        throughput.campaign(place, own, channel, min(2_000, sizes.campaign))  # warm-up
        throughput.baseline_run(place, other, channel, 20)
        for repeat in range(sizes.repeats):
            ours.append(throughput.campaign(place, own, channel, sizes.campaign))
            theirs.append(throughput.baseline_run(place, other, channel, sizes.baseline))
            log_progress(
                f"{name} {repeat + 1}/{sizes.repeats}: {ours[-1].per_second:,.0f}/s, the baseline {theirs[-1].per_second:,.0f}/s"
            )
    by_stage = [stage_costs.measure(place, way, sizes.staged) for _ in range(sizes.repeats)]
    return _summary(median_run(ours), median_run(theirs), sorted(by_stage, key=lambda each: each.total_us)[len(by_stage) // 2])


def _summary(ours: ThroughputRun, theirs: ThroughputRun, staged: StageCosts) -> dict[str, Any]:
    return {
        "ours": {**asdict(ours), "per_second": ours.per_second, "cpu_total_us": ours.cpu_total_us},
        "baseline": {**asdict(theirs), "per_second": theirs.per_second, "cpu_total_us": theirs.cpu_total_us},
        "times_baseline": ours.per_second / theirs.per_second,
        "times_baseline_cpu": theirs.cpu_total_us / ours.cpu_total_us,
        "share_of_limit": staged.limit_us / ours.cpu_total_us,
        "stages": asdict(staged),
    }


def _sink_ceiling(place: BenchEnvironment) -> dict[str, float]:
    """The sink's own: what it could take if it had a processor to itself."""
    seen = place.received()
    return {"requests_per_cpu_second": seen["requests"] / seen["cpu_seconds"], "requests": seen["requests"]}


def _rendering() -> dict[str, float]:
    """Ordinary and along recorded paths, the same texts to the byte."""
    measured = rendering.measure()
    return {"times": measured.times_texts, "batched_us": measured.batched_us}


def _audience(place: BenchEnvironment, worker: int, people: int) -> ThroughputRun:
    run = throughput.campaign(place, worker, Channel.PUSH, people)
    log_progress(f"audience of {people:,}: {run.cpu_total_us:.0f} µs a message, {run.peak_bytes / 2**20:.0f} MB")
    return run


def _latency(place: BenchEnvironment, sizes: Sizes) -> dict[str, Any]:
    idle = latency.idle(place, sizes.triggers)
    loaded = latency.under_load(place, sizes.triggers, sizes.loaded)
    log_progress(f"triggers: p99 {idle.p99_ms:.0f} ms idle, {loaded.p99_ms:.0f} ms beside a campaign")
    return {"idle": asdict(idle), "beside a campaign": asdict(loaded)}


if __name__ == "__main__":
    main()

"""`make bench`: one run, one table; all ratios compare measurements of the same run.

Each row is the median of several campaigns through real worker processes, beside as many runs of the baseline. Workers,
PostgreSQL, Valkey and the sink share the processors of this machine. The results are written to artifacts/.
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

from benchmarks import distant, goals, history, imports, killed, latency, optouts, rendering, report, stage_costs, throughput
from benchmarks.environment import BenchEnvironment, baseline_worker, bench_environment, campaign_worker, log_progress, wait_for
from benchmarks.stage_costs import SendSetup, StageCosts
from benchmarks.throughput import ThroughputRun, median_run
from channels.base import Channel
from dispatcher.devserver.processes import CAMPAIGN_NICE
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
LARGE_BATCH = 1_000  # messages; the default batch size is compared with it


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many runs, messages and recipients."""

    repeats: int
    campaign: int
    baseline: int
    staged: int
    audiences: tuple[int, ...]
    triggers: int
    loaded: int  # the campaign beside the triggers
    race: int
    killed: int  # the campaign whose workers are killed
    imported: int  # rows of files
    distant: int  # the campaign whose provider is far away: so large that its chunks share tasks


FULL = Sizes(3, 8_000, 400, 3_000, (1_000, 10_000, 100_000), 100, 60_000, 80, 20_000, 30_000, 20_000)
QUICK = Sizes(1, 3_000, 150, 1_000, (1_000, 10_000), 30, 30_000, 20, 10_000, 10_000, 10_000)


def main() -> None:
    """Run all measurements, print the table, write the results."""
    options = _options()
    if options.history:
        _history(options)
        return
    sizes = _sizes(options)
    rows = {name: setup for name, setup in ROWS.items() if not options.only or setup.channel in options.only}
    people = max(*sizes.audiences, sizes.campaign, sizes.loaded)
    with bench_environment(people, options.workers, one_authority=options.one_authority) as bench:
        results: dict[str, Any] = {"machine": _machine(options.workers), "sizes": asdict(sizes)}
        results["rows"] = {name: _row(bench, name, setup, sizes) for name, setup in rows.items()}
        results["sink"] = _sink_ceiling(bench)
        results["rendering"] = _rendering()
        if not options.only:
            results |= _other_measurements(bench, sizes)
    results["goals"] = [asdict(goal) for goal in goals.evaluate(results)]
    _write("bench.json", json.dumps(results, indent=2))
    _write("bench.svg", report.chart(results))
    print(report.table(results))


def _write(name: str, text: str) -> None:
    folder = Path("artifacts")
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")


def _history(options: argparse.Namespace) -> None:
    """The measurement of an old ledger alone: to build it takes minutes."""
    size = history.SMALL if options.quick else history.FULL
    with bench_environment(history.STAGED, 1, one_authority=options.one_authority) as bench:
        results = {"machine": _machine(1), **history.measure(bench, size)}
    results["goals"] = [asdict(goal) for goal in goals.evaluate_history(results, history.GOALS_MS)]
    _write("bench-history.json", json.dumps(results, indent=2))
    print(report.history_table(results))


def _other_measurements(bench: BenchEnvironment, sizes: Sizes) -> dict[str, Any]:
    """Audiences, triggers, opt-outs, and the effect of killed workers."""
    # Before the audiences: after a large one, autovacuum is busy for a long time.
    distant_runs = distant.measure(bench, sizes.distant, sizes.repeats)
    results: dict[str, Any] = {"distant": {name: asdict(run) for name, run in distant_runs.items()}}
    with bench.running(campaign_worker(bench.workers, nice=CAMPAIGN_NICE), SENDGRID_MAILS_PER_REQUEST="1") as worker:
        throughput.campaign(bench, worker, Channel.PUSH, 1_000)  # warm-up
        results["latency"] = _latency(bench, sizes)
        results["audiences"] = {str(people): asdict(_audience(bench, worker, people)) for people in sizes.audiences}
    results["killed"] = _killed(bench, sizes)
    log_progress("imports")
    results["imports"] = imports.measure(bench, sizes.imported)
    log_progress("opt-outs against running campaigns")
    return {**results, "opt_outs": asdict(optouts.measure(bench, sizes.race))}


def _killed(bench: BenchEnvironment, sizes: Sizes) -> dict[str, float]:
    """The messages that a kill leaves unresolved, and the cost of the small batches that limit their number."""
    unknown = killed.measure(bench, sizes.killed)
    cost: dict[int, float] = {}
    for messages in (LARGE_BATCH, BATCH_MESSAGES_MAX) * 3:  # alternating, the best of each: other load can only add time
        taken = stage_costs.measure(bench, SendSetup(Channel.PUSH, batch_messages=messages), max(2_000, sizes.staged)).total_us
        cost[messages] = min(taken, cost.get(messages, taken))
    small, large = cost[BATCH_MESSAGES_MAX], cost[LARGE_BATCH]
    log_progress(
        f"killed: {unknown} messages unknown per process; batches of {BATCH_MESSAGES_MAX} cost {small / large - 1:.0%} more"
    )
    return {"unknown_per_process": unknown, "small_batches_us": small, "large_batches_us": large}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a third of the size, one run each: to check that it works")
    parser.add_argument("--million", action="store_true", help="also an audience of a million")
    parser.add_argument(
        "--history", action="store_true", help="only look-ups and the cost of a message on a ledger with a year of campaigns"
    )
    parser.add_argument("--sizes", type=_audiences, help="audiences to run instead of the default, such as 1000,10000")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="campaign worker processes")
    parser.add_argument(
        "--one-authority", action="store_true", help="trust only the sink's certificate authority: see the baseline"
    )
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


def _row(bench: BenchEnvironment, name: str, setup: SendSetup, sizes: Sizes) -> dict[str, Any]:
    """Measure this program and the baseline alternately, so that other load on the machine affects both."""
    ours: list[ThroughputRun] = []
    theirs: list[ThroughputRun] = []
    channel, specialise = setup.channel, "on" if setup.specialise else "off"
    settings = {"SENDGRID_MAILS_PER_REQUEST": str(setup.mails_per_request), "DISPATCHER_SPECIALISE": specialise}
    worker = bench.running(campaign_worker(bench.workers), **settings)
    with worker as own, bench.running(baseline_worker(bench.workers)) as other:
        wait_for("the baseline's worker", throughput.baseline_is_ready, 30)
        throughput.campaign(bench, own, channel, min(2_000, sizes.campaign))  # warm-up
        throughput.baseline_run(bench, other, channel, 20)
        for repeat in range(sizes.repeats):
            ours.append(throughput.campaign(bench, own, channel, sizes.campaign))
            theirs.append(throughput.baseline_run(bench, other, channel, sizes.baseline))
            log_progress(
                f"{name} {repeat + 1}/{sizes.repeats}: {ours[-1].per_second:,.0f}/s, the baseline {theirs[-1].per_second:,.0f}/s"
            )
    by_stage = [stage_costs.measure(bench, setup, sizes.staged) for _ in range(sizes.repeats)]
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


def _sink_ceiling(bench: BenchEnvironment) -> dict[str, float]:
    """What the sink could take with a processor of its own."""
    seen = bench.received()
    return {"requests_per_cpu_second": seen["requests"] / seen["cpu_seconds"], "requests": seen["requests"]}


def _rendering() -> dict[str, float]:
    """Jinja against compiled paths; the texts are equal byte for byte."""
    measured = rendering.measure()
    return {"times": measured.times_texts, "batched_us": measured.batched_us}


def _audience(bench: BenchEnvironment, worker: int, people: int) -> ThroughputRun:
    run = throughput.campaign(bench, worker, Channel.PUSH, people)
    log_progress(f"audience of {people:,}: {run.cpu_total_us:.0f} µs a message, {run.peak_bytes / 2**20:.0f} MB")
    return run


def _latency(bench: BenchEnvironment, sizes: Sizes) -> dict[str, Any]:
    idle = latency.idle(bench, sizes.triggers)
    loaded = latency.under_load(bench, sizes.triggers, sizes.loaded)
    log_progress(f"triggers: p99 {idle.p99_ms:.0f} ms idle, {loaded.p99_ms:.0f} ms beside a campaign")
    return {"idle": asdict(idle), "beside a campaign": asdict(loaded)}


if __name__ == "__main__":
    main()

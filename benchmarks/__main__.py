"""`make bench`: one run, one table, all ratios within the run.

Each row is the median of several campaigns through real worker processes, beside as many runs of the baseline. Everything is on
this one machine and shares its processors: workers, PostgreSQL, Valkey and the sink. Results are kept under artifacts/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import latency, optouts, report, rows, stages
from benchmarks.ground import Ground, await_, baseline_worker, campaign_worker, ground, say
from benchmarks.rows import Run, middle
from benchmarks.stages import Stages
from channels.base import Channel


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table."""

    name: str
    channel: Channel
    mails_per_request: int = 1


ROWS = (
    Row("e-mail single", Channel.EMAIL),
    Row("e-mail batch", Channel.EMAIL, 100),
    Row("SMS", Channel.SMS),
    Row("WhatsApp", Channel.WHATSAPP),
    Row("push", Channel.PUSH),
)


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


FULL = Sizes(3, 6_000, 400, 1_000, (1_000, 10_000, 100_000), 100, 25_000, 80)
QUICK = Sizes(1, 2_000, 150, 500, (1_000, 5_000), 30, 15_000, 20)


def main() -> None:
    """Run, print, keep."""
    options = _options()
    sizes = QUICK if options.quick else FULL
    audiences = (*sizes.audiences, 1_000_000) if options.million else sizes.audiences
    wanted = [row for row in ROWS if not options.only or row.channel in options.only]
    with ground(max(*audiences, sizes.campaign, sizes.loaded), options.workers) as place:
        found: dict[str, Any] = {"machine": _machine(options.workers), "sizes": asdict(sizes)}
        found["rows"] = {row.name: _row(place, row, sizes) for row in wanted}
        found["sink"] = _sink_ceiling(place)
        if not options.only:
            with place.running(campaign_worker(place.workers, nice=5), SENDGRID_MAILS_PER_REQUEST="1") as worker:
                rows.campaign(place, worker, Channel.PUSH, 1_000)  # warm-up
                found["audiences"] = {str(people): asdict(_audience(place, worker, people)) for people in audiences}
                found["latency"] = _latency(place, sizes)
            say("opt-outs against running campaigns")
            found["opt_outs"] = asdict(optouts.measure(place, sizes.race))
    folder = Path("artifacts")
    folder.mkdir(exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(found, indent=2))
    (folder / "bench.svg").write_text(report.chart(found))
    print(report.table(found))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the size, one run each: to see that it works")
    parser.add_argument("--million", action="store_true", help="also an audience of a million")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="campaign worker processes")
    parser.add_argument("--only", action="append", type=Channel, help="only this channel's row; may be repeated")
    return parser.parse_args()


def _machine(workers: int) -> dict[str, Any]:
    return {
        "processors": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "workers": workers,
        "load_before": os.getloadavg()[0],
    }


def _row(place: Ground, row: Row, sizes: Sizes) -> dict[str, Any]:
    """Ours and the baseline in turns, so that both meet the same neighbours."""
    ours: list[Run] = []
    theirs: list[Run] = []
    name, channel = row.name, row.channel
    worker = place.running(campaign_worker(place.workers), SENDGRID_MAILS_PER_REQUEST=str(row.mails_per_request))
    with worker as own, place.running(baseline_worker(place.workers)) as other:
        await_("the baseline's worker", rows.baseline_listens, 30)
        rows.campaign(place, own, channel, min(1_000, sizes.campaign))  # warm-up
        rows.baseline_run(place, other, channel, 20)
        for repeat in range(sizes.repeats):
            ours.append(rows.campaign(place, own, channel, sizes.campaign))
            theirs.append(rows.baseline_run(place, other, channel, sizes.baseline))
            say(f"{name} {repeat + 1}/{sizes.repeats}: {ours[-1].per_second:,.0f}/s, the baseline {theirs[-1].per_second:,.0f}/s")
    by_stage = [stages.measure(place, channel, sizes.staged, row.mails_per_request) for _ in range(sizes.repeats)]
    staged = sorted(by_stage, key=lambda each: sum(each.cpu_us.values()))[len(by_stage) // 2]
    return _summary(middle(ours), middle(theirs), staged)


def _summary(ours: Run, theirs: Run, staged: Stages) -> dict[str, Any]:
    return {
        "ours": {**asdict(ours), "per_second": ours.per_second, "cpu_total_us": ours.cpu_total_us},
        "baseline": {**asdict(theirs), "per_second": theirs.per_second, "cpu_total_us": theirs.cpu_total_us},
        "times_baseline": ours.per_second / theirs.per_second,
        "times_baseline_cpu": theirs.cpu_total_us / ours.cpu_total_us,
        "share_of_limit": staged.limit_us / ours.cpu_total_us,
        "stages": asdict(staged),
    }


def _sink_ceiling(place: Ground) -> dict[str, float]:
    """The sink's own: what it could take if it had a processor to itself."""
    seen = place.received()
    return {"requests_per_cpu_second": seen["requests"] / seen["cpu_seconds"], "requests": seen["requests"]}


def _audience(place: Ground, worker: int, people: int) -> Run:
    run = rows.campaign(place, worker, Channel.PUSH, people)
    say(f"audience of {people:,}: {run.cpu_total_us:.0f} µs a message, {run.peak_bytes / 2**20:.0f} MB")
    return run


def _latency(place: Ground, sizes: Sizes) -> dict[str, Any]:
    idle = latency.idle(place, sizes.triggers)
    loaded = latency.under_load(place, sizes.triggers, sizes.loaded)
    say(f"triggers: p99 {idle.p99_ms:.0f} ms idle, {loaded.p99_ms:.0f} ms beside a campaign")
    return {"idle": asdict(idle), "beside a campaign": asdict(loaded)}


if __name__ == "__main__":
    main()

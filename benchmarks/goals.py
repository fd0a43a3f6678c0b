"""The performance goals, and whether a run meets them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dispatcher.runtime.services import IN_FLIGHT_MAX

Results = Mapping[str, Any]
PLAIN, PATHS, BATCH = "e-mail single, any template", "e-mail single, recorded paths", "e-mail batch"
# By processor time: by the clock, the times also follow from how many processes the machine runs at once.
TIMES_BASELINE: Mapping[str, float] = {PLAIN: 18, PATHS: 40, BATCH: 55, "SMS": 22, "WhatsApp": 22, "push": 22}
DISTANT_PER_SECOND: Mapping[str, int] = {
    "push": 3_000,
    "SMS": 3_000,
    "WhatsApp": 3_000,
    "e-mail batch": 5_000,
    "e-mail batch, 1,000 in flight": 5_000,
}
SHARE_OF_LIMIT: Mapping[str, float] = {PLAIN: 0.55, PATHS: 0.45}


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal: its target, what this run measured, and whether it is met."""

    name: str
    target: str
    measured: str
    met: bool


def evaluate(results: Results) -> list[Goal]:
    """All goals that this run measured."""
    return [
        *_row_goals(results["rows"]),
        *_distant_goals(results),
        *_engine_goals(results),
        *_trigger_goals(results),
        *_kill_goals(results),
        *_data_goals(results),
    ]


def evaluate_history(results: Results, goals_ms: Mapping[str, float]) -> list[Goal]:
    """The goals of a ledger with a year of campaigns."""
    found = results["look_ups_ms"]
    look_ups = [Goal(name, f"{goal:g} ms", f"{found[name]:.1f} ms", found[name] <= goal) for name, goal in goals_ms.items()]
    more = results["old_us"] / results["empty_us"] - 1
    return [*look_ups, Goal("cost of a push vs an empty ledger", "within 10 %", f"{more:+.1%}", more <= 0.10)]


def _row_goals(rows: Results) -> Iterator[Goal]:
    for name, times in TIMES_BASELINE.items():
        if name in rows:
            measured, cpu = rows[name]["times_baseline"], rows[name]["times_baseline_cpu"]
            yield Goal(
                f"{name}: times the baseline by CPU", f"{times:.0f}", f"{cpu:.0f} ({measured:.0f} by the clock)", cpu >= times
            )
    for name, share in SHARE_OF_LIMIT.items():
        if name in rows:
            measured = rows[name]["share_of_limit"]
            yield Goal(f"{name}: share of the limit", f"{share:.0%}", f"{measured:.0%}", measured >= share)
    if BATCH in rows and PATHS in rows:
        factor = rows[PATHS]["ours"]["wire_bytes"] / rows[BATCH]["ours"]["wire_bytes"]
        yield Goal("bytes on the wire, batch to single: times fewer", "15", f"{factor:.0f}", factor >= 15)


def _distant_goals(results: Results) -> Iterator[Goal]:
    for name, run in results.get("distant", {}).items():
        target, measured = DISTANT_PER_SECOND[name], run["per_second"]
        times = measured / run["baseline_per_second"]
        yield Goal(
            f"{name}: one process, answers after 100 ms", f"{target:,}/s", f"{measured:,.0f}/s ({times:.0f} ×)", measured >= target
        )


def _engine_goals(results: Results) -> Iterator[Goal]:
    if "rendering" in results:
        times = results["rendering"]["times"]
        yield Goal("recorded paths: times ordinary rendering, byte-equal", "12", f"{times:.1f}", times >= 12)
    rows = results["rows"].values()
    statements = max(row["stages"]["statements"] for row in rows)
    commands = max(row["ours"]["commands"] for row in rows)
    yield Goal("SQL statements a message", "0.02", f"{statements:.3f}", statements <= 0.02)
    yield Goal("broker commands a message", "0.05", f"{commands:.3f}", commands <= 0.05)
    decide = max(row["stages"]["decide_us"] for row in rows)
    yield Goal("one decision over four channels", "50 µs", f"{decide:.0f} µs", decide <= 50)
    audiences = {int(people): run for people, run in results.get("audiences", {}).items()}
    if len(audiences) > 1 and 10_000 in audiences:
        first, last = sum(audiences[10_000]["cpu_us"].values()), sum(audiences[max(audiences)]["cpu_us"].values())
        goal = f"cost a message at {max(audiences):,} recipients vs at 10,000"
        yield Goal(goal, "within 15 %", f"{last / first - 1:+.1%}", abs(last / first - 1) <= 0.15)
    peak = max(run["peak_bytes"] for run in (*(row["ours"] for row in rows), *audiences.values())) / 2**20
    yield Goal("largest worker process", "130 MB", f"{peak:.0f} MB", peak <= 130)


def _trigger_goals(results: Results) -> Iterator[Goal]:
    if "latency" in results:
        idle, beside = (results["latency"][when]["p99_ms"] for when in ("idle", "beside a campaign"))
        yield Goal("trigger's p99 beside a campaign", "25 ms", f"{beside:.0f} ms", beside <= 25)
        yield Goal("… times idle", "2", f"{beside / idle:.1f}", beside <= 2 * idle)
    if "opt_outs" in results:
        late = results["opt_outs"]["late_claims"]
        yield Goal("claims after an opt-out", "0", f"{late}", late == 0)


def _data_goals(results: Results) -> Iterator[Goal]:
    """What data costs on its way in, and where it is kept."""
    if not (audiences := results.get("audiences")):
        return
    largest = audiences[max(audiences, key=int)]  # the smaller ones grow by whole pages
    for what, unit, most in (("in the database", "ledger_bytes", 1_200), ("of the log", "wal_bytes", 800)):
        yield Goal(f"bytes a message {what}", f"{most:,}", f"{largest[unit]:,.0f}", largest[unit] <= most)
    yield Goal("submission, processor a row", "25 µs", f"{largest['fan_out_us']:.0f} µs", largest["fan_out_us"] <= 25)
    if imported := results.get("imports"):
        new = imported["recipients, new"]
        cost = new["python_us"] + new["postgres_us"]
        yield Goal("import of a new recipient, processor", "200 µs", f"{cost:.0f} µs", cost <= 200)


def _kill_goals(results: Results) -> Iterator[Goal]:
    if "killed" in results:
        unknown, cost = results["killed"]["unknown_per_process"], results["killed"]["small_batches_us"]
        increase = cost / results["killed"]["large_batches_us"] - 1
        yield Goal("unknown after kill -9, per process", f"{IN_FLIGHT_MAX}", f"{unknown}", unknown <= IN_FLIGHT_MAX)
        yield Goal("… costing", "at most 15 %", f"{increase:.0%}", increase <= 0.15)

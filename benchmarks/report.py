"""The results of a run as a text table and as a chart. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from benchmarks.stage_costs import STAGES

Results = Mapping[str, Any]
_COLUMNS = ("", "msgs/s", "× base", "× base/CPU", "of limit", "CPU µs", *STAGES, "PostgreSQL", "SQL", "broker", "PSS MB")


def table(results: Results) -> str:
    """The whole run as text."""
    return "\n".join(_lines(results))


def _lines(results: Results) -> Iterator[str]:
    yield f"\n{_machine(results)}\n"
    yield from _aligned([_COLUMNS, *(_row(name, row) for name, row in results["rows"].items())])
    yield from _legend()
    yield from _limits(results)
    decide = max(row["stages"]["decide_us"] for row in results["rows"].values())
    yield f"one decision over four channels: {decide:.1f} µs"
    publish = max(row["stages"]["publish_us"] for row in results["rows"].values())
    yield f"publishing an event: {publish:.1f} µs, beside the costs of a message"
    for people, run in results.get("audiences", {}).items():
        cost = sum(run["cpu_us"].values())
        yield (
            f"{int(people):>9,} recipients (push): {cost:.0f} µs a message, {run['messages'] / run['seconds']:,.0f}/s, "
            f"fan-out {run['fan_out_us']:.0f} µs a row, largest worker {run['peak_bytes'] / 2**20:.0f} MB"
        )
    for when, trigger in results.get("latency", {}).items():
        yield f"trigger, publish to receipt, {when}: p50 {trigger['p50_ms']:.1f} ms, p99 {trigger['p99_ms']:.1f} ms"
    for name, cost in results.get("imports", {}).items():
        yield (
            f"import of {name}: {cost['python_us']:.0f} µs of Python and {cost['postgres_us']:.0f} µs of PostgreSQL a row,"
            f" {1e6 / cost['elapsed_us']:,.0f} rows/s"
        )
    for name, run in results.get("distant", {}).items():
        times = run["per_second"] / run["baseline_per_second"]
        yield f"{name}, one process, answers after 100 ms: {run['per_second']:,.0f}/s, {times:.0f} times the baseline"
    if race := results.get("opt_outs"):
        yield (
            f"opt-outs: {race['opt_outs']} in running campaigns, {race['late_claims']} claims after one, "
            f"last arrival {race['last_arrival_seconds'] * 1e3:.0f} ms after its commit"
        )
    if kills := results.get("killed"):
        increase = kills["small_batches_us"] / kills["large_batches_us"] - 1
        unknown = kills["unknown_per_process"]
        yield f"kill -9: {unknown} messages unknown per process; batches of 200 cost {increase:.0%} more than batches of 1,000"
    yield ""
    yield from _goals(results)


def history_table(results: Results) -> str:
    """The measurement of an old ledger as text."""
    head = f"\na ledger of {results['messages']:,} messages and {results['people']:,} recipients; {_machine(results)}\n"
    return "\n".join([head, *_goals(results)])


def _machine(results: Results) -> str:
    machine = results["machine"]
    return (
        f"{machine['processors']} processors, {machine['memory_gb']} GB, {machine['system']}, Python {machine['python']}; "
        f"{machine['workers']} campaign workers; load before: {machine['load_before']:.1f}"
    )


def _goals(results: Results) -> Iterator[str]:
    goals = [(goal["name"], goal["target"], goal["measured"], "met" if goal["met"] else "MISSED") for goal in results["goals"]]
    yield from _aligned([("goal", "target", "measured", ""), *goals])


def _row(name: str, row: Results) -> Sequence[str]:
    ours, stages = row["ours"], row["stages"]
    return (
        name,
        f"{ours['per_second']:,.0f}",
        f"{row['times_baseline']:.1f}",
        f"{row['times_baseline_cpu']:.1f}",
        f"{row['share_of_limit']:.0%}",
        f"{ours['cpu_total_us']:.0f}",
        *(f"{stages['cpu_us'][stage]:.0f}" for stage in STAGES),
        f"{ours['cpu_us']['postgres']:.0f}",
        f"{stages['statements']:.3f}",
        f"{ours['commands']:.3f}",
        f"{ours['peak_bytes'] / 2**20:.0f}",
    )


def _legend() -> Iterator[str]:
    yield ""
    yield "CPU µs: processor time per message, workers, PostgreSQL, broker and sink together; the stages are the worker's own."
    yield "of limit: the most expensive part alone (below), as a share. × base: by elapsed time; × base/CPU: by processor time."
    yield "SQL and broker: statements and commands per message. PSS: the largest worker process."


def _limits(results: Results) -> Iterator[str]:
    yield ""
    for name, row in results["rows"].items():
        base, wire = row["baseline"], (row["ours"]["wire_bytes"], row["baseline"]["wire_bytes"])
        parts = ", ".join(f"{part} {cost:.0f} µs" for part, cost in row["stages"]["alone_us"].items())
        yield (
            f"{name}: alone {parts}; baseline {base['per_second']:,.0f}/s, {base['cpu_total_us']:,.0f} µs, "
            f"{base['commands']:.1f} broker commands; {wire[0]:,.0f} bytes on the wire (baseline {wire[1]:,.0f})"
        )
    sink = results["sink"]
    yield f"the sink's own ceiling: {sink['requests_per_cpu_second']:,.0f} requests per second of its processor\n"


def _aligned(cells: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join((row[0].ljust(len(first)), *others))


# -- the chart ---------------------------------------------------------------------------------------------------------


def chart(results: Results) -> str:
    """A bar chart of the speed-up over the baseline, by processor time."""
    rows = results["rows"]
    largest = max((row["times_baseline_cpu"] for row in rows.values()), default=1.0)
    bars = "".join(_bar(place, name, row["times_baseline_cpu"], largest) for place, (name, row) in enumerate(rows.items()))
    height = 60 + 36 * len(rows)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="720" height="{height}" font-family="sans-serif" font-size="14">'
        f'<text x="16" y="28" font-weight="bold">Messages per processor second, times the baseline</text>{bars}</svg>\n'
    )


def _bar(place: int, name: str, times: float, largest: float) -> str:
    y, width = 48 + 36 * place, 440 * times / largest
    return (
        f'<text x="16" y="{y + 18}">{escape(name)}</text><rect x="150" y="{y}" width="{width:.0f}" height="26" fill="#0077b6"/>'
        f'<text x="{158 + width:.0f}" y="{y + 18}">{times:.1f} ×</text>'
    )

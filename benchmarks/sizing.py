"""The tables of docs/explanation/sizing.md, computed from a run. Pure.

python -m benchmarks.sizing artifacts/bench.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Results = Mapping[str, Any]
LOAD = 0.7  # planned utilisation of a processor
HOURLY = (1_000_000, 10_000_000, 100_000_000)
DEAREST, CHEAPEST = "e-mail single, any template", "e-mail batch"


def tables(results: Results) -> Iterator[str]:
    """The cost of one message, and the resources for a number of messages per hour, as Markdown."""
    rows = results["rows"]
    yield "| | worker | PostgreSQL | broker | in the ledger | written to the log (WAL) |"
    yield "|---|---|---|---|---|---|"
    for name, row in rows.items():
        run = row["ours"]
        cpu = " | ".join(f"{run['cpu_us'][part]:.0f} µs" for part in ("workers", "postgres", "broker"))
        yield f"| {name} | {cpu} | {run['ledger_bytes'] / 1e3:.1f} KB | {run['wal_bytes'] / 1e3:.1f} KB |"
    for name in (DEAREST, CHEAPEST):
        if name in rows:
            yield ""
            yield from _hourly_needs(name, rows[name]["ours"])


def _hourly_needs(name: str, run: Results) -> Iterator[str]:
    yield f"| {name}: an hour | a second | worker processors | PostgreSQL processors | WAL | ledger grows by |"
    yield "|---|---|---|---|---|---|"
    for messages in HOURLY:
        per_second = messages / 3_600
        workers, postgres = (per_second * run["cpu_us"][part] / 1e6 / LOAD for part in ("workers", "postgres"))
        wal, growth = per_second * run["wal_bytes"] / 1e6, messages * run["ledger_bytes"] / 1e9
        needs = f"{_format(workers)} | {_format(postgres)} | {_format(wal)} MB/s | {_format(growth)} GB"
        yield f"| {messages / 1e6:.0f} million | {per_second:,.0f} | {needs} |"


def _format(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


if __name__ == "__main__":
    print("\n".join(tables(json.loads(Path(sys.argv[1]).read_text()))))

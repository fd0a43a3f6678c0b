"""The cost of an import, by row: recipients who are new, unchanged and changed, and a list of suppressed addresses."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.environment import BenchEnvironment, log_progress
from benchmarks.resource_usage import cpu_seconds
from dispatcher.consent import recipients, suppressions
from dispatcher.consent.suppressions import SuppressionRequest


def measure(bench: BenchEnvironment, rows: int) -> dict[str, dict[str, float]]:
    """Microseconds a row: processor time of this process and of PostgreSQL, and elapsed time. Each recipient has six choices."""
    services = bench.services
    people = bench.home / "import.jsonl"
    listed = bench.home / "suppression_unsubscribes.csv"

    def import_people(purchased: list[str]) -> Callable[[], object]:
        people.write_text("".join(json.dumps(_person(n, purchased)) + "\n" for n in range(rows)), encoding="utf-8")
        return lambda: recipients.import_recipients(services, people, bench.home / "rejects.jsonl", "benchmark")

    def import_list() -> object:
        return suppressions.import_list(services, SuppressionRequest(listed, "benchmark"))

    listed.write_text("email,created\n" + "".join(f"listed-{n}@example.org,1790083507\n" for n in range(rows)), encoding="utf-8")
    return {
        "recipients, new": _taken(bench, rows, import_people([])),
        "recipients, unchanged": _taken(bench, rows, import_people([])),
        "recipients, changed": _taken(bench, rows, import_people(["loan"])),
        "suppressions, new": _taken(bench, rows, import_list),
    }


def _taken(bench: BenchEnvironment, rows: int, run: Callable[[], object]) -> dict[str, float]:
    postgres, own, started = cpu_seconds(bench.meters.postgres), time.process_time(), time.perf_counter()
    run()
    taken = {
        "python_us": time.process_time() - own,
        "postgres_us": cpu_seconds(bench.meters.postgres) - postgres,
        "elapsed_us": time.perf_counter() - started,
    }
    return {name: seconds / rows * 1e6 for name, seconds in taken.items()}


def _person(number: int, purchased: list[str]) -> Mapping[str, Any]:
    phone = f"+3247{number:07}"
    return {
        "id": f"import-{number}",
        "person": "customer",
        "language": "nl",
        "birth_date": "1980-01-31",
        "entities": ["kbc-bank"],
        "has_current_account": True,
        "email": f"import-{number}@example.org",
        "phone": phone,
        "whatsapp": phone,
        "push": [{"token": f"device-{number}", "platform": "android", "permission": True}],
        "purchased": purchased,
        "offers": {"own": "tailored", "partner": "none", "kate": "tailored"},
        "channels": {"email": True, "push": True, "sms_whatsapp": True},
        "profile": {"identity": {"first_name": "Élise", "last_name": "Dubois"}, "transactions": {"amount": "120"}},
        "said_at": "2026-03-14T09:00:00+01:00",
    }


def main() -> None:
    """`python -m benchmarks.imports`: only this measurement."""
    from benchmarks.environment import bench_environment

    with bench_environment(1_000, 1, one_authority=False) as bench:
        for name, cost in measure(bench, 30_000).items():
            log_progress(f"{name}: {', '.join(f'{part} {value:.0f}' for part, value in cost.items())}")


if __name__ == "__main__":
    main()

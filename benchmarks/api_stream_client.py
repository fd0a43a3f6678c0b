"""The client of `benchmarks.api_streams`, in a process of its own that loads nothing else."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import cast

from dispatcher.client import Client
from dispatcher.client.documents import Campaign, Recipient

WARM_ROWS = 10_000  # memory is compared with that after so many
KEY = "BENCHMARK_KEY"


def main() -> None:
    """Do one part, and print its result as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("url")
    parser.add_argument("seconds", type=float)
    parser.add_argument("audience", type=int)
    options = parser.parse_args()
    print(json.dumps(PARTS[options.part](Client(options.url, os.environ[KEY]), options)))


def _send_recipients(client: Client, options: argparse.Namespace) -> dict[str, float]:
    """Send people until the time is over."""
    started, rows, warm = time.monotonic(), 0, 0
    end = started + options.seconds
    with client:
        for result in client.put_recipients(_people(end), upload_id="benchmark"):
            assert result["outcome"] == "new", result
            rows += 1
            warm = memory_bytes("VmHWM:") if rows == WARM_ROWS else warm
    return {"rows": rows, "seconds": time.monotonic() - started, "warm_bytes": warm, "peak_bytes": memory_bytes("VmHWM:")}


def _people(end: float) -> Iterator[Recipient]:
    for number in count():
        if time.monotonic() > end:
            return
        yield cast(
            "Recipient",
            {
                "id": f"api-{number}",
                "person": "customer",
                "language": "nl",
                "birth_date": "1980-01-31",
                "entities": ["kbc-bank"],
                "email": f"api-{number}@example.org",
                "phone": f"+3247{number % 10_000_000:07}",
                "offers": {"own": "tailored", "partner": "none", "kate": "tailored"},
                "channels": {"email": True, "push": True, "sms_whatsapp": True},
                "profile": {"identity": {"first_name": "Élise", "last_name": "Dubois"}},
            },
        )


def _send_audience(client: Client, options: argparse.Namespace) -> dict[str, float]:
    """Upload an audience, and submit a campaign of it for tomorrow."""
    file = Path(os.environ["DISPATCHER_HOME"]) / "million.jsonl"
    data = os.environ["BENCHMARK_OFFER"]
    with file.open("w", encoding="utf-8") as stream:
        stream.writelines(f'{{"recipient":"c-{number}","data":{data}}}\n' for number in range(options.audience))
    started = time.monotonic()
    form = {"id": "million", "template": "loan_offer", "channels": ["push"], "audience": {"upload": file.name}}
    with client:
        client.upload_audience_file(file.name, file)
        warm = memory_bytes("VmHWM:")
        tomorrow = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 86_400))
        accepted = client.submit_campaign(cast("Campaign", {**form, "send_at": tomorrow}))
    assert (accepted["audience"], accepted["invalid"]) == (options.audience, 0), accepted
    return {
        "rows": options.audience,
        "seconds": time.monotonic() - started,
        "warm_bytes": warm,
        "peak_bytes": memory_bytes("VmHWM:"),
    }


PARTS = {"recipients": _send_recipients, "audience": _send_audience}


def memory_bytes(name: str, pid: int | str = "self") -> int:
    """The resident set of a process now (`VmRSS:`) or at most so far (`VmHWM:`)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


if __name__ == "__main__":
    main()

"""`python -m benchmarks.api_streams`: memory of server and client while many rows go in by the API.

Recipients go in for some minutes (`--seconds`), then an audience of a million (`--audience`) is uploaded and submitted. The client
is `dispatcher.client` in a process of its own; the server is the web application. Both are measured by their largest resident set.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from benchmarks.api_stream_client import KEY, PARTS, memory_bytes
from benchmarks.environment import BenchEnvironment, accepts_connections, bench_environment, log_progress, offer
from dispatcher.devserver import supervisor
from dispatcher.devserver.stack import free_port
from dispatcher.devserver.supervisor import ChildCommand
from dispatcher.web.api_keys import Right, new_key


def main() -> None:
    """Measure, and print a line for each part."""
    options = _options()
    with bench_environment(1_000, 1) as bench:
        key, line = new_key("benchmark", Right)
        keys, port = bench.home / "keys.toml", free_port()
        keys.write_text(line, encoding="utf-8")
        argv = (sys.executable, "-m", "uvicorn", "--factory", "dispatcher.web:app", "--port", str(port), "--log-level", "warning")
        web = ChildCommand("web", argv, supervisor.SERVERS, ready=partial(accepts_connections, port))
        with bench.running(web, DISPATCHER_API_KEYS=str(keys)) as server:
            while not accepts_connections(port, server):
                time.sleep(0.1)
            for part in PARTS:
                arguments = (part, f"http://127.0.0.1:{port}", str(options.seconds), str(options.audience))
                _run(bench, arguments, server, key)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.api_streams", description=__doc__)
    parser.add_argument("--seconds", type=float, default=180.0, help="how long recipients go in")
    parser.add_argument("--audience", type=int, default=1_000_000, help="rows of the audience")
    return parser.parse_args()


def _run(bench: BenchEnvironment, arguments: Sequence[str], server: int, key: str) -> None:
    before = memory_bytes("VmRSS:", server)
    command = [sys.executable, "-m", "benchmarks.api_stream_client", *arguments]
    done = subprocess.run(
        command,
        env={**bench.environ, KEY: key, "BENCHMARK_OFFER": json.dumps(offer(1))},
        capture_output=True,
        text=True,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    rate = result["rows"] / result["seconds"]
    log_progress(
        f"{arguments[0]}: {result['rows']:,} rows in {result['seconds']:.0f} s ({rate:,.0f}/s); "
        f"client {result['warm_bytes'] / 2**20:.0f} MB, at most {result['peak_bytes'] / 2**20:.0f} MB; "
        f"server {before / 2**20:.0f} MB, at most {memory_bytes('VmHWM:', server) / 2**20:.0f} MB"
    )


if __name__ == "__main__":
    main()

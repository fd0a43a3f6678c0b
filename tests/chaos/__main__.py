"""`python -m tests.chaos`: faults under load, with real processes; ends with 1 where a promise is broken."""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import re
import secrets
import signal
import sys
from pathlib import Path
from random import Random

from tests.chaos.faults import FAULTS
from tests.chaos.program import BROKERS, VALKEY, Topology
from tests.chaos.run import RECOVER_SECONDS_MAX, chosen, run


def main() -> int:
    """Parse the command line, run, print the table."""
    options = _parser().parse_args()
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)  # it is meant to lose its connections
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop everything, as Ctrl-C does
    signal.signal(signal.SIGINT, signal.default_int_handler)
    topology = Topology(options.broker, options.machines)
    kinds = [fault for fault in FAULTS if fault.is_possible(topology) and re.search(options.only, fault.name)]
    if not kinds:
        sys.stderr.write("no fault has this name; there are:\n" + "".join(f"  {fault.name}\n" for fault in FAULTS))
        return 2
    count = options.faults or len(kinds)
    faults = chosen(Random(options.seed), count, kinds)
    only = f' --only "{options.only}"' if options.only else ""
    only += f" --broker {options.broker}" if options.broker != VALKEY else ""
    only += f" --machines {options.machines}" if options.machines > 1 else ""
    _say(f"seed {options.seed}; repeat with: make chaos ARGS='--seed {options.seed} --faults {count}{only}'")
    report = run(
        options.seed, faults, _say, minutes=options.minutes, recover_seconds_max=options.recover_seconds, topology=topology
    )
    out = {**report.plain(), "machine": f"{platform.machine()}, {os.cpu_count()} processors"}
    if options.json_file is not None:
        options.json_file.write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")
    if options.json:
        sys.stdout.write(json.dumps(out) + "\n")
    else:
        sys.stdout.write(f"\n{report.table()}\n\n")
        sys.stdout.writelines(f"{name}: {value}\n" for name, value in report.measured.items())
        sys.stdout.writelines(f"note: {each}\n" for each in report.notes)
        sys.stdout.writelines(f"broken: {each}\n" for each in report.broken())
    return 1 if report.broken() else 0


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Faults under load, with real processes.")
    parser.add_argument("--faults", type=int, default=0, help="how many faults, by default each once")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="chooses faults and load; by default a new one")
    parser.add_argument("--minutes", type=float, default=60.0, help="start no fault after so many minutes")
    parser.add_argument("--broker", choices=BROKERS, default=VALKEY, help="the broker; RabbitMQ has to be installed")
    parser.add_argument(
        "--machines", type=int, choices=(1, 2), default=1, help="2: a second group of workers, as on another machine"
    )
    parser.add_argument("--only", default="", metavar="PATTERN", help="only faults whose name matches")
    parser.add_argument("--recover-seconds", type=float, default=RECOVER_SECONDS_MAX, help="the longest recovery allowed")
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead of the table")
    parser.add_argument("--json-file", type=Path, metavar="FILE", help="write the JSON there, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())

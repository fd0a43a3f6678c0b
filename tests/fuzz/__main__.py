"""`python -m tests.fuzz`: many generated files, each imported or submitted; ends with 1 where a promise is broken."""

from __future__ import annotations

import argparse
import itertools
import secrets
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from dispatcher.embedded import engines
from dispatcher.ledger.migrations import migrate
from tests.fuzz.checks import Target, check
from tests.fuzz.files import FileSpec, specs
from tests.support.services import make_services

SLOW_SECONDS = 5.0  # of processor time; a file takes some milliseconds
SHOWN = 30  # kinds of broken promises, each with its smallest file


def main() -> int:
    """Parse the command line, run, print what was broken."""
    options = _parser().parse_args()
    sys.stderr.write(f"seed {options.seed}; repeat with: make fuzz ARGS='--files {options.files} --seed {options.seed}'\n")
    smallest: dict[str, tuple[int, FileSpec]] = {}
    counts: Counter[str] = Counter()
    numbers = itertools.count(1)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, engines(Path(folder) / "e") as running:
        migrate(running.database_url)
        with make_services(running.database_url) as services:

            @seed(options.seed)
            @settings(
                max_examples=options.files,
                deadline=None,
                database=None,
                phases=(Phase.generate,),
                suppress_health_check=list(HealthCheck),
            )
            @given(specs())
            def run(spec: FileSpec) -> None:
                number, began = next(numbers), time.process_time()
                try:
                    broken = check(Target(services, running.database_url, Path(folder)), spec, number)
                except Exception as error:  # an error in the program is a broken promise
                    broken = [f"{type(error).__name__}: {error}"]
                if time.process_time() - began > SLOW_SECONDS:
                    broken.append("it takes long")
                counts.update(files=1, rows=len(spec.rows), broken=bool(broken))
                counts.update([spec.container, "audiences" if spec.is_audience else "imports"])
                for each in broken:
                    kind = f"{'audience' if spec.is_audience else 'import'}: {_kind(each)}"
                    size = len(repr(spec))
                    if kind not in smallest or size < smallest[kind][0]:
                        smallest[kind] = (size, spec)
                if number % 1_000 == 0:
                    sys.stderr.write(f"{number} files, {counts['broken']} with a broken promise\n")

            run()
    seconds = time.monotonic() - started
    sys.stdout.write(f"{counts['files']} files with {counts['rows']} rows in {seconds:.0f} s: {counts['broken']} broke a promise\n")
    sys.stdout.write(", ".join(f"{name}: {number}" for name, number in sorted(counts.items())) + "\n")
    for kind, (_, spec) in sorted(smallest.items(), key=lambda each: each[1][0])[:SHOWN]:
        sys.stdout.write(f"\n{kind}\n  {spec}\n")
    return 1 if counts["broken"] else 0


def _kind(text: str) -> str:
    return "".join("#" if character.isdigit() else character for character in text)[:160]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Generated files, imported and submitted.")
    parser.add_argument("--files", type=int, default=2_000, help="how many files")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="chooses the files; by default a new one")
    return parser


if __name__ == "__main__":
    sys.exit(main())

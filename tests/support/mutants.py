"""The score of `make mutants`: how many small changes to the deciding code the tests notice, and which they do not.

mutmut keeps, for each file, what became of each change. No score is asked for: the survivors that docs/explanation/policy.md does
not account for are to be read, and what changes a verdict gets a test.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

COPY = Path("mutants")  # where mutmut puts the changed code and its results
NOTICED = {
    1,
    3,
    24,
    -24,
    36,
    152,
    255,
}  # pytest's exit codes for a failing test or a broken run, then those of a change that never ended


def main() -> None:
    """Print the score of each file, then every survivor as a difference."""
    found = {file: _exit_codes(file) for file in sorted(COPY.rglob("*.py.meta"))}
    counted = {file: fates for file, fates in found.items() if fates}
    for file, fates in counted.items():
        _print_score(file.relative_to(COPY).with_suffix("").as_posix(), list(fates.values()))
    _print_score("all", [fate for fates in counted.values() for fate in fates.values()])
    for name in sorted(name for fates in counted.values() for name, fate in fates.items() if not _is_noticed(fate)):
        shown = subprocess.run([sys.executable, "-m", "mutmut", "show", name], capture_output=True, text=True, check=True)
        changed = [line for line in shown.stdout.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
        print("", name, *changed, sep="\n")


def _exit_codes(file: Path) -> dict[str, int | None]:
    fates: dict[str, int | None] = json.loads(file.read_text())["exit_code_by_key"]
    return fates


def _is_noticed(fate: int | None) -> bool:
    return fate in NOTICED


def _print_score(what: str, fates: list[int | None]) -> None:
    noticed = sum(map(_is_noticed, fates))
    print(f"{what:32} {noticed:5} of {len(fates):5} noticed  {noticed / len(fates):6.1%}")


if __name__ == "__main__":
    main()

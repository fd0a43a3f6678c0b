"""The score of `make mutants`: how many small changes (mutants) of the deciding code the tests notice, and which not.

mutmut stores the result of each change in a file. There is no minimum score: read the survivors that docs/explanation/policy.md
does not explain, and add a test for each one that changes a decision.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

COPY = Path("mutants")  # mutmut's folder for the changed code and its results
NOTICED = {
    1,
    3,
    24,
    -24,
    36,
    152,
    255,
}  # pytest's exit codes for a failing test or a broken run, and those after a timeout


def main() -> None:
    """Print the score of each file, then every survivor as a diff."""
    exit_codes_by_file = {file: _exit_codes(file) for file in sorted(COPY.rglob("*.py.meta"))}
    tested = {file: exit_codes for file, exit_codes in exit_codes_by_file.items() if exit_codes}
    for file, exit_codes in tested.items():
        _print_score(file.relative_to(COPY).with_suffix("").as_posix(), list(exit_codes.values()))
    _print_score("all", [exit_code for exit_codes in tested.values() for exit_code in exit_codes.values()])
    for name in sorted(
        name for exit_codes in tested.values() for name, exit_code in exit_codes.items() if not _is_noticed(exit_code)
    ):
        diff = subprocess.run([sys.executable, "-m", "mutmut", "show", name], capture_output=True, text=True, check=True)
        changed = [line for line in diff.stdout.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
        print("", name, *changed, sep="\n")


def _exit_codes(file: Path) -> dict[str, int | None]:
    exit_codes: dict[str, int | None] = json.loads(file.read_text())["exit_code_by_key"]
    return exit_codes


def _is_noticed(exit_code: int | None) -> bool:
    return exit_code in NOTICED


def _print_score(name: str, exit_codes: list[int | None]) -> None:
    noticed = sum(map(_is_noticed, exit_codes))
    print(f"{name:32} {noticed:5} of {len(exit_codes):5} noticed  {noticed / len(exit_codes):6.1%}")


if __name__ == "__main__":
    main()

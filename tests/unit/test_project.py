"""The project's checks, run with the tests: lint, format, types, import contracts, and portable lock files."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT_IMPORTS = "from importlinter.cli import lint_imports_command; lint_imports_command()"
CHECKS = {
    "ruff check": ("-m", "ruff", "check", "--no-cache", "."),
    "ruff format": ("-m", "ruff", "format", "--no-cache", "--check", "."),
    "mypy": ("-m", "mypy"),
    "import contracts": ("-c", LINT_IMPORTS, "--no-cache"),
}


@pytest.mark.parametrize("arguments", CHECKS.values(), ids=CHECKS.keys())
def test_checks_pass(arguments: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("lock", ["run", "test", "docs"])
def test_a_lock_pins_every_dependency_by_hash_without_a_url(lock: str) -> None:
    lines = (ROOT / "requirements" / f"{lock}.txt").read_text().splitlines()
    entries = [line for line in lines if line and not line.lstrip().startswith("#")]
    assert all(re.fullmatch(r"([\w.-]+==[\w.+!-]+( ; .+)?|    --hash=sha256:[0-9a-f]{64})( \\)?", line) for line in entries)
    assert not re.search(r"://|(?:^|\s)(?:-i|--index-url|--extra-index-url|--find-links|--trusted-host)\s", "\n".join(lines), re.M)
    pinned = {line.partition("==")[0] for line in entries if "==" in line}
    assert _wanted(lock) <= pinned


def _wanted(lock: str) -> set[str]:
    """The names of the requirements in pyproject.toml, in the index's normal form."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = document["project"]
    wanted = [*project["dependencies"], *document["build-system"]["requires"]]
    wanted += project["optional-dependencies"].get(lock, [])
    return {re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", name)[0]).lower() for name in wanted}

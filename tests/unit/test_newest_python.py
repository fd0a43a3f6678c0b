"""Which Python `make` selects for .venv, tested with scripts in place of Python."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tools.release import ROOT

SCRIPT = ROOT / "tools" / "newest_python.sh"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with the folders `bin` and `manager/shims`, both on PATH."""
    for folder in ("bin", "manager/shims", "manager/versions"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def install(path: Path, minor: int | None, micro: int = 0) -> None:
    """Install a suitable Python 3.`minor`.`micro`; with None one that fails, like an inactive shim."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + ("exit 127\n" if minor is None else f"echo {minor * 1000 + micro} '{path}'\n"))
    path.chmod(0o755)


def newest(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script with nothing else on PATH."""
    environment = {"PATH": os.pathsep.join((str(home / "bin"), str(home / "manager" / "shims")))}
    return subprocess.run(["/bin/sh", str(SCRIPT), *arguments], env=environment, check=False, capture_output=True, text=True)


def test_the_newest_version_is_taken_from_any_name_and_place(home: Path) -> None:
    install(home / "bin" / "python3.11", 11, 9)
    install(home / "bin" / "python3", 13, 2)
    install(home / "manager" / "shims" / "python3.12", 12)
    assert newest(home).stdout == f"{home}/bin/python3\n"


def test_a_python_that_fails_to_run_is_skipped(home: Path) -> None:
    install(home / "bin" / "python3", 11)
    install(home / "manager" / "shims" / "python3.13", None)
    assert newest(home).stdout == f"{home}/bin/python3\n"


def test_inactive_versions_of_a_version_manager_are_found(home: Path) -> None:
    install(home / "bin" / "python3", 11)
    install(home / "manager" / "shims" / "python3.13", None)
    install(home / "manager" / "versions" / "3.13.0" / "bin" / "python3", 13)
    install(home / "manager" / "versions" / "3.13.4" / "bin" / "python3", 13, 4)
    assert newest(home).stdout == f"{home}/manager/versions/3.13.4/bin/python3\n"


def test_a_named_python_is_taken_even_if_a_newer_one_exists(home: Path) -> None:
    install(home / "bin" / "python3.11", 11)
    install(home / "bin" / "python3.13", 13)
    assert newest(home, "python3.11").stdout == f"{home}/bin/python3.11\n"


def test_no_name_is_the_same_as_an_empty_one(home: Path) -> None:
    install(home / "bin" / "python3.13", 13)
    assert newest(home, "").stdout == newest(home).stdout


@pytest.mark.parametrize("arguments", [(), ("python3.13",)])
def test_without_a_suitable_python_the_error_says_so(home: Path, arguments: tuple[str, ...]) -> None:
    install(home / "bin" / "python3.13", None)
    done = newest(home, *arguments)
    assert done.returncode != 0
    assert done.stdout == ""
    assert "needs CPython 3.11, 3.12, 3.13 or 3.14 with venv" in done.stderr

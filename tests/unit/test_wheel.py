"""A wheel has every file that the program reads, so it runs without the checkout, from any folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
FOLDERS = ("dispatcher", "channels", "templates")
INPUTS = ("pyproject.toml", "README.md", "celeryconfig.py")


def files_of(folder: str) -> set[str]:
    """The files of a folder of the checkout, by their place in a wheel: the templates are below `dispatcher/`."""
    inside = (path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    prefix = "dispatcher/" if folder == "templates" else ""
    return {f"{prefix}{path.relative_to(ROOT).as_posix()}" for path in inside if not path.name.startswith(".")}


def test_a_wheel_has_every_file_of_the_program(tmp_path: Path) -> None:
    source = tmp_path / "source"  # a copy: setuptools writes beside the sources, and takes up what an earlier build left there
    source.mkdir()
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in INPUTS:
        shutil.copy(ROOT / name, source)
    done = subprocess.run([sys.executable, "-c", BUILD, str(tmp_path)], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = set().union(*(files_of(folder) for folder in FOLDERS)) | {"celeryconfig.py"}
    assert packed == expected

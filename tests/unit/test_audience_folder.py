"""A task names an audience in one folder, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dispatcher.intake.audience_folder import allowed_file
from dispatcher.intake.errors import BadInput


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "audiences"
    (folder / "spring").mkdir(parents=True)
    (folder / "spring" / "rows.csv").write_text("recipient\n")
    (tmp_path / "secret.key").write_text("secret")
    (folder / "inside.csv").symlink_to(folder / "spring" / "rows.csv")
    (folder / "outside.csv").symlink_to(tmp_path / "secret.key")
    (folder / "loop.csv").symlink_to(folder / "loop.csv")
    os.mkfifo(folder / "pipe.csv")
    return folder


@pytest.mark.parametrize("name", ["spring/rows.csv", "./spring/../spring/rows.csv", "inside.csv"])
def test_a_file_in_the_folder_is_read(folder: Path, name: str) -> None:
    assert allowed_file(folder, name) == folder / "spring" / "rows.csv"
    assert allowed_file(folder, str(folder / name)) == folder / "spring" / "rows.csv"


@pytest.mark.parametrize(
    "name", ["../secret.key", "/etc/passwd", "outside.csv", "pipe.csv", "loop.csv", "spring", "none.csv", "", "a\0b", "/dev/zero"]
)
def test_nothing_else_is_read_and_the_error_tells_nothing(folder: Path, name: str) -> None:
    with pytest.raises(BadInput) as refused:
        allowed_file(folder, name)
    assert str(refused.value).endswith(f"should name a file in {folder} (DISPATCHER_AUDIENCES)")

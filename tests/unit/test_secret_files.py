"""The folder of secrets: each file is a variable, as containers and service managers mount them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dispatcher.runtime.settings import InvalidSettings, Settings

KEY, URL = "k" * 40, "postgresql://u:pass-db@db.example/d"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as Kubernetes mounts it: links into a hidden folder."""
    hidden = tmp_path / "..data"
    hidden.mkdir()
    for name, value in {"DISPATCHER_DATABASE_URL": f"{URL}\n", "DISPATCHER_SECRET_KEY": KEY, "api_keys": "x"}.items():
        (hidden / name).write_text(value)
        (tmp_path / name).symlink_to(f"..data/{name}")
    return tmp_path


def read(folder: Path, **environ: str) -> Settings:
    """The settings with this folder."""
    return Settings.from_environment({"DISPATCHER_SECRETS": str(folder), **environ})


def test_files_are_variables(folder: Path) -> None:
    settings = read(folder)
    assert (settings.database_url, settings.secret_key) == (URL, KEY)
    assert settings.warnings == ()


def test_the_environment_goes_first(folder: Path) -> None:
    assert read(folder, DISPATCHER_SECRET_KEY="e" * 40).secret_key == "e" * 40
    assert read(folder, DISPATCHER_SECRET_KEY=" ").secret_key == KEY  # an empty value counts as not set


def test_a_misspelt_file_is_named(folder: Path) -> None:
    (folder / "DISPATCHER_SECRET_KEYS").write_text("x")
    assert any("did you mean DISPATCHER_SECRET_KEY?" in warning for warning in read(folder).warnings)


def test_what_cannot_be_read_is_an_error_without_its_content(folder: Path) -> None:
    (folder / "TWILIO_AUTH_TOKEN").write_bytes(b"\xffsecret")
    (folder / "SENDGRID_API_KEY").mkdir()
    with pytest.raises(InvalidSettings) as error:
        read(folder)
    assert "TWILIO_AUTH_TOKEN" in str(error.value)
    assert "SENDGRID_API_KEY" in str(error.value)
    assert "secret" not in str(error.value).replace("SECRETS", "")


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="cannot be read"):
        read(tmp_path / "none")


def test_celery_reads_its_broker_there_too(folder: Path) -> None:
    (folder / "DISPATCHER_BROKER_URL").write_text("redis://:secret@broker.example/0\n")
    (folder / "DISPATCHER_BROKER_SENTINEL_PASSWORD").write_text("of-the-sentinels\n")
    shown = "import celeryconfig as c; print(c.broker_url, c.broker_transport_options['sentinel_kwargs']['password'])"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER_")}
    environ["DISPATCHER_SECRETS"] = str(folder)
    done = subprocess.run([sys.executable, "-c", shown], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["redis://:secret@broker.example/0", "of-the-sentinels"]

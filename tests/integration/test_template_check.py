"""The command `dispatcher templates check`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dispatcher.cli.templates import app
from dispatcher.runtime import bootstrap
from tests.support.sound_templates import sound_folder
from tests.support.template_folder import write

FAULTY = "offer/nl/email.html"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory; the templates are in its folder `mails`, with a picture without alt text and a vague link."""
    files = sound_folder()
    files[FAULTY] = files[FAULTY].replace("<h2>", '<img src="https://www.bank.example/a.png"><h2>')
    files[FAULTY] = files[FAULTY].replace('"Bereken je lening") }}', '"Klik hier") }}')
    write(tmp_path / "mails", files)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISPATCHER_TEMPLATES", str(tmp_path / "mails"))
    monkeypatch.setenv("DISPATCHER_HOME", str(tmp_path / "home"))
    bootstrap.settings.cache_clear()
    yield tmp_path
    bootstrap.settings.cache_clear()


@pytest.mark.usefixtures("folder")
def test_check_prints_findings_for_people_and_for_programs() -> None:
    runner = CliRunner()
    text = runner.invoke(app, ["check"])
    assert text.exit_code == 1
    assert f"{FAULTY}:7: T101 error: img alt" in text.stderr
    document = json.loads(runner.invoke(app, ["check", "offer", "--json"]).stdout)
    assert [(each["code"], each["line"], each["languages"]) for each in document["faults"]] == [("T101", 7, ["nl"])]
    assert [each["code"] for each in document["warnings"]] == ["T202", "T102"]
    log = json.loads(runner.invoke(app, ["check", "--format", "sarif"]).stdout)
    uris = {each["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for each in log["runs"][0]["results"]}
    assert uris == {f"mails/{FAULTY}"}


def test_check_fails_on_warnings_where_that_is_asked(folder: Path) -> None:
    file = folder / "mails" / FAULTY
    file.write_text(file.read_text(encoding="utf-8").replace("<img ", '<img alt="" '), encoding="utf-8")
    runner = CliRunner()
    assert runner.invoke(app, ["check"]).exit_code == 0
    assert runner.invoke(app, ["check", "--fail-on", "warning"]).exit_code == 1


@pytest.mark.usefixtures("folder")
def test_check_explains_a_code() -> None:
    runner = CliRunner()
    rule = json.loads(runner.invoke(app, ["check", "--explain", "t101", "--json"]).stdout)
    assert (rule["code"], rule["severity"]) == ("T101", "error")
    assert "WCAG" in rule["source"]
    assert "did you mean" in str(runner.invoke(app, ["check", "--explain", "T1O1"]).exception)

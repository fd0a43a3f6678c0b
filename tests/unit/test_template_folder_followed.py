"""A folder of templates is followed while a process runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from channels.alerts import set_alert_sink
from dispatcher import content
from dispatcher.policy import parse, shipped
from dispatcher.runtime.template_folder import LOOK_SECONDS, TemplateFolder
from tests.support.template_folder import DECLARATION, small_folder, write

FILES = small_folder() | {"hello/template.toml": DECLARATION}


@pytest.fixture
def alerts() -> Iterator[list[tuple[str, str]]]:
    heard: list[tuple[str, str]] = []
    set_alert_sink(lambda provider, code, _: heard.append((provider, code)))
    yield heard
    set_alert_sink(lambda *_: None)


class Followed:
    """A small folder that is followed, and a clock."""

    def __init__(self, path: Path) -> None:
        self.path = write(path, FILES)
        self.seconds = 0.0
        self.folder = TemplateFolder(path, parse(shipped()), content.load(path), None, lambda: self.seconds)

    def refreshed(self) -> content.Catalog:
        self.seconds += LOOK_SECONDS
        return self.folder.refresh()


@pytest.fixture
def followed(tmp_path: Path) -> Followed:
    return Followed(tmp_path / "templates")


def second(name: str = "second") -> dict[str, str]:
    return {
        file.replace("hello/", f"{name}/"): text.replace('"hello"', f'"{name}"') for file, text in FILES.items() if "hello/" in file
    }


def test_edited_and_new_templates_appear(followed: Followed) -> None:
    first = followed.refreshed()
    write(followed.path, second())
    both = followed.refreshed()
    assert set(both) == {"hello", "second"}
    assert both["hello"] is first["hello"]
    write(followed.path, {"second/template.toml": second()["second/template.toml"].replace('version = "1"', 'version = "2"')})
    assert followed.folder.refresh() is both  # not looked at again so soon
    edited = followed.refreshed()
    assert (edited["second"].version, edited["hello"] is first["hello"]) == ("2", True)
    assert edited["second"].digest == content.load(followed.path)["second"].digest


def test_a_removed_template_disappears(followed: Followed) -> None:
    write(followed.path, second())
    assert len(followed.refreshed()) == 2
    for file in second():
        (followed.path / file).unlink()
    assert list(followed.refreshed()) == ["hello"]


def test_a_change_of_a_shared_file_changes_every_template(followed: Followed) -> None:
    first = followed.refreshed()
    write(followed.path, {"_shared/legal.toml": f"# reviewed\n{FILES['_shared/legal.toml']}"})
    assert followed.refreshed()["hello"].digest != first["hello"].digest


def test_a_template_with_faults_stops_no_other_one(followed: Followed, alerts: list[tuple[str, str]]) -> None:
    write(followed.path, second() | second("third"))
    first = followed.refreshed()
    edited = second()["second/template.toml"].replace('version = "1"', 'version = "2"')
    write(followed.path, {"second/template.toml": edited, "third/en/texts.toml": "[sms"})
    refreshed = followed.refreshed()
    assert {name: each.version for name, each in refreshed.items()} == {"hello": "1", "second": "2", "third": "1"}
    assert (refreshed["hello"] is first["hello"], refreshed["third"] is first["third"]) == (True, True)
    assert alerts == [("templates", "invalid")]


@pytest.mark.parametrize(
    "fault", [{"hello/en/texts.toml": "[sms"}, {"hello/template.toml": DECLARATION.replace("kbc-bank", "no-bank")}]
)
def test_faults_leave_the_former_templates_in_use_with_an_alert(
    followed: Followed, alerts: list[tuple[str, str]], fault: dict[str, str]
) -> None:
    first = followed.refreshed()
    write(followed.path, fault)
    assert followed.refreshed() is first
    assert followed.refreshed() is first
    assert alerts == [("templates", "invalid")]
    write(followed.path, FILES)
    assert followed.refreshed()["hello"].digest == first["hello"].digest

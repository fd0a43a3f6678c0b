"""Providers in installed packages: found by their entry point, and a faulty one harms nothing but itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

import channels
from channels.registry import ENTRY_POINTS, discover

PIGEON = Path(__file__).parents[1] / "plugins" / "pigeon"
OWN = list(discover(()).plugins)
ASK = """
import json, os
from channels.registry import plugin_faults, plugins
from dispatcher.runtime import bootstrap
from dispatcher.runtime.settings import InvalidSettings, Settings
try:
    chosen = Settings.from_environment(dict(os.environ))
    answer = {
        "sms": bootstrap.adapter(chosen, "sms", chosen.providers["sms"], None).name,
        "key": bootstrap.webhook_keys(chosen).get("pigeon"),
        "warnings": chosen.warnings,
    }
except InvalidSettings as error:
    answer = {"errors": error.faults}
print(json.dumps({**answer, "plugins": list(plugins()), "faults": [str(fault) for fault in plugin_faults()]}))
"""


def ask(folder: Path, *paths: Path, **variables: str) -> dict[str, Any]:
    """What the program makes of packages in these folders."""
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(map(str, (*paths, Path(channels.__path__[0]).parent))),
        "DISPATCHER_HOME": str(folder),
        "DISPATCHER_TEMPLATES": str(folder),
        **variables,
    }
    done = subprocess.run([sys.executable, "-c", ASK], env=environ, check=True, capture_output=True, text=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def package(folder: Path, name: str, modules: Mapping[str, str], points: Mapping[str, str]) -> Path:
    """A package as an installer leaves it in a folder of its own."""
    place = folder / name
    metadata = place / f"{name.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = "\n".join(f"{point} = {value}" for point, value in points.items())
    (metadata / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\n{lines}\n")
    for module, text in modules.items():
        (place / f"{module}.py").write_text(text)
    return place


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example package, installed by pip."""
    source, target = tmp_path_factory.mktemp("source") / "pigeon", tmp_path_factory.mktemp("target")
    shutil.copytree(PIGEON, source, ignore=shutil.ignore_patterns("__pycache__"))
    install = ["install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(target), str(source)]
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", *install], check=True, capture_output=True)
    return target


def test_an_installed_package_adds_its_provider(installed: Path, tmp_path: Path) -> None:
    answer = ask(tmp_path, installed, PIGEON_KEY="coo", PIGEON_SENDER="+32460000000", PIGEON_SENDERS="x")
    assert (answer["sms"], answer["key"], answer["faults"]) == ("pigeon", "coo", [])
    assert sorted(answer["plugins"]) == sorted([*OWN, "pigeon"])
    assert "PIGEON_SENDERS is not a variable of this program: did you mean PIGEON_SENDER?" in answer["warnings"]


def test_an_installed_provider_needs_its_variables(installed: Path, tmp_path: Path) -> None:
    answer = ask(tmp_path, installed, PIGEON_KEY="coo")
    assert answer["errors"] == [
        "PIGEON_SENDER is missing: sms goes through pigeon, which needs it. Or set DISPATCHER_PROVIDER_SMS=sandbox."
    ]


def test_a_faulty_package_is_one_line_and_the_rest_works(installed: Path, tmp_path: Path) -> None:
    faulty = package(tmp_path / "more", "dispatcher-heron", {"heron": "import no_such_module\n"}, {"heron": "heron:PLUGIN"})
    answer = ask(tmp_path, installed, faulty, PIGEON_KEY="coo", PIGEON_SENDER="+32460000000")
    line = "The provider plugin heron of the package dispatcher-heron 1.0 cannot be used: No module named 'no_such_module'."
    assert answer["faults"] == [line]
    assert (answer["sms"], line in answer["warnings"]) == ("pigeon", True)


@pytest.mark.parametrize("variables", [{"HERON_KEY": "x"}, {"DISPATCHER_PROVIDER_SMS": "heron"}])
def test_a_faulty_provider_that_is_meant_stops_the_start(tmp_path: Path, variables: dict[str, str]) -> None:
    faulty = package(tmp_path / "more", "dispatcher-heron", {"heron": "raise OSError('secret')\n"}, {"heron": "heron:PLUGIN"})
    errors = ask(tmp_path, faulty, **variables)["errors"]
    assert "The provider plugin heron of the package dispatcher-heron 1.0 cannot be used: importing it raised OSError." in errors
    assert "secret" not in str(errors)


PLUGIN = """
from channels.base import Channel
from channels.registry import ProviderPlugin
PLUGIN = ProviderPlugin(name={name!r}, needs={needs}, variable_prefixes=("X_",), read_account=lambda _: None, make_adapter=None)
"""
GOOD = PLUGIN.format(name="heron", needs="{Channel.SMS: ('X_KEY',)}")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("heron", "PLUGIN = 'heron'", "a str, not a ProviderPlugin of channels.registry"),
        ("heron", "", "importing it raised AttributeError"),
        ("heron", "import sys; sys.exit(1)", "importing it raised SystemExit"),
        ("heron", "1 / 0", "importing it raised ZeroDivisionError"),
        (
            "heron",
            PLUGIN.format(name="egret", needs="{Channel.SMS: ()}"),
            "its entry point is called heron, and its plugin 'egret'",
        ),
        ("heron", PLUGIN.format(name="heron", needs="{'pager': ()}"), "`needs` should map channels to tuples of variables"),
        (
            "heron",
            PLUGIN.format(name="heron", needs="{Channel.SMS: 'X_KEY'}"),
            "`needs` should map channels to tuples of variables",
        ),
        ("twilio", GOOD, "the program itself has a provider of this name"),
        ("sandbox", GOOD, "its name should be small letters"),
        ("../x", GOOD, "its name should be small letters"),
    ],
)
def test_a_plugin_that_cannot_be_used_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, message: str
) -> None:
    module = f"heron_{abs(hash((name, text)))}"
    (tmp_path / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    found = discover([EntryPoint(name, f"{module}:PLUGIN", ENTRY_POINTS)])
    assert [fault.name for fault in found.faults] == [name]
    assert message in str(found.faults[0])
    assert len(str(found.faults[0]).splitlines()) == 1
    assert list(found.plugins) == OWN


def test_two_packages_with_one_name_are_both_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("heron_one", "heron_two"):
        (tmp_path / f"{module}.py").write_text(GOOD)
    monkeypatch.syspath_prepend(tmp_path)
    one, two = (EntryPoint("heron", f"{module}:PLUGIN", ENTRY_POINTS) for module in ("heron_one", "heron_two"))
    assert "heron" in discover([one]).plugins
    found = discover([one, two])
    assert list(found.plugins) == OWN
    assert ["another package has a plugin of this name" in str(fault) for fault in found.faults] == [True, True]

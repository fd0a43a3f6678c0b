"""Provider plugins: each is consistent, and a new provider needs only its own file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import channels
from channels.base import Channel
from channels.http import HttpTransport
from channels.registry import AdapterContext, plugins
from channels.sandbox.doubles import double_for, doubles
from dispatcher.runtime.environment import EnvironmentReader
from tests.support.provider_cases import PROVIDER_CASES

KNOWN = ["fcm", "sendgrid", "twilio", "smtp", "telnyx", "outbox"]  # preferred ones first, those that reach nobody last


def test_all_plugins_are_found_in_order_of_preference() -> None:
    assert list(plugins()) == KNOWN


@pytest.mark.parametrize("name", KNOWN)
def test_a_plugin_needs_only_its_own_variables(name: str) -> None:
    plugin, read = plugins()[name], EnvironmentReader({})
    plugin.read_account(read)
    assert all(variable.startswith(plugin.variable_prefixes) for variable in read.known)
    assert {need for needs in plugin.needs.values() for need in needs} <= read.known.keys()
    assert read.faults == []


@pytest.mark.parametrize("name", KNOWN)
def test_every_provider_has_a_conformance_case(name: str) -> None:
    assert {case.channel for case in PROVIDER_CASES if case.name == name or case.name in plugins()[name].needs}


@pytest.mark.parametrize("channel", list(Channel))
def test_each_channel_has_a_double_with_usable_credentials(channel: Channel, tmp_path: Path) -> None:
    double = double_for(channel)
    assert [each.name for each in doubles().values() if channel in each.channels] == [double.name]
    plugin = plugins()[double.name]
    account = replace(plugin.read_account(EnvironmentReader({})), **double.credentials("http://127.0.0.1:1", tmp_path))
    made = plugin.make_adapter(account, AdapterContext(channel, HttpTransport(), "http://x.example/webhooks"))
    assert (made.name, made.channel) == (double.name, channel)


NEW = """
from channels.base import Channel
from channels.providers.outbox import Outbox
from channels.registry import ProviderPlugin, WebhookEndpoint

class Pigeon(Outbox):
    name = "pigeon"

PLUGIN = ProviderPlugin(
    name="pigeon",
    needs={Channel.SMS: ("PIGEON_KEY",)},
    variable_prefixes=("PIGEON_",),
    read_account=lambda read: read.secret("PIGEON_KEY"),
    make_adapter=lambda key, context: Pigeon(context.channel),
    endpoints={"loft": WebhookEndpoint(lambda call, key: [])},
    webhook_key=lambda key: key,
)
"""
ASK = """
import json, os, sys, channels.providers
channels.providers.__path__.append(sys.argv[1])
from dispatcher.runtime import bootstrap
from dispatcher.runtime.settings import Settings
from dispatcher.web.webhooks import router
chosen = Settings.from_environment(dict(os.environ))
adapters = bootstrap.providers(chosen)
print(json.dumps({
    "providers": {channel: provider.name for channel, provider in adapters.items()},
    "keys": bootstrap.webhook_keys(chosen)["pigeon"],
    "endpoints": [route.path for route in router.routes if "pigeon" in route.path],
    "warnings": chosen.warnings,
}))
"""


def test_one_file_is_enough_to_add_a_provider(tmp_path: Path) -> None:
    """A provider from one new file is chosen by its credentials, made, and has its webhook endpoint."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "pigeon.py").write_text(NEW, encoding="utf-8")
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(channels.__path__[0]).parent),
        "DISPATCHER_HOME": str(tmp_path),
        "DISPATCHER_TEMPLATES": str(tmp_path),
        "PIGEON_KEY": "coo",
        "PIGEON_KEYS": "coo",
        "DISPATCHER_PROVIDER_PUSH": "outbox",
    }
    command = [sys.executable, "-c", ASK, str(tmp_path / "more")]
    answer = json.loads(subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout)
    assert answer["providers"]["sms"] == "pigeon"
    assert (answer["keys"], answer["endpoints"]) == ("coo", ["/webhooks/pigeon/loft"])
    assert "PIGEON_KEYS is not a variable of this program: did you mean PIGEON_KEY?" in answer["warnings"]

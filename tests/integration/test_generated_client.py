"""A client that a public generator makes from our OpenAPI document works against the API."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher.events import publication
from tests.integration.test_api import LOAN, Desk, open_desk
from tests.support.services import add_people, person
from tests.support.web_server import serving

ROOT = Path(__file__).parents[2]
GENERATOR = ROOT / ".venv" / "generator" / "bin" / "openapi-python-client"
SETTINGS = """
package_name_override: generated_client
post_hooks: []
content_type_overrides:  # what it should treat as bytes or text
  application/x-ndjson: application/octet-stream
  application/jsonl: application/octet-stream
  text/csv: application/octet-stream
  text/tab-separated-values: application/octet-stream
  application/vnd.openxmlformats-officedocument.spreadsheetml.sheet: application/octet-stream
"""


@pytest.fixture
def desk(database: str, tmp_path: Path) -> Iterator[Desk]:
    with open_desk(database, tmp_path) as opened:
        yield opened


@pytest.fixture
def package(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The package that the generator makes. It warns of nothing: no call is left out."""
    assert GENERATOR.exists(), "run: make dev"
    (tmp_path / "openapi.json").write_text(desk.client.get("/openapi.json").text)
    (tmp_path / "settings.yaml").write_text(SETTINGS)
    command = [str(GENERATOR), "generate", "--path", "openapi.json", "--config", "settings.yaml", "--meta", "none"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in (done.stdout + done.stderr).lower(), done.stdout + done.stderr
    monkeypatch.syspath_prepend(tmp_path)
    yield "generated_client"
    for name in [name for name in sys.modules if name.startswith("generated_client")]:
        del sys.modules[name]


def call(name: str) -> Any:
    """The function of an operation, such as `campaigns.submit_campaign`."""
    return importlib.import_module(f"generated_client.api.{name}").sync_detailed


def test_the_client_of_a_generator_works(desk: Desk, package: str) -> None:
    add_people(desk.services, person("anna"))
    publication.publish(desk.services)
    models = importlib.import_module(f"{package}.models")
    with serving(desk.client.app) as url:  # type: ignore[arg-type]
        client = importlib.import_module(package).AuthenticatedClient(base_url=url, token=desk.key)
        rows = [{"recipient": "anna", "data": LOAN}]
        campaign = models.Campaign.from_dict({"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": rows})
        accepted = call("campaigns.submit_campaign")(client=client, body=campaign)
        assert (accepted.status_code, accepted.parsed.audience) == (201, 1)
        assert (
            call("campaigns.show_campaign")("spring", client=client).parsed.balance.additional_properties
            == json.loads(desk.call("GET", "/v1/campaigns/spring").text)["balance"]
        )
        shown = call("recipients.show_recipient")("anna", client=client, include="addresses").parsed
        assert (shown.id, shown["email"]) == ("anna", "anna@example.org")
        page = call("events.read_events")(client=client).parsed
        assert page.events[-1].subject == "anna"
        refused = call("campaigns.show_campaign")("nothing", client=client)
        assert (refused.status_code.value, json.loads(refused.content)["title"]) == (404, "Not Found")

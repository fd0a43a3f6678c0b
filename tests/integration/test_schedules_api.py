"""Recurring campaigns by API and command line."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from dispatcher.campaigns import schedules
from dispatcher.policy import ScheduleRules
from dispatcher.runtime.services import Services
from dispatcher.web.api_keys import new_key, read_keys
from dispatcher.web.app import create
from tests.support.command import run_command
from tests.support.services import Broker, Clock, make_services

FORM = {
    "id": "weekly",
    "cron": "0 9 * * 1",
    "zone": "Europe/Brussels",
    "campaign": {"template": "loan_offer", "channels": ["email"], "audience": {"upload": "weekly-*"}},
}


@dataclass
class Marketing:
    """The API for two keys with the right `campaigns`: the submitter's and another person's."""

    services: Services
    client: TestClient
    keys: dict[str, str]

    def call(self, method: str, path: str, form: Any = None, who: str = "anna") -> Response:
        content = None if form is None else json.dumps(form).encode()
        headers = {"Authorization": f"Bearer {self.keys[who]}"}
        return self.client.request(method, f"/v1/schedules{path}", content=content, headers=headers)


@pytest.fixture
def marketing(database: str, tmp_path: Path) -> Iterator[Marketing]:
    made_keys = {name: new_key(name, ["campaigns"]) for name in ("anna", "bert")}
    (tmp_path / "keys.toml").write_text("".join(entry for _, entry in made_keys.values()))
    with make_services(database, Clock()) as made:
        policy = replace(made.policy, schedules=ScheduleRules(approval="definition"))
        services = replace(made, policy=policy, audiences=tmp_path)
        with TestClient(create(services, Broker(), read_keys(tmp_path / "keys.toml"))) as client:
            yield Marketing(services, client, {name: key for name, (key, _) in made_keys.items()})


def test_a_schedule_by_api_from_add_to_end(marketing: Marketing) -> None:
    added = marketing.call("POST", "", FORM)
    assert (added.status_code, added.headers["location"], added.json()["state"]) == (
        201,
        "/v1/schedules/weekly",
        "awaiting_approval",
    )
    assert marketing.call("POST", "", FORM).status_code == 201
    assert marketing.call("POST", "", {**FORM, "cron": "0 10 * * 1"}).status_code == 409
    refused = marketing.call("POST", "/weekly/approve")
    assert (refused.status_code, "somebody else has to approve it" in refused.json()["detail"]) == (409, True)
    shown = marketing.call("POST", "/weekly/approve", who="bert").json()
    assert (shown["state"], shown["submitted_by"], shown["approved_by"]) == ("active", "anna", "bert")
    assert shown["next_runs"][0] == {"at": "2026-11-30T08:00:00Z", "campaign": "weekly-2026-11-30T0900"}
    assert len(shown["next_runs"]) == schedules.NEXT_SHOWN
    for action in ("pause", "end"):
        assert marketing.call("POST", f"/weekly/{action}", who="bert").status_code == 403
    assert marketing.call("POST", "/weekly/pause").json()["next_at"] is None
    assert [each["state"] for each in marketing.call("GET", "").json()["schedules"]] == ["paused"]
    assert marketing.call("POST", "/weekly/end").json()["state"] == "ended"
    assert marketing.call("POST", "/weekly/resume").status_code == 409
    assert [each["action"] for each in marketing.call("GET", "/weekly").json()["changes"]] == ["add", "approve", "pause", "end"]


@pytest.mark.parametrize(("method", "path"), [("GET", "/x"), ("POST", "/x/pause"), ("GET", "/..")])
def test_an_unknown_schedule_is_404(marketing: Marketing, method: str, path: str) -> None:
    assert marketing.call(method, path).status_code == 404


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"cron": "every day"}, "cron"), ({"zone": "Mars"}, "zone"), ({"campaign": {}}, "campaign.audience"), ({"x": 1}, "x")],
)
def test_the_api_names_the_wrong_field(marketing: Marketing, changes: dict[str, Any], field: str) -> None:
    answer = marketing.call("POST", "", {**FORM, **changes})
    assert answer.status_code == 422
    assert field in [each["field"] for each in answer.json()["errors"]]


def test_the_command_line_adds_and_names_line_and_field(database: str, tmp_path: Path) -> None:
    file = tmp_path / "weekly.yaml"

    def run(*words: str) -> tuple[int, Any]:
        done = run_command(database, tmp_path, "campaign", "schedule", *words, "--json")
        return done.returncode, json.loads(done.stdout)

    file.write_text("id: weekly\ncron: 0 9 * * 1\nzone: Europe/Brusels\ncampaign: {template: loan_offer}\n")
    code, answer = run("add", str(file))
    assert (code, answer["faults"][0]["line"], answer["faults"][0]["field"]) == (2, 3, "zone")
    assert "did you mean Europe/Brussels?" in answer["error"]
    file.write_text(json.dumps(FORM))
    code, answer = run("add", str(file))
    assert (code, answer["state"], answer["submitted_by"]) == (0, "active", f"os:{getpass.getuser()}")
    assert run("pause", "weekly")[1]["state"] == "paused"
    assert run("show", "nobody") == (1, {"error": "there is no recurring campaign nobody", "faults": []})


def test_an_upload_belongs_to_the_key_that_sent_it(marketing: Marketing) -> None:
    def call(method: str, path: str, who: str, content: bytes | None = None) -> Response:
        headers = {"Authorization": f"Bearer {marketing.keys[who]}"}
        return marketing.client.request(method, f"/v1/audiences{path}", content=content, headers=headers)

    rows = b'{"recipient": "c-1"}\n'
    assert call("PUT", "/list.jsonl", "anna", rows).status_code == 201
    assert [call(method, "/list.jsonl", "bert", rows).status_code for method in ("PUT", "GET", "DELETE")] == [403] * 3
    assert call("GET", "", "bert").json() == {"audiences": []}
    assert [each["id"] for each in call("GET", "", "anna").json()["audiences"]] == ["list.jsonl"]
    assert call("DELETE", "/list.jsonl", "anna").status_code == 204

"""Webhook endpoints as operators meet them: API, command line, console, metrics, and the task that starts deliveries."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from dispatcher.devserver.stack import free_port
from dispatcher.domain.principal import Role
from dispatcher.embedded.daemon import wait_until
from dispatcher.events import event_endpoints, publication, webhook_delivery
from dispatcher.ledger.connection import lend
from dispatcher.runtime.services import Services
from dispatcher.web.api_keys import new_key, read_keys
from dispatcher.web.app import create
from tests.integration.test_webhook_delivery import HOSTS, HOUR, add, clock, deliver_until_done, say
from tests.support.command import run_command
from tests.support.http_servers import http_answer
from tests.support.people import sign_in
from tests.support.services import Broker, Clock, add_people, make_services, person
from tests.support.webhook_receiver import is_signed, receiver


@dataclass
class EventsDesk:
    """The web application, for a key with the right `webhooks`."""

    services: Services
    client: TestClient
    key: str

    def call(self, method: str, path: str, form: Any = None, **parameters: str) -> Response:
        content = None if form is None else json.dumps(form).encode()
        headers = {"Authorization": f"Bearer {self.key}"}
        return self.client.request(method, f"/v1/webhooks{path}", content=content, params=parameters, headers=headers)


EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "webhook_receiver.py"


@pytest.fixture
def desk(database: str, tmp_path: Path) -> Iterator[EventsDesk]:
    key, entry = new_key("crm-team", ["webhooks"])
    (tmp_path / "keys.toml").write_text(entry)
    with make_services(database, Clock(datetime.now(UTC))) as made:
        services = replace(made, webhook_hosts=HOSTS)
        add_people(services, person("anna"))
        publication.publish(services)
        keys = read_keys(tmp_path / "keys.toml")
        with TestClient(create(services, Broker(), keys), base_url="https://dispatcher.example") as client:
            yield EventsDesk(services, client, key)


def test_an_endpoint_by_api_from_add_to_remove(desk: EventsDesk) -> None:
    with receiver(lambda _, number: http_answer(204 if number != 2 else 410)) as crm:
        form = {"id": "crm", "url": f"{crm.url}?token=s3cret", "types": ["consent"], "batch_max": 5}
        added = desk.call("POST", "", form)
        assert (added.status_code, added.headers["location"]) == (201, "/v1/webhooks/crm")
        assert (added.json()["url"], added.json()["created_by"]) == (f"{crm.url}?…", "api:crm-team")
        assert desk.call("POST", "", form).json()["errors"] == [{"field": "id", "message": "crm is the id of another endpoint"}]
        assert desk.call("POST", "/crm/test").json()["status"] == 204
        assert is_signed(added.json()["secret"], crm.requests[0])
        say(desk.services, "off")
        webhook_delivery.deliver(desk.services)
        shown = desk.call("GET", "/crm").json()
        assert (shown["state"], shown["disabled_reason"], shown["error"], shown["lag_events"]) == (
            "disabled",
            "gone",
            "http_410",
            1,
        )
        assert desk.call("POST", "/crm/enable").json()["state"] == "active"
        webhook_delivery.deliver(desk.services)
        assert desk.call("GET", "/crm").json()["lag_events"] == 0
        number = shown["cursor"] + 1
        assert desk.call("POST", "/crm/replay", {"from": number, "to": number}).json()["replays"][0]["from"] == number
        deliver_until_done(desk.services)
        assert len(crm.requests) == 4
    assert desk.call("PATCH", "/crm", {"types": [], "url": "https://8.8.8.8/"}).json()["types"] == []
    assert desk.call("GET", "").json()["endpoints"][0]["batch_max"] == 5
    assert desk.call("POST", "/crm/rotate").json()["secret"] != added.json()["secret"]
    assert desk.call("POST", "/crm/rotate").status_code == 409
    assert desk.call("POST", "/crm/rotate", at_once="true").status_code == 200
    assert [(each["by"], each["action"]) for each in desk.call("GET", "/crm").json()["changes"]] == [
        ("api:crm-team", action) for action in ("rotate", "rotate", "change", "replay", "enable", "add")
    ]
    assert desk.call("DELETE", "/crm").status_code == 204
    assert desk.call("GET", "/crm").status_code == 404
    last = event_endpoints.history(desk.services, 1)[0]
    assert (last.endpoint_id, last.act.actor, last.act.action) == ("crm", "api:crm-team", "remove")
    everything = str(event_endpoints.history(desk.services, 100))
    assert "s3cret" not in everything  # of the URL's query


def test_a_delivery_is_skipped_by_api_with_a_reason(desk: EventsDesk) -> None:
    with receiver(lambda *_: http_answer(500)) as crm:
        add(desk.services, crm.url)
        assert desk.call("POST", "/crm/skip", {"reason": "x"}).status_code == 409
        say(desk.services, "off")
        webhook_delivery.deliver(desk.services)
    assert desk.call("POST", "/crm/skip", {}).status_code == 422
    shown = desk.call("POST", "/crm/skip", {"reason": "unknown there"}).json()
    assert (shown["dead"][0]["error"], shown["changes"][0]["reason"]) == ("skipped", "unknown there")


@pytest.mark.parametrize(
    ("method", "path", "form", "field"),
    [
        ("POST", "", {"id": "x", "url": "https://10.0.0.1/"}, "url"),
        ("POST", "", {"id": "x"}, "url"),
        ("POST", "", {"id": "X", "url": "https://8.8.8.8/"}, "id"),
        ("PATCH", "/crm", {"types": ["message.lost"]}, "types"),
        ("PATCH", "/crm", {"state": "active"}, "state"),
        ("POST", "/crm/replay", {"from": 1}, ""),
        ("POST", "/crm/replay", {"dead": 1}, "dead"),
        ("POST", "/crm/replay", {"from": 5, "to": 10**9}, "from"),
    ],
)
def test_the_api_names_the_wrong_field(desk: EventsDesk, method: str, path: str, form: Any, field: str) -> None:
    add(desk.services, "https://8.8.8.8/")
    answer = desk.call(method, path, form)
    assert answer.status_code == 422, answer.text
    assert [each["field"] for each in answer.json()["errors"]] == [field]


def test_metrics_show_lag_failures_and_dead_ranges(desk: EventsDesk) -> None:
    with receiver(lambda *_: http_answer(500)) as crm:
        add(desk.services, crm.url)
        say(desk.services, "off", "on")
        webhook_delivery.deliver(desk.services)
        clock(desk.services).pass_(60)
        text = desk.client.get("/metrics").text
        assert 'dispatcher_webhook_lag_events{endpoint="crm"} 2\n' in text
        assert 'dispatcher_webhook_lag_seconds{endpoint="crm"} 60\n' in text
        assert 'dispatcher_webhook_failing{endpoint="crm"} 1\n' in text
        clock(desk.services).pass_(73 * HOUR)
        webhook_delivery.deliver(desk.services)
        assert 'dispatcher_webhook_dead_ranges{endpoint="crm"} 1\n' in desk.client.get("/metrics").text


def test_the_console_shows_tests_and_replays(desk: EventsDesk) -> None:
    up: list[bool] = []
    with receiver(lambda *_: http_answer(204 if up else 500)) as crm:
        add(desk.services, f"{crm.url}?token=s3cret")
        say(desk.services, "off")
        webhook_delivery.deliver(desk.services)
        clock(desk.services).pass_(73 * HOUR)
        webhook_delivery.deliver(desk.services)
        sign_in(desk.client, desk.services)
        page = desk.client.get("/console/webhooks").text
        assert "http_500" in page
        assert "s3cret" not in page
        assert "on the dead list" in desk.client.get("/console").text
        token = re.search(r'name="form_token" value="([0-9a-f]{64})"', page)
        assert token
        assert desk.client.post("/console/webhooks/crm/replay", data={"form_token": "0" * 64}).status_code == 403
        up.append(True)
        assert "Test event: 204" in desk.client.post("/console/webhooks/crm/test", data={"form_token": token[1]}).text
        desk.client.post("/console/webhooks/crm/replay", data={"form_token": token[1]})
        deliver_until_done(desk.services)
        assert len(crm.events) == 2, "the test event, and the one that was dead"
        desk.client.post("/console/webhooks/crm/disable", data={"form_token": token[1]})
    status = event_endpoints.status(desk.services, "crm")
    assert status.endpoint.disabled_reason == "by_hand"
    assert [(each.act.actor, each.act.action) for each in status.changes[:2]] == [
        ("user:ops", "disable"),
        ("user:ops", "replay"),
    ]


def test_the_console_skips_a_delivery_with_a_reason(desk: EventsDesk) -> None:
    with receiver(lambda *_: http_answer(500)) as crm:
        add(desk.services, crm.url)
        say(desk.services, "off")
        webhook_delivery.deliver(desk.services)
    sign_in(desk.client, desk.services)
    token = re.search(r'name="form_token" value="([0-9a-f]{64})"', desk.client.get("/console/webhooks").text)
    assert token
    desk.client.post("/console/webhooks/crm/skip", data={"form_token": token[1], "reason": "unknown <there>"})
    page = desk.client.get("/console/webhooks").text
    assert "unknown &lt;there&gt;" in page
    assert "Skip this delivery" not in page


def test_without_its_right_the_console_manages_no_endpoint(desk: EventsDesk, tmp_path: Path) -> None:
    key, entry = new_key("visitor", ["events"])
    (tmp_path / "visitor.toml").write_text(entry)
    add(desk.services, "https://8.8.8.8/")
    keys = read_keys(tmp_path / "visitor.toml")
    with TestClient(create(desk.services, Broker(), keys), base_url="https://dispatcher.example") as client:
        assert client.get("/v1/webhooks", headers={"Authorization": f"Bearer {key}"}).status_code == 403
        sign_in(client, desk.services, "visitor", [Role.AUDITOR])
        page = client.get("/console/webhooks").text
        token = re.search(r'name="form_token" value="([0-9a-f]{64})"', page)
        assert token
        assert "Send a test event" not in page
        for action in ("disable", "test", "replay"):
            form = {"form_token": token[1]}
            assert client.post(f"/console/webhooks/crm/{action}", data=form).status_code == 403
    assert event_endpoints.status(desk.services, "crm").endpoint.disabled_reason is None


def test_the_command_line_adds_shows_and_names_what_is_wrong(desk: EventsDesk, database: str, tmp_path: Path) -> None:
    def run(*words: str) -> tuple[int, Any]:
        done = run_command(database, tmp_path, "webhooks", *words, "--json")
        return done.returncode, json.loads(done.stdout)

    code, added = run("add", "crm", "https://8.8.8.8/hook", "--type", "consent", "--batch", "10")
    assert (code, added["types"], added["batch_max"]) == (0, ["consent"], 10)
    assert run("secret", "crm") == (0, {"id": "crm", "secret": added["secret"]})
    assert added["secret"] == event_endpoints.secret(desk.services, "crm")
    code, refused = run("add", "metadata", "http://169.254.169.254/latest")
    assert (code, refused["faults"][0]["field"]) == (2, "url")
    assert run("show", "nobody") == (1, {"error": "there is no event endpoint nobody", "faults": []})
    with lend(desk.services.pool) as connection:
        connection.execute("UPDATE event_endpoints SET url = 'https://localhost/'")
    code, failed = run("test", "crm")
    assert (code, failed["error"]) == (1, "private_address")


def test_the_receiver_of_the_guide_verifies_and_prints_each_event_once(desk: EventsDesk, tmp_path: Path) -> None:
    port = free_port()
    first = add(desk.services, f"http://127.0.0.1:{port}/hook", batch_max=2).live.cursor + 1
    environ = {**os.environ, "WEBHOOK_SECRET": event_endpoints.secret(desk.services, "crm")}
    output = tmp_path / "output"
    with (
        output.open("wb") as file,
        subprocess.Popen((sys.executable, str(EXAMPLE), str(port)), env=environ, stdout=file) as program,
    ):
        try:
            assert wait_until(lambda: event_endpoints.send_test(desk.services, "crm").answer.status == 204, 120)
            say(desk.services, "off", "on", "off")
            deliver_until_done(desk.services)
            event_endpoints.replay_range(desk.services, "crm", first, first + 2, "anna")
            deliver_until_done(desk.services)
            event_endpoints.rotate(desk.services, "crm", "anna", at_once=True)
            assert event_endpoints.send_test(desk.services, "crm").answer.error == "http_401"
        finally:
            program.terminate()
    printed = [event["data"] for event in map(json.loads, output.read_text().splitlines()) if event["type"] != "dispatcher.test"]
    assert [data["new_value"] for data in printed] == ["off", "on", "off"]


def test_the_task_that_publishes_starts_deliveries_only_when_due(desk: EventsDesk) -> None:
    assert not webhook_delivery.is_due(desk.services)
    with receiver() as crm:
        add(desk.services, crm.url)
        assert not webhook_delivery.is_due(desk.services), "nothing new"
        say(desk.services, "off")
        assert webhook_delivery.is_due(desk.services)
        webhook_delivery.deliver(desk.services)
        assert not webhook_delivery.is_due(desk.services)

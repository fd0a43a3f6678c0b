"""The API: no access without a key, the same answer to the same call, and a sentence for each error."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
from httpx2 import Response
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from channels.base import Channel, Email, Outbound
from channels.providers.outbox import Outbox
from dispatcher import celery_app, tasks
from dispatcher.campaigns import scheduler, submission
from dispatcher.intake.campaign import parse_request
from dispatcher.intake.errors import BadInput
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import recipients
from dispatcher.ledger.maintenance import stopped_channels
from dispatcher.maintenance import sweep
from dispatcher.policy import SmsPrices, parse, shipped
from dispatcher.runtime.services import Services
from dispatcher.web.api.campaigns import DRY_RUN_LOCK
from dispatcher.web.api.strict_json import read_object
from dispatcher.web.api_keys import NO_KEYS, ApiKey, ApiKeyRing, Right, local_key, new_key, read_keys
from dispatcher.web.app import create
from tests.support.services import NOON, Broker, Clock, add_people, make_services, person

NOWHERE = "postgresql://nobody@127.0.0.1:1/none"
LOAN = {"offer_url": "https://www.bank.example/loan", "project": "a bike", "amount": 5_000}
ALL_RIGHTS = [right.value for right in Right]


def keys_for(folder: Path, **rights: list[str]) -> tuple[ApiKeyRing, dict[str, str]]:
    """Keys by name, written to a file and read back."""
    made = {name: new_key(name, listed) for name, listed in rights.items()}
    file = folder / "keys.toml"
    file.write_text("\n".join(line for _, line in made.values()))
    return read_keys(file), {name: key for name, (key, _) in made.items()}


@dataclass
class Desk:
    """The API, for a caller with every right."""

    services: Services
    broker: Broker
    clock: Clock
    client: TestClient
    key: str = field(repr=False)
    second_key: str = field(default="", repr=False)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Response:
        content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.request(method, path, content=content, headers={"Authorization": f"Bearer {self.key}", **named})

    def work(self) -> None:
        self.broker.work(self.services)

    def mails(self) -> list[Outbound]:
        return cast(Outbox, self.services.providers[Channel.EMAIL]).sent


@contextmanager
def open_desk(database: str, folder: Path, wait_seconds_max: float = 10.0) -> Iterator[Desk]:
    keys, plain = keys_for(folder, app=ALL_RIGHTS, second=ALL_RIGHTS)
    broker, clock = Broker(), Clock()
    with (
        make_services(database, clock, wait_seconds_max=wait_seconds_max) as services,
        TestClient(create(services, broker, keys)) as client,
    ):
        yield Desk(services, broker, clock, client, plain["app"], plain["second"])


@pytest.fixture
def desk(database: str, tmp_path: Path) -> Iterator[Desk]:
    with open_desk(database, tmp_path) as opened:
        yield opened


def campaign(*recipients: str, **changes: Any) -> dict[str, Any]:
    rows = [{"recipient": recipient, "data": LOAN} for recipient in recipients]
    return {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": rows, **changes}


def trigger(**changes: Any) -> dict[str, Any]:
    return {"key": "k-1", "recipient": "anna", "template": "optout_acknowledgement", "data": {"scope": "email"}, **changes}


def faults(answer: Response) -> dict[str, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return {each["field"]: each["message"] for each in answer.json()["errors"]}


# -- keys --------------------------------------------------------------------------------------------------------------

CALLS = [
    ("POST", "/v1/campaigns", Right.CAMPAIGNS),
    ("GET", "/v1/campaigns", Right.CAMPAIGNS),
    ("GET", "/v1/campaigns/x", Right.CAMPAIGNS),
    ("PATCH", "/v1/campaigns/x", Right.CAMPAIGNS),
    ("POST", "/v1/campaigns/x/cancel", Right.CAMPAIGNS),
    ("POST", "/v1/campaigns/x/rows", Right.CAMPAIGNS),
    ("POST", "/v1/campaigns/x/conversions", Right.CAMPAIGNS),
    ("GET", "/v1/campaigns/x/results", Right.CAMPAIGNS),
    ("GET", "/v1/campaigns/x/results/export", Right.CAMPAIGNS),
    ("GET", "/v1/audiences", Right.CAMPAIGNS),
    ("PUT", "/v1/audiences/x", Right.CAMPAIGNS),
    ("GET", "/v1/audiences/x", Right.CAMPAIGNS),
    ("DELETE", "/v1/audiences/x", Right.CAMPAIGNS),
    ("POST", "/v1/messages", Right.MESSAGES),
    ("GET", "/v1/messages", Right.MESSAGES),
    ("POST", "/v1/messages/cancel", Right.MESSAGES),
    ("POST", "/v1/messages/202611-1-0-0/cancel", Right.MESSAGES),
    ("GET", "/v1/messages/202611-1-0-0", Right.MESSAGES),
    ("GET", "/v1/messages/202611-1-0-0/explanation", Right.MESSAGES),
    ("PUT", "/v1/recipients/x", Right.RECIPIENTS),
    ("POST", "/v1/recipients/search", Right.RECIPIENTS),
    ("POST", "/v1/recipients/bulk", Right.RECIPIENTS),
    ("GET", "/v1/recipients/x", Right.RECIPIENTS),
    ("GET", "/v1/recipients/x/export", Right.RECIPIENTS),
    ("POST", "/v1/preferences/bulk", Right.PREFERENCES),
    ("GET", "/v1/suppressions", Right.SUPPRESSIONS),
    ("GET", "/v1/suppressions/export", Right.SUPPRESSIONS),
    ("POST", "/v1/suppressions/search", Right.SUPPRESSIONS),
    ("POST", "/v1/suppressions/1/lift", Right.SUPPRESSIONS),
    ("POST", "/v1/suppressions/import", Right.SUPPRESSIONS),
    ("DELETE", "/v1/recipients/x", Right.RECIPIENTS),
    ("GET", "/v1/recipients/x/preferences", Right.PREFERENCES),
    ("PUT", "/v1/recipients/x/preferences", Right.PREFERENCES),
    ("GET", "/v1/templates", Right.TEMPLATES),
    ("POST", "/v1/templates/loan_offer/approve", Right.TEMPLATES),
    ("GET", "/v1/events", Right.EVENTS),
    ("GET", "/v1/events/asyncapi.json", Right.EVENTS),
    ("GET", "/v1/events/schemas/message.v1.json", Right.EVENTS),
    ("GET", "/v1/webhooks", Right.WEBHOOKS),
    ("POST", "/v1/webhooks", Right.WEBHOOKS),
    ("GET", "/v1/webhooks/x", Right.WEBHOOKS),
    ("PATCH", "/v1/webhooks/x", Right.WEBHOOKS),
    ("DELETE", "/v1/webhooks/x", Right.WEBHOOKS),
    ("POST", "/v1/webhooks/x/test", Right.WEBHOOKS),
    ("POST", "/v1/webhooks/x/rotate", Right.WEBHOOKS),
    ("POST", "/v1/webhooks/x/replay", Right.WEBHOOKS),
    ("POST", "/v1/webhooks/x/enable", Right.WEBHOOKS),
    ("POST", "/v1/webhooks/x/skip", Right.WEBHOOKS),
    ("GET", "/v1/schedules", Right.CAMPAIGNS),
    ("POST", "/v1/schedules", Right.CAMPAIGNS),
    ("GET", "/v1/schedules/x", Right.CAMPAIGNS),
    ("POST", "/v1/schedules/x/approve", Right.CAMPAIGNS),
    ("POST", "/v1/templates/loan_offer/test", Right.TEMPLATES),
    ("GET", "/v1/templates/loan_offer/history", Right.TEMPLATES),
    ("GET", f"/v1/templates/loan_offer/diff/{'0' * 64}", Right.TEMPLATES),
    ("GET", "/v1/templates/loan_offer/tests", Right.TEMPLATES),
    ("GET", "/v1/audit", Right.AUDIT),
]


def test_every_call_needs_a_key_with_the_right_for_it(database: str, tmp_path: Path) -> None:
    keys, plain = keys_for(tmp_path, **{right.value: [right.value] for right in Right})
    with make_services(database) as services, TestClient(create(services, Broker(), keys)) as client:
        documented = {
            (method.upper(), path) for path, item in client.get("/openapi.json").json()["paths"].items() for method in item
        }
        assert len(CALLS) == len([path for _, path in documented if path.startswith("/v1/")])
        for method, path, needed in CALLS:
            assert client.request(method, path, content=b"no JSON").status_code == 401
            for right, key in plain.items():
                status = client.request(method, path, content=b"no JSON", headers={"Authorization": f"Bearer {key}"}).status_code
                assert (status == 403) == (right != needed), (method, path, right, status)


def test_without_keys_and_with_odd_ones_everything_stays_shut(desk: Desk) -> None:
    with TestClient(create(desk.services, desk.broker, NO_KEYS)) as client:
        assert client.get("/v1/campaigns", headers={"Authorization": f"Bearer {desk.key}"}).status_code == 401
    for odd in (
        "",
        "Bearer",
        "Bearer ",
        f"Basic {desk.key}",
        desk.key,
        f"Bearer {desk.key}x",
        f"Bearer {desk.key[:-1]}",
        "Bearer \xe9",
    ):
        answer = desk.client.get("/v1/campaigns", headers=[(b"authorization", odd.encode("latin-1"))])
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), odd


def test_a_key_is_shown_once_and_its_file_holds_only_its_hash(tmp_path: Path) -> None:
    key, line = new_key("marketing", ["campaigns", "messages"], random=lambda count: b"\7" * count)
    assert key not in line
    (tmp_path / "keys.toml").write_text(line)
    found = read_keys(tmp_path / "keys.toml").find(key)
    assert found is not None
    assert found.name == "marketing"
    assert found.rights == {Right.CAMPAIGNS, Right.MESSAGES}
    assert key not in repr(found)
    with pytest.raises(BadInput, match="rights"):
        new_key("marketing", ["everything"])


def test_a_machine_of_its_own_has_one_key_for_everything(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (first, file), (second, _) = local_key(b"a secret", tmp_path), local_key(b"a secret", tmp_path)
    assert first == second != local_key(b"another", (tmp_path / "b"))[0]
    found = read_keys(file).find(first)
    assert found is not None
    assert found.rights == set(Right)


HASH = f"sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[[keys", "TOML"),
        ("[[key]]", "key: unknown field"),
        ("[[keys]]\nname = 'a'\nrights = ['console']", "keys.0.hash: missing"),
        (f"[[keys]]\nname = 'a b'\nhash = '{HASH}'\nrights = ['console']", "keys.0.name"),
        ("[[keys]]\nname = 'a'\nhash = 'sha256:00'\nrights = ['console']", "keys.0.hash"),
        (f"[[keys]]\nname = 'a'\nhash = '{HASH}'\nrights = []", "keys.0.rights"),
        (f"[[keys]]\nname = 'a'\nhash = '{HASH}'\nrights = ['root']", "keys.0.rights.0"),
        (f"[[keys]]\nname = 'a'\nhash = '{HASH}'\nrights = ['console']\n" * 2, "is there twice"),
    ],
)
def test_a_malformed_file_of_keys_is_named_and_opens_nothing(tmp_path: Path, text: str, field: str) -> None:
    (tmp_path / "keys.toml").write_text(text)
    with pytest.raises(BadInput) as caught:
        read_keys(tmp_path / "keys.toml")
    assert field in str(caught.value)


# -- campaigns ---------------------------------------------------------------------------------------------------------


def test_a_campaign_goes_in_runs_and_is_shown_with_a_balance_that_adds_up(desk: Desk) -> None:
    add_people(desk.services, person("anna"), person("bert", 2, offers={"own": "none"}))
    answer = desk.call("POST", "/v1/campaigns", campaign("anna", "bert", "nobody", "?"))
    assert (answer.status_code, answer.headers["location"]) == (201, "/v1/campaigns/spring")
    taken = answer.json()
    assert (taken["audience"], taken["invalid"], [fault["line"] for fault in taken["faults"]]) == (3, 1, [4])
    desk.work()
    sweep.sweep(desk.services)
    desk.clock.pass_(10)
    shown = desk.call("GET", "/v1/campaigns/spring").json()
    assert (shown["state"], shown["audience"], shown["invalid"]) == ("finished", 3, 1)
    assert {state: count for state, count in shown["balance"].items() if count} == {"accepted": 1, "refused": 2}
    assert shown["reasons"] == {"choice_none": 1, "unknown_recipient": 1}
    assert shown["channels"]["email"]["accepted"] == 1
    assert [each["id"] for each in desk.call("GET", "/v1/campaigns?limit=1").json()["campaigns"]] == ["spring"]
    assert desk.call("GET", "/v1/campaigns?limit=0").status_code == 422


def test_the_same_campaign_gets_the_same_answer_and_another_under_its_id_is_refused(desk: Desk) -> None:
    form = campaign("anna", expires_at="2026-11-23T13:00:00Z")
    first = desk.call("POST", "/v1/campaigns", form)
    desk.clock.pass_(86_400)  # it has expired by now, but it was taken
    retry_hint = desk.call("POST", "/v1/campaigns", form)
    assert (retry_hint.status_code, retry_hint.content, retry_hint.headers["location"]) == (
        201,
        first.content,
        first.headers["location"],
    )
    assert desk.call("POST", "/v1/campaigns", campaign("bert", expires_at="2026-11-23T13:00:00Z")).status_code == 409


def test_a_caller_can_not_make_the_server_read_its_files(desk: Desk, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"recipient": "anna"}\n')
    assert "audience" in faults(desk.call("POST", "/v1/campaigns", campaign(audience=str(rows))))
    assert desk.call("GET", "/v1/campaigns/spring").status_code == 404


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"template": "loan_ofer"}, "template"),
        ({"entity": "other-bank"}, "entity"),
        ({"channels": ["fax"]}, "channels.0"),
        ({"rate_per_second": 1e-300}, "rate_per_second"),
        ({"send_at": "tomorrow"}, "send_at"),
        ({"send_at": "9999-12-31T23:59:59-14:00"}, "send_at"),
        ({"expires_at": "2026-11-23T10:59:59Z"}, "expires_at"),
        ({"id": "../x"}, "id"),
        ({"audience": None}, "audience"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_is_wrong_with_a_campaign_is_told_by_field(desk: Desk, changes: dict[str, Any], field: str) -> None:
    answer = desk.call("POST", "/v1/campaigns", campaign("anna", **changes))
    assert answer.status_code == 422
    assert list(faults(answer)) == [field]


def test_moves_can_be_repeated_and_what_can_not_be_is_a_conflict(desk: Desk) -> None:
    desk.call("POST", "/v1/campaigns", campaign("anna", send_at="2026-11-24T09:00:00Z"))

    def move(name: str) -> tuple[int, str | None]:
        answer = desk.call("POST", f"/v1/campaigns/spring/{name}")
        return answer.status_code, answer.json().get("state")

    assert [move("pause"), move("pause")] == [(200, "paused")] * 2
    assert [move("resume"), move("resume")] == [(200, "scheduled")] * 2
    assert [move("cancel"), move("cancel")] == [(200, "cancelled")] * 2
    assert move("pause")[0] == 409
    assert move("resume")[0] == 409
    assert move("explode")[0] == 404
    assert desk.call("POST", "/v1/campaigns/winter/pause").status_code == 404


def test_a_large_campaign_is_released_by_another_key_than_the_one_that_submitted_it(database: str, tmp_path: Path) -> None:
    keys, plain = keys_for(tmp_path, anne=ALL_RIGHTS, bart=ALL_RIGHTS)
    with make_services(database) as services:
        strict = replace(services, policy=replace(services.policy, four_eyes_audience_min=0))
        with TestClient(create(strict, Broker(), keys)) as client:

            def post(path: str, who: str, body: Any = None) -> Response:
                return client.post(path, json=body, headers={"Authorization": f"Bearer {plain[who]}"})

            assert post("/v1/campaigns", "anne", campaign("anna")).status_code == 201
            mine, theirs = (post("/v1/campaigns/spring/release", who) for who in ("anne", "bart"))
            assert (mine.status_code, theirs.status_code) == (409, 200)
            shown = client.get("/v1/campaigns/spring", headers={"Authorization": f"Bearer {plain['anne']}"}).json()
    assert "somebody else" in mine.json()["detail"]
    assert (shown["submitted_by"], shown["released_by"]) == ("anne", "bart")


# -- messages ----------------------------------------------------------------------------------------------------------


def test_a_trigger_is_taken_sent_shown_and_explained(desk: Desk) -> None:
    add_people(desk.services, person("anna"))
    answer = desk.call("POST", "/v1/messages", trigger())
    assert answer.status_code == 202
    where = answer.headers["location"]
    assert desk.call("GET", where).json()["state"] == "pending"
    desk.work()
    shown = desk.call("GET", where).json()
    assert (shown["id"], shown["state"], shown["recipient"]) == (answer.json()["id"], "accepted", "anna")
    told = {language: desk.call("GET", f"{where}/explanation?language={language}").json() for language in ("nl", "fr", "de", "en")}
    assert len({each["text"] for each in told.values()}) == 4
    assert desk.call("GET", f"{where}/explanation?language=it").status_code == 422


def test_the_same_key_is_the_same_message_wherever_the_key_stands(desk: Desk) -> None:
    first = desk.call("POST", "/v1/messages", trigger())
    form = trigger()
    del form["key"]
    retry_hint = [
        desk.call("POST", "/v1/messages", trigger()),
        desk.call("POST", "/v1/messages", form, Idempotency_Key="k-1"),
        desk.call("POST", "/v1/messages", form, Idempotency_Key='"k-1"'),
    ]
    assert [(each.status_code, each.json()) for each in retry_hint] == [(202, first.json())] * 3
    assert len(desk.broker.dues) == 1
    assert desk.call("POST", "/v1/messages", trigger(recipient="bert")).status_code == 409
    assert "key" in faults(desk.call("POST", "/v1/messages", form))
    assert "key" in faults(desk.call("POST", "/v1/messages", trigger(), Idempotency_Key="k-2"))


def test_a_message_is_taken_while_the_broker_is_away_and_found_by_the_sweep(desk: Desk) -> None:
    add_people(desk.services, person("anna"))
    desk.broker.away = True
    assert desk.call("POST", "/v1/messages", trigger()).status_code == 202
    desk.broker.away = False
    desk.clock.pass_(desk.services.limits.lease_seconds + 1)
    desk.broker.publish(scheduler.due_chunks(desk.services))
    desk.work()
    assert desk.call("GET", "/v1/messages/202611-1-0-0").json()["state"] == "accepted"


@pytest.mark.parametrize(
    "message_id", ["202611-9-0-0", "x", "202611-1-0-0-0", "202611-01-0-0", "%00", "202611-99999999999999999999-0-0"]
)
def test_an_id_that_names_nothing_is_not_found(desk: Desk, message_id: str) -> None:
    assert desk.call("GET", f"/v1/messages/{message_id}").status_code == 404
    assert desk.call("GET", f"/v1/messages/{message_id}/explanation").status_code == 404
    assert desk.call("GET", f"/v1/campaigns/{message_id}").status_code == 404
    assert desk.call("DELETE", f"/v1/recipients/{message_id}").status_code == 404


# -- recipients and preferences ----------------------------------------------------------------------------------------


def test_a_recipient_is_put_changed_and_erased_for_good(desk: Desk) -> None:
    form = person("anna")
    outcomes = [desk.call("PUT", "/v1/recipients/anna", form), desk.call("PUT", "/v1/recipients/anna", form)]
    outcomes.append(desk.call("PUT", "/v1/recipients/anna", person("anna", language="fr")))
    assert [(each.status_code, each.json()["outcome"]) for each in outcomes] == [(201, "new"), (200, "unchanged"), (200, "changed")]
    assert "id" in faults(desk.call("PUT", "/v1/recipients/bert", form))
    waiting = [desk.call("DELETE", "/v1/recipients/anna?reason=letter") for _ in range(2)]
    assert [(each.status_code, each.json()) for each in waiting] == [(202, {"id": "anna", "erased": False, "waiting": True})] * 2
    assert desk.call("PUT", "/v1/recipients/anna", form).status_code == 200
    second = {"Authorization": f"Bearer {desk.second_key}"}
    assert [desk.client.delete("/v1/recipients/anna", headers=second).status_code for _ in range(2)] == [204, 204]
    assert desk.call("PUT", "/v1/recipients/anna", form).status_code == 409
    assert desk.call("DELETE", "/v1/recipients/nobody").status_code == 404


def test_the_api_reads_addresses_as_files_do(desk: Desk) -> None:
    form = person("anna", email="anna@example.org\u200b", phone="0470 12 34 56", whatsapp="02 555 12 12")
    assert desk.call("PUT", "/v1/recipients/anna", form).status_code == 201
    with lend(desk.services.pool) as connection:
        shown = recipients.show(connection, "anna")
    assert (shown["email"], shown["phone"], shown["whatsapp"]) == ("anna@example.org", "+32470123456", "+3225551212")
    refused = desk.call("PUT", "/v1/recipients/anna", person("anna", phone="02 555 12 12"))
    assert (refused.status_code, "no SMS" in faults(refused)["phone"]) == (422, True)
    assert "5551212" not in refused.text


def test_a_campaign_of_the_past_and_one_of_bad_rows_do_not_start(desk: Desk) -> None:
    assert "send_at" in faults(desk.call("POST", "/v1/campaigns", campaign("anna", send_at="2020-01-01T09:00:00+01:00")))
    bad = campaign("anna") | {"audience": [{"recipient": "anna", "data": {"amount": "NULL"}}]}
    assert desk.call("POST", "/v1/campaigns", bad).json()["invalid"] == 1
    assert desk.call("GET", "/v1/campaigns/spring").json()["state"] == "awaiting_release"


def test_what_is_wrong_is_told_without_repeating_anybodys_data(desk: Desk) -> None:
    for name, value in [
        ("email", "secret.name@nowhere"),
        ("phone", "0470 secret"),
        ("birth_date", "secret"),
        ("language", "secret"),
        ("said_at", "secret"),
    ]:
        answer = desk.call("PUT", "/v1/recipients/anna", {**person("anna"), name: value})
        assert answer.status_code == 422
        assert list(faults(answer)) == [name]
        assert "secret" not in answer.text


def test_preferences_are_changed_by_whoever_saw_the_version_that_stands(desk: Desk) -> None:
    add_people(desk.services, person("anna"))
    path, change = "/v1/recipients/anna/preferences", {"channels": {"email": False}, "source": "branch", "actor": "desk-7"}
    seen = desk.call("GET", path)
    assert (seen.json()["offers"], seen.json()["channels"]["email"]) == (
        {"own": "tailored", "partner": "none", "kate": "tailored"},
        True,
    )
    changed = desk.call("PUT", path, change, If_Match=seen.headers["etag"])
    assert (changed.status_code, changed.json()["channels"]["email"]) == (200, False)
    assert changed.json()["choices"]["channel:email"]["source"] == "branch"
    assert changed.headers["etag"] == desk.call("GET", path).headers["etag"] != seen.headers["etag"]
    late = desk.call("PUT", path, {**change, "channels": {"email": True}}, If_Match=seen.headers["etag"])
    assert (late.status_code, late.headers["etag"]) == (412, changed.headers["etag"])
    for odd in ("", '"x"', "1", f"W/{changed.headers['etag']}", f'{changed.headers["etag"]}, "2"', '"' + "9" * 30 + '"'):
        assert desk.call("PUT", path, change, If_Match=odd).status_code == 412, odd
    assert desk.call("PUT", path, {**change, "channels": {"email": True}}, If_Match="*").json()["channels"]["email"] is True
    assert desk.call("PUT", path, change).json()["channels"]["email"] is False


def test_a_later_word_outranks_an_earlier_yes_and_says_so(desk: Desk) -> None:
    add_people(desk.services, person("anna"))
    path, said = "/v1/recipients/anna/preferences", {"source": "mobile", "actor": "app"}
    desk.call("PUT", path, {**said, "offers": {"own": "none"}})
    late = desk.call("PUT", path, {**said, "source": "live", "offers": {"own": "tailored"}, "at": "2026-11-22T09:00:00+01:00"})
    assert (late.json()["offers"]["own"], late.json()["outranked"]) == ("none", ["offer:own"])


def test_a_no_from_a_desk_is_acknowledged_once(desk: Desk) -> None:
    add_people(desk.services, person("anna"))
    form = {"channels": {"email": False, "push": False}, "source": "branch", "actor": "desk-7"}
    for _ in range(2):
        assert desk.call("PUT", "/v1/recipients/anna/preferences", form).status_code == 200
    desk.call("PUT", "/v1/recipients/anna/preferences", {**form, "channels": {"push": True}})
    assert len(desk.broker.dues) == 1
    desk.work()
    (mail,) = desk.mails()
    assert isinstance(mail.content, Email)
    assert "of certain kinds or through certain channels" in mail.content.text


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"source": None}, "source"),
        ({"source": "import"}, "source"),
        ({"actor": ""}, "actor"),
        ({"channels": {"fax": True}}, "channels.fax.[key]"),
        ({"channels": {"email": "yes"}}, "channels.email"),
        ({"offers": {"own": "some"}}, "offers.own"),
        ({"at": "2026-11-24T09:00:00Z"}, "at"),
        ({"at": "0001-01-01T00:00:00+14:00"}, "at"),
        ({"at": "2026-11-23T09:00:00"}, "at"),
    ],
)
def test_what_is_wrong_with_a_choice_is_told_by_field(desk: Desk, change: dict[str, Any], field: str) -> None:
    add_people(desk.services, person("anna"))
    form = {"channels": {"email": False}, "source": "branch", "actor": "desk-7", **change}
    answer = desk.call("PUT", "/v1/recipients/anna/preferences", form)
    assert answer.status_code == 422
    assert list(faults(answer)) == [field]
    assert desk.call("PUT", "/v1/recipients/nobody/preferences", {"source": "branch", "actor": "x"}).status_code == 404


def test_openapi_describes_every_body_answer_and_refusal(desk: Desk) -> None:
    document = desk.client.get("/openapi.json").json()
    named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert named <= set(document["components"]["schemas"])
    assert {"Campaign", "Message", "Recipient", "Preferences", "Problem"} <= named
    for (method, path), form in FORMS.items():
        operation = document["paths"][path.replace("/anna", "/{recipient_id}")][method.lower()]
        schema = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert set(form) <= set(document["components"]["schemas"][schema]["properties"])
        assert {"401", "403", "422", "503"} <= set(operation["responses"])


# -- odd calls ---------------------------------------------------------------------------------------------------------

ODD_TEXT = (
    "\0",
    "a\0b",
    "\ud800",
    "é" * 3,
    "’",
    "",
    " ",
    "x" * 5_000,
    "../../etc/passwd",
    "{{7*7}}",
    "1",
    "null",
    "0001-01-01",
    "9" * 40,
)
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**63, -(2**64), 10**30]),
    st.floats(),
    st.sampled_from(ODD_TEXT),
    st.text(max_size=20),
    st.sampled_from(["2026-11-23T12:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"]),
    st.recursive(
        st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    ),
)
FORMS = {
    ("POST", "/v1/campaigns"): campaign("anna", send_at="2026-11-24T09:00:00Z", rate_per_second=5, holdout_percent=1, priority=3),
    ("POST", "/v1/messages"): trigger(expires_at="2026-11-24T09:00:00Z"),
    ("PUT", "/v1/recipients/anna"): person(
        "anna",
        timezone="Europe/Brussels",
        partner="bert",
        purchased=["loan"],
        said_at="2026-11-01T00:00:00Z",
        profile={"a": {"b": 1}},
    ),
    ("PUT", "/v1/recipients/anna/preferences"): {
        "offers": {"own": "none"},
        "source": "live",
        "actor": "desk",
        "at": "2026-11-23T09:00:00Z",
    },
}


@st.composite
def disturbed(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """A good call with one place of its body replaced, in JSON as lenient writers write it, at times cut short."""
    (method, path), form = draw(st.sampled_from(list(FORMS.items())))
    copy = json.loads(json.dumps(form))
    part: Any = copy
    while True:
        place = draw(st.sampled_from(sorted(part) if isinstance(part, dict) else range(len(part))))
        if not isinstance(part[place], dict | list) or not part[place] or draw(st.booleans()):
            break
        part = part[place]
    if isinstance(part, dict) and draw(st.booleans()):
        part[draw(st.sampled_from(ODD_TEXT))] = part.pop(place)
    else:
        part[place] = draw(ODD)
    if path == "/v1/campaigns" and isinstance(copy, dict):
        copy["id"] = draw(st.sampled_from([copy.get("id"), *(f"c-{number}" for number in range(1_000))]))
    body = json.dumps(copy).encode()
    return method, path, body[: draw(st.sampled_from([None, None, None, len(body) // 2]))]


def test_no_odd_call_is_a_fault_of_ours_and_each_answer_is_one_that_openapi_names(desk: Desk) -> None:
    add_people(desk.services, person("anna"), person("bert", 2))
    paths = desk.client.get("/openapi.json").json()["paths"]

    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(disturbed())
    def odd(call: tuple[str, str, bytes]) -> None:
        method, path, body = call
        answer = desk.call(method, path, body)
        documented = paths[path.replace("/anna", "/{recipient_id}")][method.lower()]["responses"]
        assert str(answer.status_code) in documented, (answer.status_code, answer.text)
        assert answer.status_code < 400 or answer.headers["content-type"] == "application/problem+json"

    odd()
    desk.work()  # and what was accepted can be processed


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"{",
        b"\xff",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": "\\u0000"}',
        b'{"a": "\\ud800"}',
    ],
)
def test_what_is_no_json_object_is_told_so(desk: Desk, body: bytes) -> None:
    for method, path in FORMS:
        assert desk.call(method, path, body).status_code == 422


def test_a_body_that_is_too_deep_is_told_so(desk: Desk) -> None:
    for method, path in FORMS:
        assert desk.call(method, path, b'{"a":' * 5_000).status_code == 413


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ('"a\\u0000b"', "data.x"),
        ("1e999", "data.x"),
        (str(2**63), "data.x"),
        ('[0, {"y": "\\u0000"}]', "data.x.1.y"),
        ('{"\\u0000": 1}', "data.x"),
    ],
)
def test_a_value_that_the_ledger_could_not_keep_is_named(value: str, field: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_object(f'{{"data": {{"x": {value}}}}}'.encode())
    assert [fault.field for fault in caught.value.faults] == [field]
    assert read_object(b'{"data": {"x": -9223372036854775807, "y": 1e308, "z": "\\n"}}')["data"]["z"] == "\n"


def test_an_unknown_query_parameter_sends_nothing(desk: Desk) -> None:
    add_people(desk.services, person("anna"))
    answer = desk.call("POST", "/v1/campaigns?dryrun=true", campaign("anna"))
    assert (answer.status_code, faults(answer)) == (422, {"dryrun": "is no query parameter of this call; it has as_of, dry_run"})
    assert desk.call("GET", "/v1/campaigns/spring").status_code == 404
    assert faults(desk.call("GET", "/v1/campaigns?limit=1&limit=2&top=3")).keys() == {"limit", "top"}


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_pages_for_machines_refuse_query_parameters_too(desk: Desk, path: str) -> None:
    assert desk.client.get(path).status_code == 200
    assert faults(desk.client.get(f"{path}?verbose=1")) == {"verbose": "is no query parameter of this call; it has none"}


@pytest.mark.parametrize("coding", ["gzip", "identity, br", "x"])
def test_an_encoded_body_is_refused_and_not_read_as_it_comes(desk: Desk, coding: str) -> None:
    add_people(desk.services, person("anna"))
    for path in ("/v1/campaigns", "/webhooks/sendgrid", "/v1/triggers"):
        answer = desk.call("POST", path, campaign("anna"), Content_Encoding=coding)
        assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")
    assert desk.call("GET", "/v1/campaigns/spring").status_code == 404
    assert desk.call("POST", "/v1/campaigns", campaign("anna"), Content_Encoding="Identity").status_code == 201


# -- edits -------------------------------------------------------------------------------------------------------------


def test_a_campaign_is_edited_by_api_unless_somebody_else_did(desk: Desk) -> None:
    add_people(desk.services, person("anna"))
    desk.call("POST", "/v1/campaigns", campaign("anna", send_at="2026-11-23T15:00:00Z"))
    shown = desk.call("GET", "/v1/campaigns/spring")
    assert (shown.headers["etag"], shown.json()["version"], shown.json()["edits"]) == ('"0"', 0, [])
    answer = desk.call("PATCH", "/v1/campaigns/spring", {"send_at": None, "priority": 1}, If_Match='"0"')
    assert (answer.status_code, answer.headers["etag"]) == (200, '"1"')
    assert (answer.json()["send_at"], answer.json()["priority"], answer.json()["edits"][0]["by"]) == (None, 1, "app")
    stale = desk.call("PATCH", "/v1/campaigns/spring", {"priority": 2}, If_Match='"0"')
    assert (stale.status_code, stale.headers["etag"]) == (412, '"1"')
    assert faults(desk.call("PATCH", "/v1/campaigns/spring", {"audience": []})).keys() == {"audience"}
    assert desk.call("PATCH", "/v1/campaigns/summer", {"priority": 2}).status_code == 404
    desk.call("POST", "/v1/campaigns/spring/cancel")
    assert desk.call("PATCH", "/v1/campaigns/spring", {"priority": 2}).status_code == 409


# -- lists of messages -------------------------------------------------------------------------------------------------


def test_messages_are_listed_by_api_page_by_page(desk: Desk) -> None:
    add_people(desk.services, person("anna"), person("bert", 2), person("carl", 3, offers={"own": "none"}))
    desk.call("POST", "/v1/campaigns", campaign("anna", "bert", "carl"))
    desk.work()
    first = desk.call("GET", "/v1/messages?campaign=spring&limit=2").json()
    assert [(each["recipient"], each["state"]) for each in first["messages"]] == [("carl", "refused"), ("bert", "accepted")]
    rest = desk.call("GET", f"/v1/messages?campaign=spring&limit=2&cursor={first['next']}").json()
    assert ([each["recipient"] for each in rest["messages"]], rest["next"]) == (["anna"], None)
    (refused,) = desk.call("GET", "/v1/messages?state=refused&since=2026-11-23T11:00:00Z").json()["messages"]
    assert (refused["recipient"], refused["reason"]) == ("carl", "choice_none")
    for odd in ("state=lost", "channel=fax", "since=yesterday", "cursor=1", "limit=0", "recipient=../x", "campaing=spring"):
        assert desk.call("GET", f"/v1/messages?{odd}").status_code == 422, odd


# -- dry run -----------------------------------------------------------------------------------------------------------

PRICES = replace(parse(shipped()), sms_prices=SmsPrices("EUR", {"BE": 0.08}))


def test_a_dry_run_by_api_counts_and_keeps_nothing(desk: Desk) -> None:
    dutch = person("dirk", 4, phone="+31612345678", language="nl")
    add_people(desk.services, person("anna"), person("bert", 2, language="fr"), person("carl", 3, offers={"own": "none"}), dutch)
    desk.client.app.state.services = replace(desk.services, policy=PRICES)  # type: ignore[attr-defined]
    form = campaign("anna", "bert", "carl", "dirk", "nobody", "anna", channels=["sms"])
    answer = desk.call("POST", "/v1/campaigns?dry_run=true", form)
    assert answer.status_code == 200
    counts = answer.json()
    assert (counts["id"], counts["state"], counts["audience"], counts["channels"]) == ("spring", "dry_run", 6, {"sms": 3})
    assert counts["states"] == {"sendable": 3, "refused": 3}
    assert counts["reasons"] == {"choice_none": 1, "unknown_recipient": 1, "duplicate": 1}
    belgian, dutch_segments = counts["segments"]["BE"], counts["segments"]["NL"]
    assert counts["cost"] == {"currency": "EUR", "total": round(0.08 * belgian, 4), "unpriced": {"NL": dutch_segments}}
    assert belgian + dutch_segments == sum(int(size.split()[0]) * count for size, count in counts["sms"].items()) > 3
    assert desk.call("GET", "/v1/campaigns").json() == {"campaigns": []}
    assert not desk.mails()
    assert not desk.broker.dues


def test_a_dry_run_by_api_decides_as_at_its_moment(desk: Desk) -> None:
    add_people(desk.services, person("anna"))
    form, night = campaign("anna", channels=["sms"]), "2026-11-23T23:00:00Z"
    assert desk.call("POST", "/v1/campaigns?dry_run=true", form).json()["states"] == {"sendable": 1}
    counts = desk.call("POST", f"/v1/campaigns?dry_run=true&as_of={night}", form).json()
    assert (counts["states"], counts["reasons"]) == ({"held": 1}, {"quiet_hours": 1})
    control_group = {**form, "holdout_percent": 100}
    assert desk.call("POST", "/v1/campaigns?dry_run=true", control_group).json()["states"] == {"held_out": 1}
    for odd in (f"as_of={night}", "dry_run=true&as_of=2026-11-23T23:00:00", "dry_run=perhaps"):
        assert desk.call("POST", f"/v1/campaigns?{odd}", form).status_code == 422
    assert desk.call("GET", "/v1/campaigns/spring").status_code == 404


def test_a_second_dry_run_at_the_same_time_is_refused(desk: Desk) -> None:
    add_people(desk.services, person("anna"))
    with DRY_RUN_LOCK:
        answer = desk.call("POST", "/v1/campaigns?dry_run=true", campaign("anna"))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
    assert desk.call("POST", "/v1/campaigns?dry_run=true", campaign("anna")).status_code == 200


@pytest.mark.parametrize("name", ["id", "channels"])
def test_a_name_that_occurs_twice_is_refused(desk: Desk, name: str) -> None:
    add_people(desk.services, person("anna"))
    body = json.dumps(campaign("anna"))[:-1] + f', "{name}": ["sms"]}}'
    assert faults(desk.call("POST", "/v1/campaigns", body.encode())) == {name: "occurs twice in one object"}


def test_a_request_with_two_lengths_is_refused(desk: Desk) -> None:
    add_people(desk.services, person("anna"))
    answer = desk.call("POST", "/v1/campaigns", campaign("anna"), Transfer_Encoding="chunked", Content_Length="2")
    assert (answer.status_code, answer.headers["connection"]) == (400, "close")
    assert desk.call("GET", "/v1/campaigns/spring").status_code == 404


def test_a_body_that_is_too_large_is_refused(desk: Desk) -> None:
    assert desk.call("POST", "/v1/messages", b" " * 1_100_000).status_code == 413
    assert desk.call("POST", "/v1/campaigns", b" " * 1_100_000).status_code == 422


def test_an_unknown_path_or_method_is_a_problem_too(desk: Desk) -> None:
    answers = [desk.call("GET", "/v1/nothing"), desk.call("PATCH", "/v1/campaigns")]
    assert [(each.status_code, each.headers["content-type"]) for each in answers] == [
        (404, "application/problem+json"),
        (405, "application/problem+json"),
    ]


def test_a_fault_of_ours_says_nothing_of_what_was_asked(desk: Desk) -> None:
    app = create(desk.services, desk.broker)

    @app.get("/broken")
    def broken() -> None:
        raise ValueError("anna@example.org")

    with TestClient(app) as client:
        answer = client.get("/broken")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "anna" not in answer.text


def test_browsers_are_told_to_run_frame_and_keep_nothing(desk: Desk) -> None:
    for path in ("/v1/campaigns", "/v1/nothing", "/healthz"):
        headers = desk.call("GET", path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")
        assert headers["strict-transport-security"]


# -- health ------------------------------------------------------------------------------------------------------------


def test_a_ledger_that_is_away_is_told_with_a_time_to_come_back(tmp_path: Path) -> None:
    with open_desk(NOWHERE, tmp_path, wait_seconds_max=0.2) as desk:
        assert desk.client.get("/healthz").status_code == 200
        for method, path, body in [
            ("GET", "/v1/campaigns", None),
            ("POST", "/v1/messages", trigger()),
            ("GET", "/readyz", None),
        ]:
            answer = desk.call(method, path, body)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5"), path
        text = desk.client.get("/metrics").text
        assert 'dispatcher_engine_up{engine="database"} 0' in text
        assert "dispatcher_chunks_open" not in text


def test_figures_tell_how_things_stand_and_of_nobody(desk: Desk) -> None:
    assert desk.client.get("/readyz").status_code == 200
    add_people(desk.services, person("anna"))
    desk.call("POST", "/v1/campaigns", campaign("anna"))
    with lend(desk.services.pool) as connection:
        stopped_channels.stop(connection, Channel.SMS, "twilio", "20003", NOON)
    text = desk.client.get("/metrics").text
    assert 'dispatcher_campaigns{state="running"} 1\n' in text
    assert "dispatcher_chunks_open 1\n" in text
    assert 'dispatcher_channel_stopped{channel="sms"} 1\n' in text
    assert 'dispatcher_channel_stopped{channel="email"} 0\n' in text
    assert "anna" not in text
    assert "spring" not in text


def test_a_key_compares_by_its_whole_hash() -> None:
    keys = ApiKeyRing((ApiKey("a", b"\0" * 32, frozenset()), ApiKey("b", b"\1" * 32, frozenset())))
    found = keys.of_digest(b"\1" * 32)
    assert found is not None
    assert found.name == "b"
    assert keys.of_digest(b"\1" * 31) is None


# -- the same again, spelled otherwise ---------------------------------------------------------------------------------

MONDAY_NOON = {"expires_at": "2026-11-24T12:00:00+01:00", "send_at": "2026-11-23T15:00:00Z", "rate_per_second": 100}


def spelled_data(data: dict[str, Any]) -> dict[str, Any]:
    return dict(reversed({**data, "amount": float(data["amount"])}.items()))


def spelled_otherwise(form: dict[str, Any]) -> dict[str, Any]:
    """The same content with other keys first, other numbers and other zones."""
    others = {"expires_at": "2026-11-24T11:00:00.000Z", "send_at": "2026-11-23T16:00:00+01:00", "rate_per_second": 1e2}
    rows = [{"data": spelled_data(row["data"]), "recipient": row["recipient"]} for row in form["audience"]]
    return dict(reversed({**form, **others, "priority": 5, "audience": rows}.items()))


def test_a_campaign_spelled_otherwise_is_the_same_campaign(desk: Desk) -> None:
    add_people(desk.services, person("anna", 1))
    form = campaign("anna", "bert", **MONDAY_NOON)
    assert desk.call("POST", "/v1/campaigns", form).status_code == 201
    assert desk.call("POST", "/v1/campaigns", spelled_otherwise(form)).status_code == 201
    for other in ({"rate_per_second": 101}, {"send_at": "2026-11-23T15:00:01Z"}, {"channels": None}, {"priority": 4}):
        assert desk.call("POST", "/v1/campaigns", {**form, **other}).status_code == 409
    assert desk.call("POST", "/v1/campaigns", campaign("bert", "anna", **MONDAY_NOON)).status_code == 409
    assert desk.call("GET", "/v1/campaigns/spring").json()["audience"] == 2


def test_a_campaign_repeated_after_its_end_and_without_its_template_is_the_same_campaign(desk: Desk) -> None:
    form = campaign("anna", **MONDAY_NOON)
    first = desk.call("POST", "/v1/campaigns", form)
    desk.clock.pass_(7 * 86_400)
    assert desk.call("POST", "/v1/campaigns", form).json() == first.json()
    assert desk.call("POST", "/v1/campaigns", {**form, "id": "other"}).status_code == 422
    desk.client.app.state.services = replace(desk.services, catalog=type(desk.services.catalog)({}))  # type: ignore[attr-defined]
    assert desk.call("POST", "/v1/campaigns", form).json() == first.json()


def test_a_default_written_out_is_the_same_campaign(desk: Desk) -> None:
    form = campaign("anna")
    assert desk.call("POST", "/v1/campaigns", form).status_code == 201
    assert desk.call("POST", "/v1/campaigns", {**form, "entity": "kbc-bank", "route": "first"}).status_code == 201


def test_a_trigger_spelled_otherwise_is_the_same_trigger(desk: Desk) -> None:
    add_people(desk.services, person("anna", 1))
    job = {"key": "k-2", "recipient": "anna", "template": "loan_offer", "data": LOAN, "expires_at": "2026-11-24T12:00:00+01:00"}
    first = desk.call("POST", "/v1/messages", job)
    assert first.status_code == 202
    same = {**job, "data": spelled_data(LOAN), "expires_at": "2026-11-24T11:00:00Z"}
    assert desk.call("POST", "/v1/messages", same).json() == first.json()
    assert desk.call("POST", "/v1/messages", {**job, "expires_at": "2026-11-24T11:00:00+01:00"}).status_code == 409


def test_workers_accept_the_same_again(desk: Desk) -> None:
    add_people(desk.services, person("anna", 1))
    celery_app._per_thread.services = desk.services
    try:
        form = campaign("anna", **MONDAY_NOON)
        job = {"key": "k-3", "recipient": "anna", "template": "loan_offer", "data": LOAN, "expires_at": "2026-11-24T12:00:00+01:00"}
        for repeated in (form, spelled_otherwise(form)):
            tasks.submit_campaign.apply(args=[repeated], throw=True)
        desk.clock.pass_(7 * 86_400)
        assert desk.call("POST", "/v1/campaigns/spring/cancel").status_code == 200  # nothing is due, so nothing is published
        tasks.submit_campaign.apply(args=[form], throw=True)
        for repeated in (job, {**job, "expires_at": "2026-11-24T11:00:00Z"}):
            tasks.trigger.apply(args=[repeated], throw=True)
        with pytest.raises(BadInput, match="other content"):
            tasks.trigger.apply(args=[{**job, "recipient": "bert"}], throw=True)
    finally:
        del celery_app._per_thread.services
    assert [line["id"] for line in desk.call("GET", "/v1/campaigns").json()["campaigns"]] == ["spring"]


def test_a_large_audience_that_another_call_loads_is_answered_with_loading(desk: Desk) -> None:
    """The call that was lost had written a part; a repetition says so, and later goes on with it."""
    form = campaign(*(f"c-{number}" for number in range(25)))
    killed = replace(desk.services, limits=replace(desk.services.limits, part_rows=10))
    parsed = parse_request(form)
    with pytest.raises(SystemExit):
        submission.accept(killed, parsed, progress=lambda taken: sys.exit(1) if taken >= 20 else None, by="app")
    answer = desk.call("POST", "/v1/campaigns", form)
    assert (answer.status_code, answer.json()["loading"], answer.json()["audience"]) == (202, True, 20)
    assert int(answer.headers["retry-after"]) > 0
    shown = desk.call("GET", "/v1/campaigns/spring").json()
    assert (shown["state"], shown["loading"]) == ("scheduled", True)
    assert desk.call("POST", "/v1/campaigns/spring/pause").status_code == 409
    assert desk.call("POST", "/v1/campaigns", {**form, "priority": 9}).status_code == 409
    desk.clock.pass_(60)
    answer = desk.call("POST", "/v1/campaigns", form)
    assert (answer.status_code, answer.json()["loading"], answer.json()["audience"]) == (201, False, 25)
    assert desk.call("GET", "/v1/campaigns/spring").json()["loading"] is False


def test_a_body_of_too_many_values_is_413_and_names_the_limit(desk: Desk) -> None:
    answer = desk.call("POST", "/v1/campaigns", b'{"id":"a","audience":[' + b"1," * 2_000_000 + b"1]}")
    assert answer.status_code == 413
    assert "2,000,000 values" in answer.json()["detail"]
    assert desk.call("POST", "/v1/messages", b'{"data":[' + b"1," * 50_000 + b"1]}").status_code == 413
    assert desk.client.post("/webhooks/sendgrid", content=b"[" + b"1," * 200_000 + b"1]").status_code == 413

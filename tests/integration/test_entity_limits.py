"""Somebody who is limited to an entity sees and changes nothing of another one, on any page and by any call.

The tests walk all routes: a new one is in the walk by itself, and one with a parameter that is not planted here fails.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute
from httpx2 import Response
from starlette.testclient import TestClient

from channels.base import BadAddress, Channel, InboundText, Uncertain
from dispatcher.campaigns import refused_jobs, schedules, submission
from dispatcher.consent import erasure_requests
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.principal import UNLIMITED_RIGHTS, Principal, PrincipalKind, Right
from dispatcher.domain.refused_job import TRIGGER_TASK, RefusalReason, RefusedJob
from dispatcher.events import event_endpoints
from dispatcher.identity import audit
from dispatcher.identity.sessions import Origin
from dispatcher.inbound import customer_replies
from dispatcher.intake.campaign import parse_campaign
from dispatcher.runtime.services import Services
from dispatcher.web.api_keys import new_key, read_keys
from dispatcher.web.app import create
from dispatcher.web.console import pages
from tests.support.people import sign_in
from tests.support.services import Broker, Clock, add_people, make_services, outbox, person, work

HTML = {"Accept": "text/html"}
MARK = "zz-"  # how every planted id begins, and nothing else that a page shows
LOAN = {"project": "a bike", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
CUSTOMER, SPRING, LATE, WEEKLY, KEY, HOOK = (f"{MARK}{name}" for name in ("anna", "spring", "late", "weekly", "trigger", "hook"))
UNKNOWN = "qq-"
# Tables whose rows of the planted things must not change.
TABLES = (
    *("campaigns", "campaign_edits", "messages", "triggers", "recipients", "consent_events", "inbound_texts", "schedules"),
    *("campaign_dry_runs", "refused_jobs", "erasure_requests", "suppressions", "event_endpoints", "dead_letters", "doubts", "jobs"),
)
OWN_PAGES = {  # of the session itself, or with the person's own things only
    *("/console/logout", "/console/password", "/console/confirm", "/console/login", "/console/oidc", "/console/oidc/callback"),
    *("/console/sessions/{id_hash}",),
}
FIELDS = {  # a superset of the fields of all forms, so that each call gets past the check of its form
    "was": "failed",
    "reason": "a reason",
    "text": "hello",
    "q": CUSTOMER,
    "tester": "",
    "campaign": SPRING,
    "channel": "email",
    "identity-check": "itsme",
    "source": "branch",
    "link-channel": "email",
    "link-key": "0" * 16,
    "version": "0",
}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/campaigns/{campaign_id}": {"priority": 3},
    "/v1/campaigns/{campaign_id}/conversions": {"conversions": [{"recipient": CUSTOMER, "at": "2026-11-20"}]},
    "/v1/campaigns/{campaign_id}/rows": {"rows": [{"recipient": CUSTOMER, "data": LOAN}]},
    "/v1/messages/cancel": {"key": KEY},
    "/v1/recipients/search": {"address": f"{CUSTOMER}@example.org"},
    "/v1/recipients/{recipient_id}": person(CUSTOMER, entities=["cbc-banque"]),
    "/v1/recipients/{recipient_id}/preferences": {"offers": {"own": "none"}, "source": "branch", "actor": "x"},
}
QUERIES = {
    "/console/search": [f"q={SPRING}", f"campaign={SPRING}&recipient={CUSTOMER}"],
    "/console/unresolved": [f"campaign={SPRING}", "channel=email"],
    "/console/audit": [f"recipient={CUSTOMER}", f"object_id={SPRING}", "who=user:carla"],
    "/console/calendar": ["month=2026-11", "month=2026-12"],
    "/v1/messages": [f"recipient={CUSTOMER}", f"campaign={SPRING}", "state=unresolved"],
    "/v1/audit": [f"recipient={CUSTOMER}", f"object_id={SPRING}", "principal=user:carla"],
}


@dataclass(frozen=True)
class Route:
    """A route, with what a call of it is."""

    method: str
    path: str

    def filled(self, planted: dict[str, list[str]], is_known: bool) -> list[str]:
        """The path with each planted id, or with ids of nothing."""
        names = re.findall(r"{(\w+)(?::\w+)?}", self.path)
        missing = set(names) - planted.keys()
        assert not missing, f"{self.path}: say in `planted` what {missing} of the other entity is"
        paths = [re.sub(r"{(\w+):\w+}", r"{\1}", self.path)]
        for name in names:
            values = planted[name]
            if not is_known:
                values = [_unknown(name, value) for value in values]
            paths = [path.replace(f"{{{name}}}", value) for path in paths for value in values]
        return paths


def _unknown(name: str, value: str) -> str:
    """An id of the same form that nothing has; a value that is no id stays."""
    if name == "message_id" and not value.startswith(MARK):
        return "202611-987654-0-0"
    return "987654" if name in ("number", "no") else re.sub(f"^{MARK}", UNKNOWN, value)


class World:
    """A bank with customers, campaigns and messages of `kbc-bank`, and somebody who is limited to `cbc-banque`."""

    def __init__(self, services: Services, clock: Clock, database: str, folder: Path) -> None:
        self.services, self.clock, self.database = services, clock, database
        self.planted = self._plant()
        limited, line = new_key("limited", [right for right in Right if right not in UNLIMITED_RIGHTS], entities=["cbc-banque"])
        unlimited, other = new_key("unlimited", list(Right))
        (folder / "keys.toml").write_text(line + other)
        self.application = create(services, Broker(), read_keys(folder / "keys.toml"))
        self.keys = {"limited": limited, "unlimited": unlimited}

    def client(self, who: str, entities: list[str] | None) -> tuple[TestClient, str]:
        """A browser of somebody with all roles, who also has an API key; and the token of the forms."""
        client = TestClient(self.application, base_url="https://x.example", follow_redirects=False)
        token = sign_in(client, self.services, who, entities=entities)
        client.headers["Authorization"] = f"Bearer {self.keys[who]}"
        return client, token

    def submit(self, campaign_id: str, **changes: Any) -> None:
        form = {"id": campaign_id, "template": "loan_offer", "channels": ["email"], "entity": "kbc-bank", **changes}
        form.setdefault("audience", [{"recipient": CUSTOMER, "data": LOAN}])
        submission.submit(self.services, parse_campaign(form, submission.validation_context(self.services)))

    def _plant(self) -> dict[str, list[str]]:
        services = self.services
        add_people(services, person(CUSTOMER, 1), person(f"{MARK}bert", 2), person("own", 3, entities=["cbc-banque"]))
        outbox(services).answers[f"{CUSTOMER}@example.org"] = Uncertain("timeout")
        self.submit(SPRING)
        work(services)
        outbox(services).answers.clear()
        self.submit(f"{MARK}done", audience=[{"recipient": f"{MARK}bert", "data": LOAN}])
        work(services)
        outbox(services).answers[f"{MARK}bert@example.org"] = BadAddress("550")
        submission.accept_trigger(services, {"key": KEY, "recipient": CUSTOMER, "template": "loan_offer", "data": LOAN})
        self.submit(LATE, send_at="2026-11-25T12:00:00+01:00")
        campaign = {"template": "loan_offer", "channels": ["email"], "audience": {"upload": f"{MARK}weekly-*"}}
        form = {"id": WEEKLY, "cron": "0 9 * * *", "zone": "Europe/Brussels", "campaign": campaign}
        schedules.add(services, schedules.parse(services, form), "anna")
        text = InboundText(f"{MARK}SM-1", Channel.SMS, "+32470000001", "hallo?")
        customer_replies.handle_reply(services, lambda _: None, text)
        refused_jobs.record(services, RefusedJob(TRIGGER_TASK, f"{MARK}job", RefusalReason.INVALID_FIELDS, (), b"d" * 16))
        erasure_requests.request(services, CUSTOMER, f"{MARK}reason", "user:carla")
        endpoint = {"id": HOOK, "url": "https://hooks.example/x", "campaigns": [SPRING]}
        event_endpoints.add(services, event_endpoints.parse_form(endpoint), "user:carla")
        carla = Principal("user:carla", "carla", PrincipalKind.USER)
        for note in (
            AuditNote(AuditAction.LOOK, "recipient", CUSTOMER, recipient=CUSTOMER),
            AuditNote(AuditAction.PAUSE, "campaign", SPRING),
            AuditNote(AuditAction.LOOK, "message", f"{MARK}m", recipient=CUSTOMER, entity="kbc-bank"),
            AuditNote(AuditAction.SEARCH, "recipients", detail={"found": [CUSTOMER]}, reason=f"{MARK}found"),
        ):
            audit.note(services, carla, Origin("console", "x"), note)
        with psycopg.connect(self.database) as connection:
            refs = connection.execute("SELECT format('%s-%s-%s-%s', period, chunk, row, leg) FROM messages").fetchall()
            triggers = connection.execute("SELECT format('%s-%s-0-0', period, chunk) FROM triggers").fetchall()
        self.message_ids = [ref for (ref,) in [*refs, *triggers]]
        texts = [*self.message_ids, f"{MARK}SM-1"]
        return {
            "recipient_id": [CUSTOMER],
            "customer_id": [CUSTOMER],
            "campaign_id": [SPRING, LATE],
            "schedule_id": [WEEKLY],
            "upload_id": [f"{MARK}upload"],
            "endpoint_id": [HOOK],
            "message_id": texts,
            "number": ["1"],
            "no": ["1"],
            "id_hash": ["0" * 64],
            "name": ["loan_offer"],
            "digest": [services.catalog["loan_offer"].digest],
            "kind": ["message"],
            "action": ["pause", "cancel", "release", "approve", "end", "enable", "disable", "withdraw", "replay", "skip"],
            "format_": ["csv", "parquet"],
        }

    def rows(self) -> dict[str, list[str]]:
        """All rows that name something planted, and those of the planted messages."""
        known: dict[str, list[str]] = {}
        with psycopg.connect(self.database) as connection:
            for table in TABLES:
                found = connection.execute(f"SELECT to_jsonb(t)::text FROM {table} t".encode())  # noqa: S608  a constant
                known[table] = sorted(text for (text,) in found)
        return known


@pytest.fixture
def world(database: str, tmp_path: Path) -> Iterator[World]:
    clock = Clock()
    with make_services(database, clock) as services:
        yield World(replace(services, audiences=tmp_path / "audiences"), clock, database, tmp_path)


def routes(client: TestClient) -> list[Route]:
    """All routes of the console and the API."""
    described = client.get("/openapi.json").json()["paths"]
    found = [Route(method.upper(), path) for path, item in described.items() for method in item if path.startswith("/v1/")]
    for included in pages.router.routes:
        group: APIRouter = included.original_router  # type: ignore[attr-defined]
        own = [each for each in group.routes if isinstance(each, APIRoute)]
        found += [Route(method, f"/console{each.path}") for each in own for method in each.methods or ()]
    assert len(found) > 100
    return [each for each in found if each.path not in OWN_PAGES]


def call(client: TestClient, token: str, route: Route, path: str) -> Response:
    if route.method == "GET":
        return client.get(path, headers=HTML if path.startswith("/console") else {})
    if path.startswith("/console"):
        return client.post(path, data={"form_token": token, **FIELDS}, headers=HTML)
    body = BODIES.get(route.path)
    if route.path in ("/v1/recipients/{recipient_id}",) and body:
        body = {**body, "id": path.rpartition("/")[2]}
    return client.request(route.method, path, content=json.dumps(body) if body else b"{}")


def answer_of(answer: Response, path: str) -> tuple[int, str]:
    """An answer, without the ids that the caller named."""
    text = answer.text + answer.headers.get("location", "")
    for each in sorted(re.split(r"[/?&=]", path), key=len, reverse=True):
        if each.startswith((MARK, UNKNOWN)) or re.fullmatch(r"\d+-\d+-\d+-\d+", each):
            text = text.replace(each, "#")
    return answer.status_code, text


def test_no_page_or_list_names_a_thing_of_another_entity(world: World) -> None:
    (limited, token), (unlimited, free) = world.client("limited", ["cbc-banque"]), world.client("unlimited", None)
    world.clock.pass_(3 * 24 * 3_600)
    (limited, token), (unlimited, free) = world.client("limited", ["cbc-banque"]), world.client("unlimited", None)
    shown_to_others = set()
    for route in routes(limited):
        if route.method != "GET" or route.path == "/v1/events":
            continue
        for filled in route.filled(world.planted, True):
            for path in (filled, *(f"{filled}?{query}" for query in QUERIES.get(route.path, ()))):
                _, text = answer_of(call(limited, token, route, path), path)
                for name, value in (("a planted id", MARK), *(("a message", ref) for ref in world.message_ids)):
                    assert value not in text, (name, value, path)
                if MARK in answer_of(call(unlimited, free, route, path), path)[1]:
                    shown_to_others.add(route.path)
    assert shown_to_others >= {  # the planted things are there to be seen
        *("/console", "/console/messages/{message_id}", "/console/unresolved"),
        *("/console/inbound-messages", "/console/refused-jobs", "/console/schedules", "/console/calendar", "/console/audit"),
        *("/console/people", "/console/webhooks", "/console/templates/{name}", "/v1/campaigns", "/v1/messages", "/v1/schedules"),
        *("/v1/messages/{message_id}", "/v1/audit", "/v1/webhooks", "/v1/templates/{name}/history", "/console/operations"),
    }


def test_an_id_of_another_entity_is_answered_like_an_unknown_one(world: World) -> None:
    limited, token = world.client("limited", ["cbc-banque"])
    before = world.rows()
    for route in routes(limited):
        planted, nothing = route.filled(world.planted, True), route.filled(world.planted, False)
        for path, other in zip(planted, nothing, strict=True):
            (status, text), expected = (answer_of(call(limited, token, route, each), each) for each in (path, other))
            # Digits are left out: numbers are ids, too, and a random token is in some pages.
            assert (status, re.sub(r"[0-9a-f]{16,}|\d+", "", text)) == (
                expected[0],
                re.sub(r"[0-9a-f]{16,}|\d+", "", expected[1]),
            ), (
                route.method,
                path,
            )
    after = world.rows()
    for table in TABLES:
        assert after[table] == before[table], table

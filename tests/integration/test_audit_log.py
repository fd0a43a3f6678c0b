"""The audit log: every act and every look at personal data, append-only, in one chain, and listed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.testclient import TestClient

from dispatcher.campaigns.submission import submit, validation_context
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.principal import Principal, PrincipalKind, Right, Role
from dispatcher.identity import audit
from dispatcher.identity.audit import AuditFilter
from dispatcher.identity.sessions import Origin
from dispatcher.intake.campaign import parse_campaign
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import recipients
from dispatcher.ledger.identity import audit_log
from dispatcher.runtime.services import Services
from dispatcher.web import auditing
from dispatcher.web.api_keys import new_key, read_keys
from dispatcher.web.app import create
from dispatcher.web.console import pages
from tests.support.command import run_command
from tests.support.people import sign_in
from tests.support.services import Broker, add_people, make_services, person

ALL = AuditFilter()
ANNA = "anna@example.org"


@pytest.fixture
def services(database: str) -> Iterator[Services]:
    with make_services(database) as made:
        yield made


@pytest.fixture
def client(services: Services, tmp_path: Path) -> Iterator[TestClient]:
    key, line = new_key("crm", list(Right))
    (tmp_path / "keys.toml").write_text(line)
    with TestClient(create(services, Broker(), read_keys(tmp_path / "keys.toml")), base_url="https://x.example") as made:
        made.headers["Authorization"] = f"Bearer {key}"
        yield made


def noted(services: Services, wanted: AuditFilter = ALL) -> list[tuple[str, str, str, str]]:
    """Who did what on what with which outcome, oldest first, without the signing in."""
    rows = reversed(audit.page(services, wanted, None, 1_000))
    return [
        (row.principal_id, row.action, f"{row.object_type} {row.object_id}", row.outcome) for row in rows if row.action != "sign_in"
    ]


def test_each_call_is_recorded_or_has_a_record_of_its_own(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    routes = {(method.upper(), path) for path, item in paths.items() for method in item if path.startswith("/v1/")}
    for included in pages.router.routes:
        group: APIRouter = included.original_router  # type: ignore[attr-defined]
        routes |= {
            (method, f"/console{each.path}") for each in group.routes if isinstance(each, APIRoute) for method in each.methods or ()
        }
    known = {*auditing.API_CALLS, *auditing.CONSOLE_CALLS, *auditing.BY_HANDLER, *auditing.OWN_RECORD}
    changing = {each for each in routes if each[0] != "GET"}
    assert changing - known == set()
    assert known - routes == set()


def test_the_api_records_who_looked_and_what_was_refused(services: Services, client: TestClient) -> None:
    add_people(services, person("anna", 1))
    assert client.get("/v1/recipients/anna").status_code == 200
    assert client.post("/v1/recipients/search", json={"address": ANNA}).json() == {"ids": ["anna"]}
    assert client.get("/v1/recipients/anna/export").status_code == 200
    assert client.post("/v1/campaigns/none/pause").status_code == 404
    assert client.delete("/v1/recipients/anna").status_code == 202
    assert noted(services) == [
        ("api:crm", "look", "recipient anna", "begun"),
        ("api:crm", "search", "recipients ", "begun"),
        ("api:crm", "export", "recipient anna", "begun"),
        ("api:crm", "pause", "campaign none", "begun"),
        ("api:crm", "pause", "campaign none", "refused"),
        ("api:crm", "request", "erasure anna", "begun"),
        ("api:crm", "request", "erasure anna", "done"),
    ]
    with lend(services.pool) as connection:
        assert ANNA not in json.dumps([asdict(row) for row in audit.page(services, ALL, None, 100)], default=str)
        shown = recipients.export(connection, "anna")["looks_and_acts"]
    assert [(each["who"], each["action"]) for each in shown] == [("api:crm", "look"), ("api:crm", "export"), ("api:crm", "request")]


def test_the_console_records_acts_looks_and_refusals(services: Services, client: TestClient) -> None:
    add_people(services, person("anna", 1))
    data = {"offer_url": "https://www.bank.example/loan", "project": "a bike", "amount": 5_000}
    form = {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": [{"recipient": "anna", "data": data}]}
    submit(services, parse_campaign(form, validation_context(services)))
    token = sign_in(client, services, "jana")
    for action, form_token, status in (("pause", token, 303), ("release", token, 303), ("cancel", "x", 403)):
        answer = client.post(f"/console/campaigns/spring/{action}", data={"form_token": form_token}, follow_redirects=False)
        assert answer.status_code == status
    assert client.get("/console/messages/202611-1-0-0").status_code == 200
    assert noted(services) == [
        ("user:jana", "pause", "campaign spring", "begun"),
        ("user:jana", "pause", "campaign spring", "done"),
        ("user:jana", "release", "campaign spring", "begun"),
        ("user:jana", "release", "campaign spring", "refused"),
        ("user:jana", "cancel", "campaign spring", "begun"),
        ("user:jana", "cancel", "campaign spring", "refused"),
        ("user:jana", "look", "message 202611-1-0-0", "begun"),
    ]
    assert noted(services, AuditFilter(recipient="anna")) == [("user:jana", "look", "message 202611-1-0-0", "begun")]
    shown = client.get("/console/campaigns/spring").text.partition("Who did what")[2]
    assert "release: refused" in shown
    page = client.get("/console/audit?who=user:jana&action=pause").text
    assert "campaign" in page
    assert "user:jana" in page
    assert "messages" not in page.partition("<tbody>")[2]
    assert client.get("/console/audit?since=soon", headers={"Accept": "text/html"}).status_code == 422
    sign_in(client, services, "mark", [Role.MARKETER])
    assert client.get("/console/audit").status_code == 403


def test_an_interrupted_act_has_a_row_without_an_outcome(services: Services, database: str, client: TestClient) -> None:
    """The ledger is lost after the act began: nobody can say whether it was done, and the row says neither."""
    add_people(services, person("anna", 1))
    with psycopg.connect(database) as connection:
        connection.execute("ALTER TABLE erasure_requests ADD CHECK (reason <> 'lost')")
    assert client.delete("/v1/recipients/anna?reason=lost").status_code >= 500
    assert client.delete("/v1/recipients/anna?reason=letter").status_code == 202
    assert noted(services) == [
        ("api:crm", "request", "erasure anna", "begun"),
        ("api:crm", "request", "erasure anna", "begun"),
        ("api:crm", "request", "erasure anna", "done"),
    ]
    last, begun, lost = audit.page(services, ALL, None, 3)
    assert (last.detail, begun.detail, lost.detail) == ({"row": begun.no}, {}, {})


def test_pages_go_back_without_gaps(services: Services, client: TestClient) -> None:
    for number in range(7):
        audit.note(services, JANA, HERE, AuditNote(AuditAction.LOOK, "recipient", f"c-{number}"))
    found: list[int] = []
    cursor: int | None = None
    while True:
        path = f"/v1/audit?limit=3&principal=user:jana{f'&cursor={cursor}' if cursor is not None else ''}"
        answer = client.get(path).json()
        found += [row["no"] for row in answer["rows"]]
        cursor = answer["next"]
        if cursor is None:
            break
    assert found == list(range(7, 0, -1))
    assert client.get("/v1/audit?action=nonsense").status_code == 422


JANA, HERE = Principal("user:jana", "Jana", PrincipalKind.USER), Origin("command line", "host")


CUT = "DELETE FROM audit_log WHERE no = 3"
MOVE = "UPDATE audit_log_end SET no = 2, head = (SELECT hash FROM audit_log WHERE no = 2)"


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("UPDATE audit_log SET principal_id = 'user:bart' WHERE no = 2", "row 2: changed"),
        ("UPDATE audit_log SET detail = '{\"x\": 1}' WHERE no = 2", "row 2: changed"),
        ("DELETE FROM audit_log WHERE no = 2", "row 2: missing"),
        ("DELETE FROM audit_log WHERE no = 1", "row 1: missing"),
        (CUT, "does not end where it should"),
        (f"{CUT};{MOVE}", "end was moved"),
    ],
)
def test_a_changed_or_missing_row_is_found(services: Services, database: str, statement: str, fault: str) -> None:
    for number in range(3):
        audit.note(services, JANA, HERE, AuditNote(AuditAction.LOOK, "recipient", f"c-{number}", detail={"n": [1, 2]}))
    assert audit.verify(services) == []
    with psycopg.connect(database) as owner:
        with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
            owner.execute(statement.encode())
        owner.rollback()
        owner.execute("ALTER TABLE audit_log DISABLE TRIGGER ALL")
        owner.execute(statement.encode())
    assert any(fault in each for each in audit.verify(services))
    with lend(services.pool) as worker, pytest.raises(psycopg.errors.InsufficientPrivilege):
        worker.execute("DELETE FROM audit_log")


def test_the_chain_goes_on_after_a_new_secret_key(services: Services) -> None:
    audit.note(services, JANA, HERE, AuditNote(AuditAction.LOOK, "recipient", "c-1"))
    both = KeyRing.of(b"another secret that is long enough", *services.secret)
    with lend(services.pool) as connection:
        row = audit_log.row_of(AuditNote(AuditAction.LOOK, "recipient", "c-2"), JANA, ("console", ""), services.clock())
        audit_log.append(connection, both, row)
        assert list(audit_log.verify(connection, both)) == []


def test_retention_deletes_the_oldest_rows_and_the_chain_holds(services: Services) -> None:
    for days in (800, 700, 10):
        act = AuditNote(AuditAction.LOOK, "recipient", f"c-{days}")
        with lend(services.pool) as connection:
            row = audit_log.row_of(act, JANA, ("console", ""), services.clock() - timedelta(days=days))
            audit_log.append(connection, services.secret, row)
    with lend(services.pool) as connection:
        before = services.clock() - timedelta(days=600)
        assert (audit_log.overdue(connection, before), audit_log.forget(connection, before, services.clock())) == (2, 2)
        assert audit_log.overdue(connection, before) == 0
    assert audit.verify(services) == []
    assert noted(services) == [("user:jana", "look", "recipient c-10", "begun")]


def test_the_command_line_records_lists_and_checks(services: Services, database: str, tmp_path: Path) -> None:
    add_people(services, person("anna", 1))
    run_command(database, tmp_path, "recipients", "show", "anna")
    run_command(database, tmp_path, "recipients", "erase", "anna")
    listed = json.loads(run_command(database, tmp_path, "audit", "list", "--recipient", "anna", "--json").stdout)
    assert [(row["action"], row["object_type"], row["place"]) for row in listed] == [
        ("request", "erasure", "command line"),
        ("request", "erasure", "command line"),
        ("look", "recipient", "command line"),
    ]
    assert run_command(database, tmp_path, "audit", "verify").returncode == 0
    assert run_command(database, tmp_path, "audit", "list", "--since", "soon").returncode == 2
    lines = run_command(database, tmp_path, "audit", "export").stdout.splitlines()
    assert json.loads(lines[0])["action"] == "export"

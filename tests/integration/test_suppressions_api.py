"""Suppressions by API: who may, what is answered, and that no address is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from dispatcher.consent import suppressions
from dispatcher.ledger.connection import lend
from dispatcher.web.app import create
from tests.integration.test_api import Desk, keys_for, open_desk
from tests.support.services import Broker

LIST = "email,reason,date\nanna@example.org,unsubscribed,2026-01-31\nnobody(at)example.org,bounced,\n"


@pytest.fixture
def desk(database: str, tmp_path: Path) -> Iterator[Desk]:
    with open_desk(database, tmp_path) as opened:
        yield opened


def test_a_list_is_imported_searched_and_lifted(desk: Desk) -> None:
    answer = desk.call("POST", "/v1/suppressions/import", LIST.encode(), Content_Type="text/csv; charset=utf-8")
    assert answer.json() == {
        "dry_run": False,
        "format": "plain",
        "reasons": {"opted_out": 1},
        **dict.fromkeys(("ignored", "suppressed_before", "lifted_later", "opt_outs_recorded", "messages_refused"), 0),
        **dict.fromkeys(("taken", "suppressed", "rejected"), 1),
        "faults": [{"line": 3, "field": "email", "message": "is not a valid e-mail address"}],
    }
    (shown,) = desk.call("POST", "/v1/suppressions/search", {"address": "Anna@example.org"}).json()["suppressions"]
    assert (shown["reason"], shown["since"], shown["created_by"]) == ("opted_out", "2026-01-31T00:00:00Z", "api:app")
    assert desk.call("GET", "/v1/suppressions?channel=email&limit=1").json() == {"suppressions": [shown]}
    lifted = desk.call("POST", f"/v1/suppressions/{shown['no']}/lift", {"reason": "a mistake"}).json()
    assert (lifted["lifted_by"], lifted["lifted_because"]) == ("api:app", "a mistake")
    assert desk.call("GET", "/v1/suppressions").json() == {"suppressions": []}
    assert len(desk.call("GET", "/v1/suppressions?lifted=true").json()["suppressions"]) == 1


def test_an_export_has_pages_and_no_address(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suppressions, "PAGE_ROWS", 2)
    lines = b'{"phone": "+32470000071"}\n{"phone": "+32470000072"}\n{"email": "anna@example.org"}\n'
    desk.call("POST", "/v1/suppressions/import", lines, Content_Type="application/x-ndjson")
    answer = desk.call("GET", "/v1/suppressions/export")
    assert answer.headers["content-type"].startswith("text/csv")
    assert [line.partition(",")[0] for line in answer.text.splitlines()] == ["no", "1", "2", "3", "4", "5"]
    assert "example.org" not in answer.text


def test_a_dry_run_by_api_changes_nothing(desk: Desk) -> None:
    answer = desk.call("POST", "/v1/suppressions/import?dry_run=true", LIST.encode(), Content_Type="text/csv")
    assert (answer.json()["dry_run"], answer.json()["suppressed"]) == (True, 1)
    assert desk.call("GET", "/v1/suppressions").json() == {"suppressions": []}


def test_shared_columns_need_a_format_by_api_too(desk: Desk) -> None:
    text = b"status,reason,email,created\n5.7.1,spam,anna@example.org,1758547507\n"
    answer = desk.call("POST", "/v1/suppressions/import", text, Content_Type="text/csv")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "format")
    assert "give one of sendgrid-blocks, sendgrid-bounces" in answer.text
    answer = desk.call("POST", "/v1/suppressions/import?format=sendgrid-bounces", text, Content_Type="text/csv")
    assert answer.json()["reasons"] == {"bounced": 1}


def test_a_key_without_the_right_gets_nothing(desk: Desk, tmp_path: Path) -> None:
    keys, plain = keys_for(tmp_path, other=["recipients", "preferences"])
    with TestClient(create(desk.services, Broker(), keys)) as client:
        for method, path in (
            ("GET", ""),
            ("GET", "/export"),
            ("POST", "/search"),
            ("POST", "/import"),
            ("POST", "/1/lift"),
        ):
            answer = client.request(method, f"/v1/suppressions{path}", headers={"Authorization": f"Bearer {plain['other']}"})
            assert answer.status_code == 403


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("/search", b'{"address": "nobody"}', 422, "address"),
        ("/99/lift", b'{"reason": "x"}', 404, ""),
        ("/99/lift", b'{"reason": " "}', 422, "reason"),
        ("/import", b"mail\nanna@example.org\n", 422, "name the columns"),
        ("/import?format=mailgun", b"email\nanna@example.org\n", 422, "is none of plain"),
    ],
)
def test_bad_input_is_refused_with_its_field(desk: Desk, path: str, body: bytes, status: int, error: str) -> None:
    kind = "text/csv" if "import" in path else "application/json"
    answer = desk.call("POST", f"/v1/suppressions{path}", body, Content_Type=kind)
    assert (answer.status_code, error in answer.text) == (status, True)
    assert "anna" not in answer.text
    assert "anna" not in json.dumps(dict(answer.headers))
    with lend(desk.services.pool) as connection:
        assert connection.execute("SELECT FROM suppressions").rowcount == 0


def test_another_content_type_is_refused(desk: Desk) -> None:
    assert desk.call("POST", "/v1/suppressions/import", LIST.encode(), Content_Type="text/plain").status_code == 415

"""The console: a marketer makes a campaign from a spreadsheet, step by step, without JavaScript."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from httpx2 import Response
from openpyxl import Workbook
from starlette.testclient import TestClient

from dispatcher.campaigns import drafts, overview
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.principal import Role
from dispatcher.identity import audit
from dispatcher.identity.audit import AuditFilter
from dispatcher.runtime.services import Services
from dispatcher.web.app import create
from tests.support.people import sign_in
from tests.support.services import Broker, add_people, make_services, person

URL = "https://www.bank.example/loan"
HEADER = ["Klantnummer", "Project", "Amount", "Offer URL", "Remarks"]
ROWS = [
    ["anna", "a bike", 5_000, URL, "regular"],
    ["bert", "a car", 12_500, URL, ""],
    ["carl", "a boat", "many", URL, ""],
    ["dora", None, 7_000, URL, ""],
]
OPTIONS = {"template": "loan_offer", "id": "spring-loan", "channels": ["email", "sms"]}


def workbook(header: list[str] = HEADER, rows: Sequence[Sequence[object]] = ROWS) -> bytes:
    book = Workbook()
    for row in (header, *rows):
        book.active.append(row)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


class Marketer:
    """A browser with a signed-in person."""

    def __init__(self, services: Services, client: TestClient, token: str) -> None:
        self.services, self.client, self.token = services, client, token

    def get(self, path: str) -> str:
        answer = self.client.get(path, headers={"Accept": "text/html"})
        assert answer.status_code == 200, (path, answer.status_code, answer.text)
        return answer.text

    def post(self, path: str, **fields: object) -> Response:
        data = {"form_token": self.token, **fields}
        return self.client.post(path, data=data, headers={"Accept": "text/html"}, follow_redirects=False)

    def upload(self, no: int, content: bytes, name: str = "customers.xlsx") -> Response:
        return self.client.post(
            f"/console/drafts/{no}/audience",
            data={"form_token": self.token},
            files={"file": (name, content)},
            headers={"Accept": "text/html"},
            follow_redirects=False,
        )

    def draft(self, **options: object) -> int:
        answer = self.post("/console/campaigns/new", **{**OPTIONS, **options})
        assert answer.status_code == 303, wrongs(answer)
        found = re.fullmatch(r"/console/drafts/(\d+)/audience", answer.headers["location"])
        assert found
        return int(found[1])

    def assign(self, no: int, *columns: str) -> Response:
        return self.post(f"/console/drafts/{no}/columns", columns=list(columns))


def wrongs(answer: Response) -> dict[str, str]:
    """The errors of a page by the field that they stand beside."""
    return dict(re.findall(r'<p class="wrong" id="([a-z_0-9-]+)-error">([^<]+)</p>', answer.text))


@pytest.fixture
def web(database: str, tmp_path: Path) -> Iterator[tuple[Services, TestClient]]:
    with make_services(database) as made:
        services = replace(made, audiences=tmp_path)
        add_people(services, *(person(name, number) for number, name in enumerate(("anna", "bert", "carl", "dora"), start=1)))
        with TestClient(create(services, Broker()), base_url="https://dispatcher.example") as client:
            yield services, client


@pytest.fixture
def marketer(web: tuple[Services, TestClient]) -> Marketer:
    services, client = web
    return Marketer(services, client, sign_in(client, services, "mia", [Role.MARKETER]))


def ready(marketer: Marketer, **options: object) -> int:
    """A draft with a file that was read: anna and bert are good, carl is not, dora has no project."""
    no = marketer.draft(**options)
    assert marketer.upload(no, workbook()).headers["location"].endswith("/columns")
    assert marketer.assign(no, "recipient", "data.project", "data.amount", "data.offer_url", "-").status_code == 303
    return no


def test_a_marketer_submits_a_workbook_and_another_releases_it(marketer: Marketer) -> None:
    no = ready(marketer)
    page = marketer.get(f"/console/drafts/{no}/audience")
    assert "3\u202frows can be used" in page or "3 rows can be used" in page
    assert '<td class="n">4</td><td><code>data.amount</code></td>' in page
    assert "4,data.amount," in marketer.client.get(f"/console/drafts/{no}/faults.csv").text
    assert marketer.post(f"/console/drafts/{no}/check").status_code == 303
    page = marketer.get(f"/console/drafts/{no}/check")
    assert re.search(r"<code>missing_variable</code> <code>project</code>", page)
    answer = marketer.post(f"/console/drafts/{no}/schedule", send_at="2026-12-01T09:30", rate_per_second="2,5")
    assert answer.headers["location"].endswith("/submit")
    assert "2026-12-01 09:30" in marketer.get(f"/console/drafts/{no}/submit")
    answer = marketer.post(f"/console/drafts/{no}/submit")
    assert answer.headers["location"] == "/console/campaigns/spring-loan"
    found = overview.find(marketer.services, "spring-loan")
    assert found is not None
    assert (found.audience, found.invalid, found.submitted_by) == (3, 1, "user:mia")
    assert found.spec.send_at == datetime(2026, 12, 1, 8, 30, tzinfo=UTC)
    assert (found.spec.channels, found.spec.rate_per_second) == (("email", "sms"), 2.5)
    assert drafts.of_owner(marketer.services, "user:mia") == []
    assert ("submit", "spring-loan") in acts(marketer.services)


def acts(services: Services) -> list[tuple[str, str]]:
    return [(row.action, row.object_id) for row in audit.page(services, AuditFilter(), None, 100)]

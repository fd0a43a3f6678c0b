"""Audiences by URL: fetched whole before their campaign is made, only from where the settings allow, and errors name the host."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from httpx2 import Response
from starlette.testclient import TestClient

from dispatcher.campaigns import audience_fetch, audience_uploads, overview, public_tasks, schedule_runs, schedules
from dispatcher.campaigns.audience_uploads import Upload, UploadRange
from dispatcher.campaigns.public_tasks import TaskCall
from dispatcher.domain.audience_urls import BadAudienceUrl, is_allowed, parse, parse_prefix
from dispatcher.domain.refused_job import CAMPAIGN_TASK
from dispatcher.intake.errors import BadInput
from dispatcher.runtime.services import Services, UploadLimits
from dispatcher.web.api_keys import Right, new_key, read_keys
from dispatcher.web.app import create
from tests.channels.test_http import certificate
from tests.support.http_servers import Answer, ServerLog, http_answer, http_server
from tests.support.services import NOON, Broker, Clock, add_people, make_services, outbox, person, work

LOAN = {"offer_url": "https://www.bank.example/loan", "project": "a bike", "amount": 5_000}
SECRET = "token-in-the-query"


def rows(*names: str) -> bytes:
    return b"".join(json.dumps({"recipient": name, "data": LOAN}).encode() + b"\n" for name in names)


def cut(body: bytes) -> Answer:
    """An answer whose connection ends within its body."""
    return Answer(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body) + 10}\r\n\r\n".encode() + body, close=True)


@dataclass
class Bank:
    """The API, and an https server with files on this machine that the settings allow."""

    services: Services
    server: ServerLog
    broker: Broker
    client: TestClient
    key: str = field(repr=False)
    answers: list[Answer] = field(default_factory=list)  # each is given once, the last one for ever

    def url(self, name: str = "list.jsonl") -> str:
        return f"https://127.0.0.1:{self.server.port}/exports/{name}?sig={SECRET}"

    def submit(self, url: str, campaign_id: str = "spring", query: str = "") -> Response:
        body = {"id": campaign_id, "template": "loan_offer", "channels": ["email"], "audience": {"url": url}}
        return self.client.post(f"/v1/campaigns{query}", json=body, headers={"Authorization": f"Bearer {self.key}"})

    def refusal(self, url: str) -> str:
        """The text with which a campaign is refused; none was made, nothing of a download stays, and the URL is not repeated."""
        answer = self.submit(url)
        assert answer.status_code == 422, answer.text
        assert overview.find(self.services, "spring") is None
        assert audience_uploads.every(self.services) == []
        (fault,) = answer.json()["errors"]
        assert fault["field"] == "audience.url"
        assert SECRET not in answer.text
        assert "exports" not in answer.text
        return str(fault["message"])


@pytest.fixture
def bank(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bank]:
    key, line = new_key("app", Right)
    (tmp_path / "keys.toml").write_text(line)
    ca_file, tls = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    answers: list[Answer] = []
    with (
        http_server(lambda *_: answers[0] if len(answers) == 1 else answers.pop(0), tls=tls) as server,
        make_services(database, Clock()) as made,
    ):
        add_people(made, *(person(f"c-{number}", number) for number in range(3)))
        allowed = (parse_prefix(f"https://127.0.0.1:{server.port}/exports"), parse_prefix("memory://bank/lists"))
        services = replace(
            made, audiences=tmp_path / "audiences", audience_urls=allowed, upload_limits=UploadLimits(1_000_000, 200)
        )
        broker = Broker()
        with TestClient(create(services, broker, read_keys(tmp_path / "keys.toml"))) as client:
            yield Bank(services, server, broker, client, key, answers)


def sent(bank: Bank) -> list[str]:
    bank.broker.work(bank.services)
    work(bank.services)
    return sorted(each.address for each in outbox(bank.services).sent)


@pytest.mark.parametrize(
    ("name", "body", "headers"),
    [
        ("list.jsonl", rows("c-0", "c-1"), ()),
        ("list.jsonl.gz", gzip.compress(rows("c-0", "c-1")), ()),
        ("list", gzip.compress(rows("c-0", "c-1")), ("Content-Type: application/x-ndjson", "Content-Encoding: gzip")),
        ("list.csv", b"recipient,data.offer_url,data.project,data.amount\n" + b"".join(
            f"c-{n},https://www.bank.example/loan,a bike,5000\n".encode() for n in range(2)
        ), ()),
    ],
)  # fmt: skip
def test_a_campaign_sends_to_the_audience_of_a_url(bank: Bank, name: str, body: bytes, headers: tuple[str, ...]) -> None:
    bank.answers.append(http_answer(200, body, *headers))
    answer = bank.submit(bank.url(name))
    assert (answer.status_code, answer.json()["audience"]) == (201, 2)
    assert sent(bank) == ["c-0@example.org", "c-1@example.org"]


def test_a_large_file_comes_in_pieces(bank: Bank) -> None:
    bank.answers.append(http_answer(200, rows(*(f"x-{number}" for number in range(7_000)))))
    assert bank.submit(bank.url()).json()["audience"] == 7_000


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1:1/exports/list.jsonl",
        "https://localhost:{port}/exports/list.jsonl",
        "https://127.0.0.1:{port}/exports-other/list.jsonl",
        "https://127.0.0.1:{port}/exports/../keys/list.jsonl",
        "https://127.0.0.1:{port}/exports/%2e%2e/keys/list.jsonl",
        "https://user:pw@127.0.0.1:{port}/exports/list.jsonl",
        "http://127.0.0.1:{port}/exports/list.jsonl",
        "file:///etc/passwd",
        "memory://other/list.jsonl",
        "simplecache::memory://bank/lists/list.jsonl",
    ],
)
def test_only_allowed_urls_are_called(bank: Bank, url: str) -> None:
    bank.answers.append(http_answer(200, rows("c-0")))
    bank.refusal(url.format(port=bank.server.port))
    assert bank.server.arrived == []


REFUSED: list[tuple[Callable[[], Answer], str]] = [
    (lambda: http_answer(302, b"", "Location: https://127.0.0.1/exports/other"), "a redirect, which is not followed"),
    (lambda: http_answer(404, b"gone"), "answered 404"),
    (lambda: http_answer(503, b"later"), "answered 503"),
    (lambda: http_answer(200, b"<html>sign in", "Content-Type: text/html; charset=utf-8"), "answered with a page"),
    (lambda: http_answer(200, b""), "sent an empty file"),
    (lambda: http_answer(200, b"x" * 1_000_001), "1,000,000 bytes at most"),
    (lambda: http_answer(200, gzip.compress(rows("c-0"))[:-9]), "ends within its gzip data"),
    (lambda: http_answer(200, gzip.compress(b"x" * 20_000_000)), "unpacks to more"),
    (lambda: cut(rows("c-0")), "did not send all of it"),
    (lambda: Answer(b"HTTP/1.1 200 OK\r\n\r\n" + rows("c-0"), close=True), "does not say how long the file is"),
    (lambda: Answer(b"", close=True), "did not send all of it"),
]


@pytest.mark.parametrize(("answer", "message"), REFUSED)
def test_what_is_no_whole_file_makes_no_campaign(bank: Bank, answer: Callable[[], Answer], message: str) -> None:
    bank.answers.append(answer())
    refusal = bank.refusal(bank.url())
    assert refusal.startswith(f"127.0.0.1:{bank.server.port}: ")
    assert message in refusal


def test_a_host_without_a_trusted_certificate_is_refused(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    assert "certificate" in bank.refusal(bank.url())
    assert bank.server.arrived == []


def test_a_fault_that_passes_gets_another_attempt(bank: Bank) -> None:
    bank.answers += [http_answer(503), cut(rows("c-0", "c-1")), http_answer(200, rows("c-2"))]
    assert bank.submit(bank.url()).json()["audience"] == 1
    assert sent(bank) == ["c-2@example.org"]


def test_the_same_submission_again_fetches_nothing(bank: Bank) -> None:
    bank.answers += [http_answer(200, rows("c-0")), http_answer(200, rows("c-1"))]
    assert [bank.submit(bank.url()).status_code for _ in range(2)] == [201, 201]
    assert len(bank.server.arrived) == 1
    assert bank.submit(bank.url("other.jsonl")).status_code == 409


def test_a_refused_campaign_fetches_afresh(bank: Bank) -> None:
    bank.answers += [http_answer(200, b"no audience"), http_answer(200, rows("c-1"))]
    bank.submit(bank.url("list.csv"))
    assert overview.find(bank.services, "spring") is None
    assert bank.submit(bank.url()).json()["audience"] == 1


def test_a_call_waits_for_one_that_fetches_the_same(bank: Bank) -> None:
    bank.answers.append(http_answer(404))
    names: list[str] = []
    services = replace(bank.services, sleep=lambda _: finish())
    upload = Upload(audience_fetch.upload_id_of("app", "spring", bank.url()), ".jsonl", False)
    writer = audience_uploads.open_upload(services, upload, UploadRange(0, None))

    def finish() -> None:
        """The other call, which ends while this one waits."""
        names.append("waited")
        writer.write(rows("c-0"))
        writer.finish()
        writer.close()

    assert audience_fetch.fetch(services, "app", "spring", bank.url()) == upload.id
    assert (names, len(bank.server.arrived)) == (["waited"], 0)


def test_a_dry_run_keeps_nothing_of_a_url(bank: Bank) -> None:
    bank.answers.append(http_answer(200, rows("c-0", "nobody")))
    answer = bank.submit(bank.url(), query="?dry_run=true")
    assert (answer.status_code, answer.json()["audience"]) == (200, 2)
    assert audience_uploads.every(bank.services) == []


def test_a_celery_job_may_name_a_url_and_shows_none(bank: Bank) -> None:
    form = {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": {"url": bank.url()}}
    bank.answers += [http_answer(404), http_answer(200, rows("c-0"))]
    with pytest.raises(BadInput, match=r"audience\.url: 127\.0\.0\.1:\d+: answered 404") as error:
        public_tasks.accept_campaign(bank.services, TaskCall(CAMPAIGN_TASK, (form,), {}), 10, False)
    assert SECRET not in str(error.value)
    assert public_tasks.accept_campaign(bank.services, TaskCall(CAMPAIGN_TASK, (form,), {}), 10, False)[1].audience == 1


def test_object_storage_is_read_where_it_is_allowed(bank: Bank) -> None:
    files = MemoryFileSystem()
    files.pipe("/bank/lists/spring.jsonl.gz", gzip.compress(rows("c-0", "c-1")))
    assert bank.submit("memory://bank/lists/spring.jsonl.gz").json()["audience"] == 2
    assert "has no such file" in bank.submit("memory://bank/lists/none.jsonl", "other").text
    files.store.clear()


# -- recurring campaigns -----------------------------------------------------------------------------------------------


def weekly(url: str) -> dict[str, Any]:
    campaign = {"template": "loan_offer", "channels": ["email"], "audience": {"url": url}}
    return {"id": "weekly", "cron": "0 9 * * *", "zone": "Europe/Brussels", "campaign": campaign}


def test_each_run_fetches_its_audience(bank: Bank) -> None:
    bank.answers += [http_answer(200, rows(name)) for name in ("c-0", "c-1", "c-1")] + [http_answer(500)]
    url = bank.url("{date}.jsonl").partition("?")[0]
    schedules.add(bank.services, schedules.parse(bank.services, weekly(url)), "anna")
    for day in range(1, 5):
        bank.services.clock.now = NOON.replace(hour=8) + timedelta(days=day)  # type: ignore[attr-defined]
        schedule_runs.start_due(bank.services)
    runs = schedules.status(bank.services, "weekly").runs
    assert [(run.state.value, run.reason) for run in reversed(runs)] == [
        ("started", None),
        ("started", None),
        ("failed", "audience_unchanged"),
        ("failed", "audience_missing"),
    ]
    assert "answered 500" in runs[0].message
    assert "exports" not in runs[0].message
    assert [request.path for request in bank.server.arrived[:2]] == ["/exports/2026-11-24.jsonl", "/exports/2026-11-25.jsonl"]
    assert sent(bank) == ["c-0@example.org", "c-1@example.org"]


@pytest.mark.parametrize(
    ("url", "message"),
    [("https://elsewhere.example/list.csv", "not allowed"), ("https://127.0.0.1/list.csv?token=1", "must have no query")],
)
def test_a_schedule_names_an_allowed_url_without_a_query(bank: Bank, url: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        schedules.add(bank.services, schedules.parse(bank.services, weekly(url)), "anna")


# -- the allow-list ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "url", "allowed"),
    [
        ("https://crm.example/out/", "https://CRM.example:443/out/a.csv?x=1", True),
        ("https://crm.example/out", "https://crm.example/out", True),
        ("https://crm.example", "https://crm.example/any/a.csv", True),
        ("https://crm.example/out", "https://crm.example/outside/a.csv", False),
        ("https://crm.example", "https://crm.example.evil.example/a.csv", False),
        ("https://crm.example", "https://crm.example:8443/a.csv", False),
        ("s3://bank/lists", "s3://bank/lists/a.csv", True),
        ("s3://bank/lists", "s3://bank-2/lists/a.csv", False),
    ],
)
def test_a_prefix_allows_the_urls_under_it(prefix: str, url: str, allowed: bool) -> None:
    assert is_allowed(parse(url), [parse_prefix(prefix)]) is allowed


@pytest.mark.parametrize(
    "text", ["crm.example", "https://", "http://a.example", "https://a@b.example", "file:///etc", "https://a/?"]
)
def test_a_prefix_that_cannot_be_allowed_is_refused(text: str) -> None:
    with pytest.raises(BadAudienceUrl):
        parse_prefix(text)

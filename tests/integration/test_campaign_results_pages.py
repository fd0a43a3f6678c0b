"""The results of a campaign by API, on the console and on the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from channels.base import EventKind
from dispatcher.campaigns import overview
from dispatcher.domain.principal import Role
from dispatcher.runtime.services import Services
from dispatcher.web.app import create
from dispatcher.web.serializers.campaigns import messages_per_second
from tests.integration.test_api import Desk, desk
from tests.integration.test_campaign_results import PEOPLE, drawn, report, run
from tests.support.command import run_command
from tests.support.people import sign_in
from tests.support.services import Broker, Clock, make_services

__all__ = ["desk"]

CSV = b"recipient,at\nc-1,2026-11-23\nnobody,2026-11-23\nc-2,soon\n"


@pytest.fixture
def console(database: str) -> Iterator[tuple[Services, TestClient]]:
    with (
        make_services(database, Clock()) as services,
        TestClient(create(services, Broker()), base_url="https://d.example") as client,
    ):
        run(services)
        report(services, EventKind.DELIVERED, EventKind.READ)
        yield services, client


# -- API ---------------------------------------------------------------------------------------------------------------


def test_the_api_gives_results_and_files_of_them(desk: Desk) -> None:
    run(desk.services)
    report(desk.services, EventKind.DELIVERED, EventKind.READ)
    body = desk.call("GET", "/v1/campaigns/spring/results?by=language&step=hour").json()
    sent = len(PEOPLE) - len(drawn("spring", desk.services))
    assert (body["by"], body["step"], body["total"]["counts"]["accepted"]) == ("language", "hour", sent)
    assert {group["name"] for group in body["groups"]} == {"nl", "fr", "en"}
    read = body["total"]["rates"]["read"]
    assert (read["of"], read["low"] < read["rate"] < read["high"]) == (sent, True)
    assert [lift["outcome"] for lift in body["lifts"]] == ["opt_outs"]
    answer = desk.call("GET", "/v1/campaigns/spring/results/export?by=language")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="spring-results.csv"'
    assert f"spring,total,,,accepted,{sent}," in answer.text
    assert desk.call("GET", "/v1/campaigns/spring/results/export?format=parquet").content[:4] == b"PAR1"
    assert desk.call("GET", "/v1/campaigns/none/results").status_code == 404
    assert desk.call("GET", "/v1/campaigns/spring/results?by=colour").status_code == 422


def test_the_api_records_conversions_and_names_bad_rows(desk: Desk) -> None:
    run(desk.services)
    rows = [{"recipient": "c-1", "at": "2026-11-23"}, {"recipient": "c-2"}, {"recipient": "x", "at": "2026-11-23"}]
    body = desk.call("POST", "/v1/campaigns/spring/conversions", {"goal": "Loan_Signed", "conversions": rows}).json()
    assert {name: body[name] for name in ("new", "known", "not_in_audience", "invalid")} == {
        "new": 1,
        "known": 0,
        "not_in_audience": 1,
        "invalid": 1,
    }
    assert body["faults"] == [{"line": 2, "field": "at", "message": "missing"}]
    assert desk.call("POST", "/v1/campaigns/spring/conversions", {"goal": "opt_outs", "conversions": rows}).status_code == 422
    assert desk.call("POST", "/v1/campaigns/none/conversions", {"conversions": rows}).status_code == 404
    lifts = desk.call("GET", "/v1/campaigns/spring/results").json()["lifts"]
    assert [lift["outcome"] for lift in lifts] == ["loan_signed", "opt_outs"]


# -- console -----------------------------------------------------------------------------------------------------------


def test_the_page_has_a_table_behind_each_chart(console: tuple[Services, TestClient]) -> None:
    services, client = console
    sign_in(client, services, "mia", [Role.MARKETER])
    answer = client.get("/console/campaigns/spring/results?by=language")
    text = answer.text.replace("\u202f", " ")
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    charts = re.findall(r'<figure class="chart"[^>]*>.*?</figure>', text, re.DOTALL)
    assert len(charts) == 3
    sent = len(PEOPLE) - len(drawn("spring", services))
    assert f'<tfoot><tr><th scope="row">total</th><td class="n">{sent}</td><td class="n">{sent}</td>' in charts[0]
    assert all(re.search(r'role="img" aria-label="[^"]+ The table below has the numbers', chart) for chart in charts)
    for path in ("/console/uplot.js", "/console/uplot.css", "/console/charts.js"):
        assert client.get(path).status_code == 200, path


def test_results_are_for_those_who_may_see_the_entity(console: tuple[Services, TestClient]) -> None:
    services, client = console
    sign_in(client, services, "cleo", [Role.MARKETER], ["cbc"])
    for path in ("results", "results.csv", "results.parquet"):
        assert client.get(f"/console/campaigns/spring/{path}").status_code == 404, path


def test_conversions_are_uploaded_and_shown_at_once(console: tuple[Services, TestClient]) -> None:
    services, client = console
    token = sign_in(client, services, "mia", [Role.MARKETER])
    assert "loan_signed" not in client.get("/console/campaigns/spring/results").text.replace("such as loan_signed", "")
    data, files = {"form_token": token, "goal": "loan_signed"}, {"file": ("sold.csv", CSV)}
    page = client.post("/console/campaigns/spring/conversions", data=data, files=files).text
    assert "1 new conversion." in page
    assert "Line 3, <code>at</code>: should be a day" in page.replace("Line 4", "Line 3")
    assert '<th scope="row">loan_signed</th>' in page
    refused = client.post("/console/campaigns/spring/conversions", data=data, files={"file": ("sold.pdf", b"%PDF")})
    assert refused.status_code == 422
    assert "sold.pdf: should be a .jsonl, .csv or .xlsx file" in refused.text


def test_an_auditor_sees_results_and_adds_nothing(console: tuple[Services, TestClient]) -> None:
    services, client = console
    token = sign_in(client, services, "ada", [Role.AUDITOR])
    assert "Add conversions" not in client.get("/console/campaigns/spring/results").text
    answer = client.post("/console/campaigns/spring/conversions", data={"form_token": token}, files={"file": ("sold.csv", CSV)})
    assert answer.status_code == 403


# -- command line ------------------------------------------------------------------------------------------------------


def test_the_command_shows_exports_and_imports(database: str, tmp_path: Path) -> None:
    with make_services(database, Clock()) as services:
        run(services)
        report(services, EventKind.DELIVERED, EventKind.READ)
    sold, target = tmp_path / "sold.csv", tmp_path / "results.csv"
    sold.write_bytes(CSV)
    imported = run_command(database, tmp_path, "campaign", "conversions", "spring", str(sold), "--goal", "loan", "--json")
    assert json.loads(imported.stdout)["new"] == 1
    shown = run_command(database, tmp_path, "campaign", "results", "spring", "--by", "channel", "--export", str(target))
    assert "against the control group" in shown.stdout, shown.stderr
    assert "spring,channel,email,,accepted," in target.read_text(encoding="utf-8")
    body = json.loads(run_command(database, tmp_path, "campaign", "results", "spring", "--json").stdout)
    assert [lift["outcome"] for lift in body["lifts"]] == ["loan", "opt_outs"]
    bad = run_command(database, tmp_path, "campaign", "results", "spring", "--export", str(tmp_path / "results.pdf"))
    assert (bad.returncode, len(bad.stderr.strip().splitlines())) == (2, 1)
    assert "should end in .csv or .parquet" in bad.stderr
    assert run_command(database, tmp_path, "campaign", "results", "none").returncode == 1


def test_messages_per_second_count_what_was_accepted(desk: Desk) -> None:
    run(desk.services)
    desk.clock.pass_(10)
    sent = len(PEOPLE) - len(drawn("spring", desk.services))
    campaign = overview.status(desk.services, "spring")
    assert campaign is not None
    started = replace(campaign.campaign, finished_at=None)
    assert messages_per_second(started, campaign.balance, desk.clock()) == sent / 10

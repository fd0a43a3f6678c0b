"""The console: people sign in, accepts only its own forms, and shows no address on any page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from channels.alerts import alert, set_alert_sink
from channels.base import BadAddress, Channel, Event, EventKind, InboundText, Uncertain, WhatsApp
from channels.providers.outbox import Outbox
from dispatcher.campaigns import refused_jobs, schedule_runs, schedules
from dispatcher.campaigns.scheduler import due_chunks
from dispatcher.campaigns.submission import submit, validation_context
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.decision import ReasonCode
from dispatcher.domain.message import State
from dispatcher.domain.refused_job import TRIGGER_TASK, JobError, RefusalReason, RefusedJob
from dispatcher.events import publication
from dispatcher.inbound import customer_replies
from dispatcher.inbound.provider_events import apply_batch
from dispatcher.intake.campaign import parse_campaign
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import events as consent
from dispatcher.ledger.inbound import provider_events
from dispatcher.ledger.maintenance import stopped_channels
from dispatcher.maintenance import alerting
from dispatcher.maintenance.alerting import Watch
from dispatcher.maintenance.sweep import sweep
from dispatcher.runtime.alert_sink import alert_sink
from dispatcher.runtime.services import Services
from dispatcher.web.app import create
from dispatcher.web.console import labels
from tests.support.people import sign_in
from tests.support.services import Broker, Clock, add_people, balance, make_services, person, work

LOAN = {"offer_url": "https://www.bank.example/loan", "project": "a bike", "amount": 5_000}
FIRST = "202611-1-0-0"  # the first message of a fresh ledger
PEOPLE = [
    person("anna", 1),
    person("bert", 2, offers={"own": "none"}),
    person("carl", 3),
]
VOID = {"meta", "link", "input", "rect", "br"}


class Outline(HTMLParser):
    """Whether a page's tags are closed in the order in which they were opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002  the parser's signature
        if tag not in VOID or tag == "rect":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """`<rect/>`: opened and closed."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


class Visitor:
    """A browser at the console."""

    def __init__(self, services: Services, broker: Broker, clock: Clock, client: TestClient) -> None:
        self.services, self.broker, self.clock, self.client = services, broker, clock, client

    def sign_in(self, name: str = "ops") -> str:
        return sign_in(self.client, self.services, name)

    def get(self, path: str) -> str:
        """A page, whole and well formed."""
        answer = self.client.get(path, headers={"Accept": "text/html"})
        assert answer.status_code == 200, (path, answer.text)
        Outline(answer.text)
        return answer.text

    def post(self, path: str, form_token: str, **fields: str) -> Response:
        data = {"form_token": form_token, **fields}
        return self.client.post(path, data=data, headers={"Accept": "text/html"}, follow_redirects=False)

    def form_token(self) -> str:
        found = re.search(r'name="form_token" value="([0-9a-f]{64})"', self.get("/console"))
        assert found
        return found[1]


def submit_campaign(services: Services, campaign_id: str = "spring", send_at: str | None = None) -> None:
    rows = [{"recipient": each["id"], "data": LOAN} for each in PEOPLE]
    form = {
        "id": campaign_id,
        "template": "loan_offer",
        "channels": ["email"],
        "audience": [*rows, {"recipient": "?"}],
        "send_at": send_at,
    }
    submit(services, parse_campaign(form, validation_context(services)))


@pytest.fixture
def visitor(database: str) -> Iterator[Visitor]:
    broker, clock = Broker(), Clock()
    with (
        make_services(database, clock) as services,
        TestClient(create(services, broker), base_url="https://dispatcher.example") as client,
    ):
        add_people(services, *PEOPLE)
        yield Visitor(services, broker, clock, client)


@pytest.fixture
def campaign(visitor: Visitor) -> Visitor:
    """Signed in, with a campaign that has run: one accepted, one refused, one address dead."""
    email = visitor.services.providers[Channel.EMAIL]
    assert isinstance(email, Outbox)
    email.answers["carl@example.org"] = BadAddress("550")
    submit_campaign(visitor.services)
    visitor.broker.publish(due_chunks(visitor.services))
    visitor.broker.work(visitor.services)
    visitor.sign_in()
    return visitor


PAGES = ["/console", "/console/campaigns/spring", f"/console/messages/{FIRST}", "/console/search?q=x", "/console/inbound-messages"]


# -- coming in ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES)
def test_every_page_sends_strangers_to_sign_in_and_tells_them_nothing(visitor: Visitor, path: str) -> None:
    for cookie in (None, "x", "a" * 70):
        visitor.client.cookies.clear()
        if cookie:
            visitor.client.cookies.set("dispatcher_console", cookie)
        answer = visitor.client.get(path, follow_redirects=False)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/console/login?to=/console")


# -- what it shows -----------------------------------------------------------------------------------------------------


def test_the_list_and_the_campaign_show_a_balance_that_adds_up(campaign: Visitor) -> None:
    listed, shown = campaign.get("/console"), campaign.get("/console/campaigns/spring")
    for text in (listed, shown):
        assert 'aria-label="Balance' in text
        assert {"accepted 1", "failed 1", "refused 1"} <= set(
            re.findall(r"[a-z_]+ \d+", text.split('aria-label="Balance')[1].split('"')[0])
        )
        assert sum(
            float(width) for width in re.findall(r'height="10"|width="([\d.]+)" height="10"><title', text) if width
        ) == pytest.approx(100)
    assert "the person chose no offers of this type" in shown
    assert labels.PROVIDERS_OWN in shown
    assert "recipient" in shown.split("Rows that could not be read")[-1]


def test_a_message_tells_its_decision_its_news_and_what_the_customer_is_told(campaign: Visitor) -> None:
    at = datetime(2026, 11, 23, 11, 0, 5, tzinfo=UTC)
    with lend(campaign.services.pool) as connection:
        provider_events.store(connection, [Event("sendgrid", "e-1", Channel.EMAIL, EventKind.DELIVERED, at, FIRST)], at)
    apply_batch(campaign.services, lambda _: None)
    text = campaign.get(f"/console/messages/{FIRST}")
    for part in ("delivered", "contract", "offers.own", "2026-11-23 11:00:05", "according to our files"):
        assert part in text
    assert '<div lang="fr"' in campaign.get(f"/console/messages/{FIRST}?language=fr")
    assert "choice_none" in campaign.get("/console/search?campaign=spring&recipient=bert")


def test_no_page_shows_an_address(campaign: Visitor) -> None:
    for path in [*PAGES, "/console/messages/202611-1-2-0", "/console/search?campaign=spring&recipient=anna"]:
        text = campaign.get(path)
        assert not re.search(r"@example\.org|\+32470|device-(anna|bert|carl)", text), path


def test_search_finds_by_id_and_says_when_there_is_nothing(campaign: Visitor) -> None:
    def goes_to(query: str) -> str:
        answer = campaign.client.get(f"/console/search?{query}", follow_redirects=False)
        return str(answer.headers.get("location", answer.status_code))

    assert goes_to("q=spring") == "/console/campaigns/spring"
    assert goes_to(f"q=+{FIRST}+") == f"/console/messages/{FIRST}"
    assert goes_to("campaign=spring&recipient=anna") == f"/console/messages/{FIRST}"
    for nothing in ("q=winter", "q=%00", "q=%3Cscript%3E", "campaign=spring&recipient=%00", "campaign=spring&recipient=nobody", ""):
        assert goes_to(nothing) == "200"
    assert "<script>" not in campaign.get("/console/search?q=%3Cscript%3E")
    for missing in ("/console/campaigns/winter", "/console/campaigns/%00", "/console/messages/x", "/console/messages/202611-9-0-0"):
        answer = campaign.client.get(missing, headers={"Accept": "text/html"})
        assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")
        Outline(answer.text)


def test_what_needs_a_person_stands_on_top(campaign: Visitor) -> None:
    publication.publish(campaign.services)
    assert 'role="alert"' not in campaign.get("/console")
    now = campaign.clock()
    with lend(campaign.services.pool) as connection:
        stopped_channels.stop(connection, Channel.SMS, "twilio", "20003", now)
        provider_events.store(connection, [Event("sendgrid", "e-9", Channel.EMAIL, EventKind.ENGAGED, now, FIRST)], now)
    campaign.clock.pass_(120)
    alerts = campaign.get("/console").split('role="alert"')[1:]
    events, stop = alerts
    assert "not applied, perhaps opt-outs: 1" in events
    assert ("A channel is stopped" in stop, "sms: twilio answered 20003" in stop) == (True, True)


def test_a_code_that_nobody_knows_is_shown_for_a_week(campaign: Visitor) -> None:
    publication.publish(campaign.services)
    set_alert_sink(alert_sink(campaign.services.pool, campaign.clock))
    try:
        for _ in range(2):
            alert("twilio", "29999", known=False)
        alert("twilio", "30007")
        campaign.clock.pass_(120)
        alert("twilio", "29999", known=False)
    finally:
        set_alert_sink(lambda *_: None)
    unknown, known = campaign.get("/console").split('role="alert"')[1:]
    assert ("29999" in unknown, "2026-11-23 11:02:00" in unknown, "has no rule yet" in unknown) == (True, True, True)
    assert ("30007" in known, "needs a person" in known) == (True, True)
    assert 'dispatcher_provider_codes{known="false"} 1\n' in campaign.client.get("/metrics").text
    campaign.clock.pass_(7 * 86_400)
    sweep(campaign.services)
    assert 'role="alert"' not in campaign.get("/console")


# -- what it does ------------------------------------------------------------------------------------------------------


def test_pause_resume_and_cancel_work_from_its_own_forms_only(visitor: Visitor) -> None:
    submit_campaign(visitor.services, send_at="2026-11-24T09:00:00Z")
    visitor.sign_in()
    token = visitor.form_token()
    for bad in ("", "0" * 64, "é"):
        assert visitor.post("/console/campaigns/spring/cancel", bad).status_code == 403
    assert "paused" not in visitor.get("/console/campaigns/spring")
    assert visitor.post("/console/campaigns/spring/pause", token).headers["location"] == "/console/campaigns/spring"
    assert "nothing is sent" in visitor.get("/console/campaigns/spring")
    visitor.post("/console/campaigns/spring/resume", token)
    assert "starts at its time" in visitor.get("/console/campaigns/spring")
    visitor.post("/console/campaigns/spring/cancel", token)
    assert "cannot be resumed" in visitor.get("/console/campaigns/spring")
    assert visitor.post("/console/campaigns/winter/cancel", token).status_code == 404
    visitor.client.cookies.clear()
    assert visitor.post("/console/campaigns/spring/resume", token).headers["location"] == "/console/login?to=/console"


def test_answers_that_no_machine_understood_are_read_and_resolved_here(visitor: Visitor) -> None:
    add_people(visitor.services, person("anna", 1), person("bert", 2))
    for number in (1, 2):
        words = f"<b>genoeg</b> {number}"
        customer_replies.handle_reply(
            visitor.services, lambda _: None, InboundText(f"SM-{number}", Channel.SMS, f"+3247000000{number}", words)
        )
    visitor.sign_in()
    assert "/console/inbound-messages" in visitor.get("/console")
    shown = visitor.get("/console/inbound-messages")
    assert "&lt;b&gt;genoeg&lt;/b&gt; 1" in shown
    assert "anna" in shown
    assert "+3247" not in shown
    token = visitor.form_token()
    assert visitor.post("/console/inbound-messages/SM-1", "", was="stop").status_code == 403
    assert visitor.post("/console/inbound-messages/SM-1", token, was="stop").headers["location"] == "/console/inbound-messages"
    assert visitor.post("/console/inbound-messages/SM-2", token, was="nothing").headers["location"] == "/console/inbound-messages"
    assert visitor.post("/console/inbound-messages/SM-9", token, was="nothing").headers["location"] == "/console/inbound-messages"
    assert "No message is waiting" in visitor.get("/console/inbound-messages")
    with lend(visitor.services.pool) as connection:
        assert consent.preferences(connection, "anna").choices["channel:sms_whatsapp"].value == "off"
        assert consent.preferences(connection, "bert").choices["channel:sms_whatsapp"].value == "on"


def test_an_answer_in_free_words_leaves_from_here_or_it_is_said_why_not(visitor: Visitor) -> None:
    add_people(visitor.services, person("anna", 1))
    for number in (1, 2):
        customer_replies.handle_reply(
            visitor.services, lambda _: None, InboundText(f"SM-{number}", Channel.WHATSAPP, "+32470000001", "hallo?")
        )
    visitor.sign_in()
    token = visitor.form_token()
    waiting = visitor.get("/console/inbound-messages")
    assert re.search(r"WhatsApp accepts a free text until <time [^>]*>2026-11-24 12:00:00</time>", waiting)
    assert visitor.post("/console/inbound-messages/SM-1/answer", "", text="Ja?").status_code == 403
    assert (
        visitor.post("/console/inbound-messages/SM-1/answer", token, text="Ja?").headers["location"] == "/console/inbound-messages"
    )
    whatsapp = visitor.services.providers[Channel.WHATSAPP]
    assert isinstance(whatsapp, Outbox)
    assert [outbound.content for outbound in whatsapp.sent] == [WhatsApp(text="Ja?")]
    visitor.clock.pass_(25 * 3600)
    visitor.sign_in()
    refused = visitor.post("/console/inbound-messages/SM-2/answer", visitor.form_token(), text="Ja?")
    assert (refused.status_code, "that time is over" in refused.text) == (409, True)


def test_what_may_have_gone_is_shown_and_settled_here(visitor: Visitor) -> None:
    email = visitor.services.providers[Channel.EMAIL]
    assert isinstance(email, Outbox)
    email.answers[""] = Uncertain("timeout")
    submit_campaign(visitor.services)
    work(visitor.services)
    visitor.sign_in()
    assert "/console/unresolved" in visitor.get("/console")
    shown = visitor.get("/console/unresolved")
    found = re.findall(r'action="/console/unresolved/([0-9-]+)"', shown)
    assert len(found) == 2
    assert "anna" in shown
    assert "@" not in shown
    token = visitor.form_token()
    assert visitor.post(f"/console/unresolved/{found[0]}", "", was="accepted").status_code == 403
    for message_id, was in zip(found, ("accepted", "failed"), strict=True):
        assert visitor.post(f"/console/unresolved/{message_id}", token, was=was).headers["location"] == "/console/unresolved"
        assert was in visitor.get(f"/console/messages/{message_id}")
        assert visitor.post(f"/console/unresolved/{message_id}", token, was="failed").status_code == 303  # settled: left as it is
    assert "No message is unresolved" in visitor.get("/console/unresolved")
    for nothing in ("x", "202611-9-0-0"):
        assert visitor.post(f"/console/unresolved/{nothing}", token, was="failed").status_code in {303, 404}
    assert balance(visitor.services).states[State.ACCEPTED] == 1


def test_many_unresolved_messages_are_settled_by_one_form(visitor: Visitor) -> None:
    email = visitor.services.providers[Channel.EMAIL]
    assert isinstance(email, Outbox)
    email.answers[""] = Uncertain("timeout")
    submit_campaign(visitor.services)
    work(visitor.services)
    visitor.sign_in()
    token = visitor.form_token()
    assert "Resolve all" not in visitor.get("/console/unresolved")  # first the filter
    shown = visitor.get("/console/unresolved?campaign=spring&channel=email&since=2026-01-01T00:00")
    assert "Resolve all 2" in shown
    assert "2 of campaign spring by email" in shown
    assert "No message is unresolved" in visitor.get("/console/unresolved?channel=push")
    assert visitor.post("/console/unresolved", "", was="failed", campaign="spring").status_code == 403
    assert visitor.post("/console/unresolved", token, was="failed", channel="fax").status_code == 422
    assert visitor.post("/console/unresolved", token, was="failed", since="noon").status_code == 422
    for fields in ({}, {"campaign": "winter"}, {"until": "2026-01-01T00:00"}):
        assert visitor.post("/console/unresolved", token, was="failed", **fields).status_code == 303
    assert balance(visitor.services).states[State.UNRESOLVED] == 2
    assert visitor.post("/console/unresolved", token, was="failed", campaign="spring", channel="email").status_code == 303
    assert balance(visitor.services).states[State.FAILED] == 2


def test_only_a_page_with_something_under_way_updates_itself(visitor: Visitor) -> None:
    submit_campaign(visitor.services, send_at="2026-11-24T09:00:00Z")
    visitor.sign_in()
    assert "/console/live.js" in visitor.get("/console")
    assert "X-Automatic" in visitor.client.get("/console/live.js").text
    policy = visitor.client.get("/console").headers["Content-Security-Policy"]
    assert ("script-src 'self'" in policy, "unsafe-inline" in policy) == (True, False)
    assert "/console/live.js" not in visitor.get("/console?still=true")
    visitor.post("/console/campaigns/spring/cancel", visitor.form_token())
    assert "/console/live.js" not in visitor.get("/console")


def test_every_state_and_reason_has_words_and_a_place_in_the_bar() -> None:
    from dispatcher.web.pages.console import FOLDER, ORDER

    assert set(ORDER) == set(State) == set(labels.STATES)
    assert set(labels.CAMPAIGN_STATES) == set(CampaignState)
    assert set(ReasonCode) <= set(labels.REASONS)
    sheet = (FOLDER / "style.css").read_text()
    assert all(f".s-{state} {{" in sheet for state in State)


def test_refused_jobs_are_listed_alerted_and_closed(visitor: Visitor) -> None:
    visitor.sign_in()
    assert "No refused job is open." in visitor.get("/console/refused-jobs")
    error = JobError("data.<b>", "is not a number")
    refused_jobs.record(visitor.services, RefusedJob(TRIGGER_TASK, "k-1", RefusalReason.INVALID_FIELDS, (error,), b"d" * 16))
    assert "1 call of Celery tasks refused" in visitor.get("/console")
    text = visitor.get("/console/refused-jobs")
    assert "k-1" in text
    assert "data.&lt;b&gt;: is not a number" in text
    number = refused_jobs.newest(visitor.services, 1)[0].no
    assert visitor.post(f"/console/refused-jobs/{number}", "0" * 64).status_code == 403
    assert visitor.post(f"/console/refused-jobs/{number}", visitor.form_token()).status_code == 303
    assert "No refused job is open." in visitor.get("/console/refused-jobs")
    assert refused_jobs.newest(visitor.services, 1, only_open=False)[0].closed_by == "user:ops"


def test_somebody_takes_care_of_an_alert(visitor: Visitor) -> None:
    visitor.sign_in()
    services = visitor.services
    assert "No alert in the last 90 days." in visitor.get("/console/operations")
    with lend(services.pool) as connection:
        stopped_channels.stop(connection, Channel.SMS, "twilio", "20003", visitor.clock())
    Watch(lambda: services, lambda _: True, visitor.clock).look()
    assert "I take care" in visitor.get("/console/operations")
    number = alerting.newest(services, 1)[0].no
    assert visitor.post(f"/console/operations/alerts/{number}", "0" * 64).status_code == 403
    assert visitor.post(f"/console/operations/alerts/{number}", visitor.form_token()).status_code == 303
    text = visitor.get("/console/operations")
    assert ("I take care" in text, "user:ops" in text) == (False, True)


def test_a_recurring_campaign_shows_its_runs_and_why_one_failed(visitor: Visitor) -> None:
    services = visitor.services
    campaign = {"template": "loan_offer", "channels": ["email"], "audience": {"upload": "weekly-*"}}
    form = {"id": "weekly", "cron": "0 9 * * *", "zone": "Europe/Brussels", "campaign": campaign}
    schedules.add(services, schedules.parse(services, form), "<anna>")
    visitor.sign_in()
    assert "not run yet" in visitor.get("/console/schedules/weekly")
    visitor.clock.now = datetime(2026, 11, 24, 8, tzinfo=UTC)
    schedule_runs.start_due(services)
    visitor.sign_in()
    assert 'href="/console/schedules/weekly"' in visitor.get("/console/schedules")
    shown = visitor.get("/console/schedules/weekly")
    for text in ("<code>audience_missing</code> there is no complete upload weekly-*", "weekly-2026-11-24T0900", "&lt;anna&gt;"):
        assert text in shown
    assert visitor.client.get("/console/schedules/other", headers={"Accept": "text/html"}).status_code == 404

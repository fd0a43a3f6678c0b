"""Unresolved messages are settled by repeated look-ups, by provider events or by a person, and never by a guess."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from twilio.http import HttpClient
from twilio.rest import Client

from channels.base import Channel, ChannelError, Event, EventKind, Provider, ProviderRecord, Rejected, RetryHint, Uncertain
from channels.http import HttpTransport
from channels.lookup import look_up
from channels.providers.fcm import Fcm
from channels.providers.outbox import Outbox
from channels.providers.sendgrid import SendGrid
from channels.providers.twilio import LIST_SIZE, PLUGIN, TwilioAccount, TwilioSms, TwilioWhatsApp
from channels.resilience.circuit_breaker import CircuitBreaker
from channels.resilience.failover import Failover, WeightedProvider
from channels.sandbox import SandboxClient, running, write_service_account
from dispatcher.campaigns import submission, whatsapp_templates
from dispatcher.delivery import reconciliation
from dispatcher.delivery.pipeline import run_chunk
from dispatcher.delivery.reconciliation import AGAIN_SECONDS, LookupResult, find
from dispatcher.domain.message import State
from dispatcher.domain.message_id import MessageId
from dispatcher.inbound import provider_events
from dispatcher.intake.campaign import parse_campaign
from dispatcher.intake.trigger import parse_trigger
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import events
from dispatcher.ledger.delivery import messages, unresolved
from dispatcher.ledger.delivery.messages import Message
from dispatcher.ledger.delivery.unresolved import EVERYTHING
from dispatcher.ledger.maintenance.metrics import metrics
from dispatcher.runtime.services import Services
from tests.support.http_servers import http_server
from tests.support.provider_cases import ACCOUNT, SENDER, as_json, twilio_account
from tests.support.services import Clock, add_people, make_services, person, work
from tests.support.signed_webhooks import sendgrid_events

LOST: Mapping[str, Any] = {"provider": "twilio", "next": 1, "taken": True}  # taken, and the answer lost
NEVER: Mapping[str, Any] = {"provider": "twilio", "next": 1}


@dataclass
class ReconciliationSetup:
    """Services with the real adapters, behind circuit breakers, which call a sandbox."""

    services: Services
    sandbox: SandboxClient
    clock: Clock
    campaigns: int = 0

    def send(self, channel: str, fault: Mapping[str, Any], *also: str, state: State = State.UNRESOLVED, **changes: Any) -> Message:
        """One message to anna, which ends unresolved unless changed."""
        self.campaigns += 1
        name = f"t-{self.campaigns}"
        self.sandbox.set_faults([fault])
        rows = [{"recipient": "anna", "data": {"received_on": "2026-11-23"}}]
        form = {"id": name, "template": "optout_acknowledgement", "channels": [channel, *also], "audience": rows, **changes}
        submission.submit(self.services, parse_campaign(form, submission.validation_context(self.services)))
        work(self.services)
        self.sandbox.clear_faults()
        message = self.message(name)
        assert message.state is state
        return message

    def message(self, name: str, leg: int = 0) -> Message:
        with lend(self.services.pool) as connection:
            return messages.of_campaign(connection, name, "anna")[leg]

    def pass_(self, seconds: float) -> int:
        """Let time pass and look up what is due; the number of look-ups."""
        self.clock.pass_(seconds)
        count = reconciliation.ask_some(self.services)
        provider_events.apply_batch(self.services, lambda _: None)
        return count

    def listed(self) -> list[tuple[str, bool]]:
        """What people are shown: ids, and whether anybody can still be asked."""
        with lend(self.services.pool) as connection:
            return [(str(line.ref), line.ask_at is not None) for line in unresolved.list_unresolved(connection, EVERYTHING, 10)]


@pytest.fixture
def setup(database: str, tmp_path: Path) -> Iterator[ReconciliationSetup]:
    clock, http = Clock(datetime.now(UTC)), HttpTransport(timeout_seconds=2)
    with running() as sandbox, make_services(database, clock) as services:
        providers: dict[Channel, Provider] = {
            Channel.SMS: CircuitBreaker(TwilioSms(twilio_account(sandbox.url), http), clock),
            Channel.WHATSAPP: CircuitBreaker(TwilioWhatsApp(twilio_account(sandbox.url), http), clock),
            Channel.EMAIL: SendGrid("SG.key", http, sandbox.url),
            Channel.PUSH: Fcm(str(write_service_account(tmp_path / "account.json", sandbox.url)), http, sandbox.url),
        }
        add_people(services, person("anna"))
        assert PLUGIN.make_template_client is not None
        account = TwilioAccount("AC" + "1" * 32, "token", content_base_url=sandbox.url)
        client = PLUGIN.make_template_client(account, http)
        yield ReconciliationSetup(replace(services, providers=providers, template_client=client), sandbox, clock)
        http.close()


@pytest.mark.parametrize(("channel", "state"), [("sms", State.DELIVERED), ("whatsapp", State.READ)])
def test_a_message_that_twilio_took_is_found_by_lookup(setup: ReconciliationSetup, channel: str, state: State) -> None:
    if channel == "whatsapp":
        whatsapp_templates.push(setup.services)
    first = setup.send(channel, LOST)
    other = setup.send(channel, LOST)  # to the same number at the same time: distinguished by the links in the text
    assert setup.pass_(60) == 0  # its own events come first
    assert setup.listed() == [(str(first.ref), True), (str(other.ref), True)]
    assert setup.pass_(61) == 2
    settled = [setup.message(str(message.campaign_id)) for message in (first, other)]
    receipts = {arrival["receipt"] for arrival in setup.sandbox.log()}
    assert [message.state for message in settled] == [state] * 2
    assert {message.receipt for message in settled} == receipts
    assert all(message.reason is None and message.accepted_at and message.attempts == 1 for message in settled)
    assert setup.listed() == []
    assert setup.pass_(10_000) == 0


def test_a_second_attempt_that_got_lost_is_found_under_its_own_receipt(setup: ReconciliationSetup) -> None:
    first = setup.send("sms", {"provider": "fcm"}, state=State.ACCEPTED)
    now, ref = setup.clock(), str(first.ref)
    back = Event("twilio", "e-1", Channel.SMS, EventKind.FAILED, now, ref, first.receipt, "30001", retry_hint=RetryHint(1.0, 1))
    provider_events.store_events(setup.services, [back])
    setup.pass_(1)
    setup.sandbox.set_faults([LOST])
    setup.clock.pass_(10)
    work(setup.services)
    assert setup.message(str(first.campaign_id)).state is State.UNRESOLVED
    setup.sandbox.clear_faults()
    setup.pass_(121)
    found = setup.message(str(first.campaign_id))
    assert (found.state, found.attempts) == (State.DELIVERED, 2)
    assert [arrival["receipt"] for arrival in setup.sandbox.log()] == [first.receipt, found.receipt]


def test_what_twilio_never_took_fails_after_three_lookups(setup: ReconciliationSetup) -> None:
    sent = setup.send("sms", NEVER, "email", fallback_after_seconds=3600)
    name = str(sent.campaign_id)
    for seconds in (121.0, *AGAIN_SECONDS):
        assert setup.message(name).state is State.UNRESOLVED
        assert setup.pass_(seconds) == 1
    failed = setup.message(name)
    assert (failed.state, failed.reason, failed.receipt) == (State.FAILED, "not_taken", None)
    assert [(report.provider, report.kind, report.code) for report in failed.reports] == [("twilio", "failed", "not_taken")]
    work(setup.services)
    assert (setup.message(name, 1).channel, setup.message(name, 1).state) == (Channel.EMAIL, State.ACCEPTED)
    assert setup.sandbox.counts() | {"events": 0} == {"total": 1, "email": 1, "sms": 0, "whatsapp": 0, "push": 0, "events": 0}


def test_a_trigger_that_twilio_never_took_takes_its_next_leg(setup: ReconciliationSetup) -> None:
    setup.sandbox.set_faults([NEVER])
    job = {"key": "k-1", "recipient": "anna", "template": "optout_acknowledgement", "data": {"received_on": "2026-11-23"}}
    form = {**job, "channels": ["sms", "email"], "fallback_after_seconds": 3600}
    place = submission.take_trigger(setup.services, parse_trigger(form, submission.validation_context(setup.services)))
    run_chunk(setup.services, place.period, place.chunk)
    setup.sandbox.clear_faults()
    for seconds in (121.0, *AGAIN_SECONDS):
        assert setup.pass_(seconds) == 1
    work(setup.services)
    with lend(setup.services.pool) as connection:
        legs = [messages.find(connection, MessageId(place.period, place.chunk, 0, leg)) for leg in (0, 1)]
    assert [leg and (leg.channel, leg.state, leg.reason) for leg in legs] == [
        (Channel.SMS, State.FAILED, "not_taken"),
        (Channel.EMAIL, State.ACCEPTED, None),
    ]


def test_an_absence_proves_nothing_once_the_persons_record_has_changed(setup: ReconciliationSetup) -> None:
    sent = setup.send("sms", LOST)
    setup.clock.pass_(100)
    add_people(setup.services, person("anna", 77))
    for seconds in (121.0, *AGAIN_SECONDS):
        setup.pass_(seconds)
    assert setup.message(str(sent.campaign_id)).state is State.UNRESOLVED
    assert setup.listed() == [(str(sent.ref), False)]


def test_a_provider_that_is_away_is_asked_later(setup: ReconciliationSetup) -> None:
    sent = setup.send("sms", LOST)
    setup.sandbox.set_faults([{"provider": "twilio", "status": 503}])
    for _ in range(5):
        assert setup.pass_(4_000) == 0
    assert setup.listed() == [(str(sent.ref), True)]
    setup.sandbox.clear_faults()
    assert setup.pass_(121) == 1
    assert setup.message(str(sent.campaign_id)).state is State.DELIVERED


def test_mail_is_settled_by_an_event_with_our_id_and_a_push_by_a_person_only(setup: ReconciliationSetup) -> None:
    mail = setup.send("email", {"provider": "sendgrid", "next": 1, "taken": True})
    push = setup.send("push", {"provider": "fcm", "next": 1, "taken": True})
    assert setup.pass_(121) == 2
    assert setup.listed() == [(str(mail.ref), False), (str(push.ref), False)]
    event = {"event": "processed", "sg_event_id": "e-1", "message_id": str(mail.ref), "sg_message_id": "x-1.recvd", "timestamp": 1}
    provider_events.store_events(setup.services, sendgrid_events(event, now=setup.clock()))
    setup.pass_(1)
    found = setup.message(str(mail.campaign_id))
    assert (found.state, found.receipt, found.reason) == (State.ACCEPTED, "x-1", None)
    assert setup.listed() == [(str(push.ref), False)]
    with lend(setup.services.pool) as connection:
        assert metrics(connection, setup.clock()).unresolved == 1

    assert reconciliation.resolve_by_hand(setup.services, push.ref, False, "desk 7")
    assert not reconciliation.resolve_by_hand(setup.services, push.ref, True, "desk 8")
    assert not reconciliation.resolve_by_hand(setup.services, mail.ref, False, "desk 8")
    setup.pass_(1)
    settled = setup.message(str(push.campaign_id))
    assert (settled.state, settled.reason, settled.reports[0].provider, settled.reports[0].extra) == (
        State.FAILED,
        "by_hand",
        "person",
        {"by": "desk 7"},
    )
    assert setup.message(str(mail.campaign_id)).state is State.ACCEPTED
    assert setup.listed() == []


def find_with(setup: ReconciliationSetup, code: str, *kinds: EventKind) -> None:
    """Twilio knows the message, and of a failure."""
    (trace,) = told(look_up(setup.services.providers[Channel.SMS], "+32470000001", setup.clock() - timedelta(minutes=1)))
    events = tuple(replace(trace.events[0], id=f"x{number}", kind=kind, code=code) for number, kind in enumerate(kinds))
    with lend(setup.services.pool) as connection:
        doubt = unresolved.next_to_look_up(connection, setup.clock() + timedelta(hours=1))
        assert doubt is not None
        reconciliation.conclude(connection, doubt, "twilio", replace(trace, events=events), setup.clock())
    setup.pass_(1)


def test_news_that_tells_nothing_leaves_the_doubt_to_a_person(setup: ReconciliationSetup) -> None:
    sent = setup.send("sms", LOST)
    find_with(setup, "30410", EventKind.UNKNOWN)
    assert setup.message(str(sent.campaign_id)).state is State.UNRESOLVED
    assert setup.listed() == [(str(sent.ref), False)]


def test_a_no_found_by_asking_is_a_no(setup: ReconciliationSetup) -> None:
    sent = setup.send("sms", LOST)
    find_with(setup, "21610", EventKind.FAILED, EventKind.OPTED_OUT)
    assert setup.message(str(sent.campaign_id)).state is State.FAILED
    with lend(setup.services.pool) as connection:
        assert events.preferences(connection, "anna").choices["channel:sms_whatsapp"].value == "off"


def told(found: list[ProviderRecord] | ChannelError) -> list[ProviderRecord]:
    assert not isinstance(found, ChannelError)
    return found


# -- recognising a message ---------------------------------------------------------------------------------------------

NOON = datetime(2026, 11, 23, 11, 0, tzinfo=UTC)
URL = "https://bank.example"


@pytest.mark.parametrize(
    ("texts", "finding"),
    [
        ([], LookupResult.ABSENT),
        ([f"Hallo {URL}/u/mine"], 0),
        ([f"{URL}/u/others", f"Hallo {URL}/p/mine-too"], 1),
        ([f"{URL}/u/others"], LookupResult.ABSENT),
        (["your code is 1234"], LookupResult.UNCLEAR),
        (["your code is 1234", f"{URL}/u/mine"], 1),
        (["", f"{URL}/u/others"], LookupResult.UNCLEAR),
    ],
)
def test_a_text_is_ours_by_its_link_and_a_text_without_any_could_be(texts: list[str], finding: Any) -> None:
    traces = [ProviderRecord(f"SM{number}", NOON, text, ()) for number, text in enumerate(texts)]
    found = find(traces, ("mine", "mine-too"), URL, (), NOON)
    assert found == (traces[finding] if isinstance(finding, int) else finding)


def test_a_former_attempt_is_not_the_one_asked_about_and_later_texts_are_not_ours() -> None:
    mine = ProviderRecord("SM1", NOON, f"{URL}/u/mine", ())
    assert find([mine], ("mine",), URL, ("SM1",), NOON) is LookupResult.ABSENT
    assert find([ProviderRecord("SM2", NOON, "code", ())], ("mine",), URL, (), NOON - timedelta(seconds=1)) is LookupResult.ABSENT


# -- asking Twilio -----------------------------------------------------------------------------------------------------


def row(number: int, **changes: Any) -> dict[str, Any]:
    created = NOON - timedelta(hours=number)
    return {
        "sid": f"SM{number}",
        "body": f"text {number}",
        "status": "sent",
        "error_code": None,
        "direction": "outbound-api",
        "from": SENDER,
        "to": "+32470000001",
        "messaging_service_sid": None,
        "date_created": created.strftime("%a, %d %b %Y %H:%M:%S +0000"),
        **changes,
    }


def asked(*pages: Any, sender: str = SENDER, hours: float = 2.5) -> tuple[list[ProviderRecord] | ChannelError, list[str]]:
    """What the adapter reads in these pages, and the requests that it made."""
    with http_server(lambda _, number: as_json(200, pages[number - 1])) as server:
        http = HttpTransport(timeout_seconds=2)
        adapter = TwilioSms(twilio_account(f"http://127.0.0.1:{server.port}", sender), http)
        found = look_up(adapter, "+32470000001", NOON - timedelta(hours=hours))
        http.close()
    return found, [f"{request.method} {request.path}" for request in server.arrived]


def test_the_question_is_the_sdks_own_and_pages_end_where_the_time_does() -> None:
    more = f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json?Page=1"
    first = {"messages": [row(0), row(1)], "next_page_uri": more}
    found, requests = asked(first, {"messages": [row(2), row(3)], "next_page_uri": more})
    assert [trace.receipt for trace in told(found)] == ["SM0", "SM1", "SM2"]
    assert requests == [sdk_request(To="+32470000001", PageSize=LIST_SIZE), f"GET {more}"]


def sdk_request(**parameters: Any) -> str:
    """What the official SDK asks for a number's messages."""
    taken: list[str] = []

    class Taker(HttpClient):  # type: ignore[misc]  # the SDK ships no types
        def request(self, method: str, uri: str, params: dict[str, Any], *_: Any, **__: Any) -> Any:
            chosen = {name: value for name, value in params.items() if isinstance(value, str | int)}
            taken.append(f"{method} {urlsplit(uri).path}?{urlencode(chosen)}")
            raise StopIteration

    client = Client(ACCOUNT, "token", http_client=Taker(None, is_async=False))
    with suppress(StopIteration, RuntimeError):
        client.messages.list(to=parameters["To"], page_size=parameters["PageSize"])
    return taken[0]


def test_what_we_received_is_left_out_and_each_of_our_senders_counts() -> None:
    service = "MG" + "a" * 32
    rows = [row(0, direction="inbound"), row(1, **{"from": "CBC"}), row(2, messaging_service_sid=service, **{"from": None})]
    found, _ = asked({"messages": rows})
    assert [trace.receipt for trace in told(found)] == ["SM1", "SM2"]


def test_an_answer_that_can_not_be_read_to_its_end_is_no_answer() -> None:
    odd: Any
    for odd in ({}, {"messages": None}, {"messages": [1]}, {"messages": [{}]}, {"messages": [row(0, date_created="soon")]}):
        assert isinstance(asked(odd)[0], Uncertain)
    endless = {"messages": [row(0)], "next_page_uri": f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json?Page=1"}
    assert isinstance(asked(endless, endless, endless, endless)[0], Rejected)


def test_every_provider_of_a_channel_must_tell() -> None:
    with http_server(lambda _, __: as_json(200, {"messages": [row(0)]})) as server:
        http = HttpTransport(timeout_seconds=2)
        adapter = TwilioSms(twilio_account(f"http://127.0.0.1:{server.port}"), http)
        since = NOON - timedelta(hours=1)
        two = Failover([WeightedProvider(adapter, 1.0), WeightedProvider(adapter, 0.0)], lambda: 0.0)
        assert [trace.receipt for trace in told(look_up(two, "+32470000001", since))] == ["SM0", "SM0"]
        mute = Failover([WeightedProvider(adapter, 1.0), WeightedProvider(Outbox(Channel.SMS), 0.0)], lambda: 0.0)
        assert isinstance(look_up(mute, "+32470000001", since), Uncertain)
        http.close()

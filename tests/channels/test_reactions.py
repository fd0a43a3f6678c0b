"""Each row of the table of error reactions, end to end: state, retry, suppression, opt-out, stopped channel."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pytest
from structlog.testing import capture_logs

from channels.base import Channel, Event, Misconfigured, Outbound
from channels.http import HttpTransport
from channels.providers.fcm import OTHER_PROJECT_TOKENS_MIN, Fcm
from channels.send_window import window_of
from dispatcher.campaigns import scheduler, submission
from dispatcher.delivery.pipeline import run_chunk
from dispatcher.delivery.retries import JITTER
from dispatcher.domain.message import State
from dispatcher.domain.recipient import Facts
from dispatcher.inbound import provider_events
from dispatcher.intake.campaign import parse_campaign
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import events as consent
from dispatcher.ledger.delivery import messages
from dispatcher.ledger.delivery.candidates import facts_of
from dispatcher.ledger.delivery.messages import Message
from dispatcher.ledger.maintenance import stopped_channels
from dispatcher.maintenance import sweep
from dispatcher.runtime.services import Services
from tests.support.api_descriptions import require
from tests.support.http_servers import Answer, ReceivedRequest, http_server
from tests.support.provider_cases import ACCESS_TOKEN, PUSH, as_json, fcm, sendgrid, sms, token, whatsapp
from tests.support.provider_cases import FCM as FCM_ANSWERS
from tests.support.provider_cases import SENDGRID as MAIL_ANSWERS
from tests.support.provider_cases import TWILIO as TEXT_ANSWERS
from tests.support.reaction_cases import CASES, FCM_ERROR, ROWS, TABLE, WAITS_SECONDS_MIN, ExpectedOutcome, ReactionCase
from tests.support.services import Clock, add_people, make_services, person, with_content_sids
from tests.support.signed_webhooks import sendgrid_events, twilio_events

TRIES = {
    "30003": 2,
    "30450": 2,
    "30023": 2,
    "63038": 2,
    "63049": 2,
    "63012": 3,
    "bounce type=blocked": 1,
    **dict.fromkeys(("30001", "30022", "63017", "63018"), 5),
}
SENT, PROCESSED = {"status": "sent", "code": ""}, {"event": "processed"}


@dataclass
class ReactionSetup:
    """A real database and real adapters, with one server in place of all providers."""

    services: Services
    clock: Clock
    answer: Answer | None = None
    people: int = 0

    def send(self, channel: Channel, answer: Answer | None) -> str:
        """Send one message to a new person. Returns the recipient id."""
        self.people += 1
        self.answer = answer
        recipient = f"c-{self.people}"
        number = f"+3247{self.people:07}"
        add_people(self.services, person(recipient, phone=number, whatsapp=number))
        data = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
        rows = [{"recipient": recipient, "data": data}]
        form = {"id": recipient, "template": "loan_offer", "channels": [channel.value], "audience": rows}
        submission.submit(self.services, parse_campaign(form, submission.validation_context(self.services)))
        self.work()
        return recipient

    def work(self) -> None:
        """Do what beat and workers do."""
        sweep.sweep(self.services)
        for due in scheduler.due_chunks(self.services):
            run_chunk(self.services, due.period, due.number)

    def await_acceptance(self, recipient: str) -> Message:
        """Work hour by hour: what is due at night waits for the day."""
        self.answer = None
        for _ in range(24 * 10):
            self.work()
            if (message := self.message(recipient)).state is State.ACCEPTED:
                break
            self.clock.pass_(3_600)
        return message

    def receive_event(self, channel: Channel, recipient: str, fields: Mapping[str, str]) -> None:
        """Deliver an event about that message, twice."""
        message_id = str(self.message(recipient).ref)
        events: list[Event]
        if channel is Channel.EMAIL:
            sid = fields.get("sid", recipient)
            fields_added = {"sg_event_id": f"{sid}-{fields['event']}", "message_id": message_id, "timestamp": "1795431600"}
            events = sendgrid_events({**fields, **fields_added, "sg_message_id": f"{sid}.recvd"}, now=self.clock())
        else:
            form = {"sid": f"SM{recipient}", **fields}
            events = twilio_events(**form, message_id=message_id, channel=channel.value, now=self.clock())
        provider_events.store_events(self.services, events)
        provider_events.store_events(self.services, events)
        while provider_events.apply_batch(self.services, lambda _: None):
            pass

    def message(self, recipient: str) -> Message:
        with lend(self.services.pool) as connection:
            (message,) = messages.of_campaign(connection, recipient, recipient)
        return message

    def facts(self, recipient: str) -> Facts:
        with lend(self.services.pool) as connection:
            return facts_of(connection, [recipient])[recipient]

    def banned(self, recipient: str, channel: Channel) -> set[str]:
        """Return the channels on which the person's address is suppressed."""
        facts = self.facts(recipient)
        return {"push"} if channel is Channel.PUSH and not facts.devices else set(facts.suppressions)

    def counted(self, recipient: str) -> int:
        """Return how many of the person's messages count towards the caps."""
        with lend(self.services.pool) as connection:
            rows = connection.execute("SELECT FROM cap_reservations WHERE recipient_id = %s", (recipient,))
            return len(rows.fetchall())

    def switched_off(self, recipient: str) -> bool:
        with lend(self.services.pool) as connection:
            choices = consent.preferences(connection, recipient).choices
        return any(choice.value == "off" for subject, choice in choices.items() if subject.startswith("channel:"))

    def stopped(self) -> set[Channel]:
        """Return the stopped channels, and start them again for the next case."""
        with lend(self.services.pool) as connection:
            found = set(stopped_channels.stopped(connection))
            for channel in found:
                stopped_channels.lift(connection, channel, self.services.clock())
        return found


@pytest.fixture(scope="module")
def setup(shared_database: str) -> Iterator[ReactionSetup]:
    clock, http = Clock(), HttpTransport(timeout_seconds=5)

    def script(request: ReceivedRequest, number: int) -> Answer:
        if request.path == "/token":
            return ACCESS_TOKEN
        answers = MAIL_ANSWERS if "mail/send" in request.path else FCM_ANSWERS if "messages:" in request.path else TEXT_ANSWERS
        return made.answer or answers.fine(number)

    with http_server(script) as server, make_services(shared_database, clock) as services:
        makers = {Channel.EMAIL: sendgrid, Channel.SMS: sms, Channel.WHATSAPP: whatsapp, Channel.PUSH: fcm}
        providers = {channel: make(server.port, http) for channel, make in makers.items()}
        catalog = with_content_sids(services.catalog)
        made = ReactionSetup(replace(services, providers=providers, catalog=catalog), clock)
        yield made
        http.close()


def test_the_reaction_table_is_available() -> None:
    require(TABLE)
    assert len(ROWS) == 108
    assert {id(case.row) for case in CASES} == {id(row) for row in ROWS}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_row_has_the_outcome_of_the_table(setup: ReactionSetup, case: ReactionCase) -> None:
    with capture_logs() as logs:
        recipient = setup.send(case.channel, case.answer)
        for fields in case.events:
            assert setup.message(recipient).state in {State.ACCEPTED, State.UNRESOLVED}
            setup.receive_event(case.channel, recipient, fields)
    message, stopped = setup.message(recipient), setup.stopped()
    alerts = [entry for entry in logs if entry["log_level"] == "warning"]
    banned = setup.banned(recipient, case.channel)
    found = ExpectedOutcome(
        state=message.state,
        suppress=bool(banned),
        opt_out=setup.switched_off(recipient),
        stop=stopped == {case.channel},
        alert=bool(alerts),
    )
    assert found == case.outcome
    assert banned == (case.banned if case.outcome.suppress else set())
    assert recipient not in json.dumps(alerts)
    _check_waiting(case, message, setup.clock())


def _check_waiting(case: ReactionCase, message: Message, now: datetime) -> None:
    """A waiting message has a time; a rate limit or wrong settings spend no attempt."""
    if message.state is not State.WAITING:
        assert message.until is None
        return
    assert message.until is not None
    least = WAITS_SECONDS_MIN.get(str(case.row["code"]), 0.0)
    assert timedelta(seconds=least) <= message.until - now <= timedelta(days=1) * (1 + JITTER)
    if case.outcome.stop or "429" in str(case.row.get("http") or case.row["where"]):
        assert message.attempts == 0


def test_the_table_agrees_on_suppressions() -> None:
    """Compare our classes with the table's own column, to find mistakes in our tables. We are wider in one place: an
    unsubscribe from a group is one from all.
    """
    for case in CASES:
        said = str(case.row["suppress"] or "")
        at_once = bool(said) and "after" not in said and "lifts" not in said
        assert case.outcome.suppress == at_once, case.name


RETRIED = [case for case in CASES if case.where == "event" and case.outcome.state is State.WAITING and not case.variant]


@pytest.mark.parametrize("case", RETRIED, ids=lambda case: case.name)
def test_retries_follow_the_table(setup: ReactionSetup, case: ReactionCase) -> None:
    """After its retries the message fails and counts towards no cap. Late events of an earlier attempt do nothing."""
    recipient = setup.send(case.channel, None)
    old = SENT if case.channel is not Channel.EMAIL else PROCESSED
    for tries in range(10):
        assert setup.await_acceptance(recipient).state is State.ACCEPTED
        fields = {**case.events[0], "sid": f"{recipient}-{tries}"}
        setup.receive_event(case.channel, recipient, fields)
        setup.receive_event(case.channel, recipient, {**fields, **old})
        message = setup.message(recipient)
        if message.state is State.FAILED:
            break
        assert message.state is State.WAITING
    assert tries == message.attempts - 1 == TRIES[str(case.row["code"])]
    assert message.reason
    assert setup.counted(recipient) == 0


def test_many_foreign_tokens_stop_the_channel() -> None:
    error = {"code": 403, "status": "PERMISSION_DENIED", "details": [{"@type": FCM_ERROR, "errorCode": "SENDER_ID_MISMATCH"}]}
    foreign = as_json(403, {"error": error})
    with http_server(lambda request, _: ACCESS_TOKEN if request.path == "/token" else foreign) as server:
        adapter: Fcm = fcm(server.port, HttpTransport(timeout_seconds=5))
        batch = [Outbound(f"m-{number}", Channel.PUSH, token(number), PUSH) for number in range(OTHER_PROJECT_TOKENS_MIN)]
        found = [result for _, result in adapter.send(batch, window_of(30))]
        adapter.close()
    assert [type(result) for result in found] == [Misconfigured] * len(batch)

"""Every row of the table of reactions, from the provider's word to the ledger: state, retry, suppression, opt-out, stop."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from channels.base import Channel, Event, Misconfigured, Outbound
from channels.http import HttpTransport
from channels.providers.fcm import OTHER_PROJECT_TOKENS_MIN, Fcm
from dispatcher.campaigns import scheduler, submission
from dispatcher.delivery.outcomes import JITTER
from dispatcher.delivery.pipeline import run_chunk
from dispatcher.domain.message import State
from dispatcher.domain.recipient import Facts
from dispatcher.inbound import provider_events
from dispatcher.intake.campaign import parse_campaign
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import events as consent
from dispatcher.ledger.delivery import messages
from dispatcher.ledger.delivery.claims import facts_of
from dispatcher.ledger.delivery.messages import Message
from dispatcher.ledger.maintenance import stopped_channels
from dispatcher.maintenance import sweep
from dispatcher.runtime.services import Services
from tests.support.api_descriptions import FIELD, require
from tests.support.http_servers import LOST, Answer, ReceivedRequest, http_answer, http_server
from tests.support.provider_cases import ACCESS_TOKEN, PUSH, as_json, fcm, sendgrid, sms, token, whatsapp
from tests.support.provider_cases import FCM as FCM_ANSWERS
from tests.support.provider_cases import SENDGRID as MAIL_ANSWERS
from tests.support.provider_cases import TWILIO as TEXT_ANSWERS
from tests.support.services import Clock, add_people, make_services, person
from tests.support.signed_webhooks import sendgrid_events, twilio_events

Row = Mapping[str, Any]
TABLE = FIELD / "error_reactions.json"
ROWS: list[Row] = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else []
FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"


@dataclass(frozen=True, slots=True)
class End:
    """How a message ends, and what is done beside it."""

    state: State
    suppress: bool = False
    opt_out: bool = False
    stop: bool = False
    alert: bool = False


# What each class of the table means at sending, and in later news of a message that had been accepted.
AT_SEND: Mapping[str, End] = {
    "accepted": End(State.ACCEPTED),
    "sandbox": End(State.UNRESOLVED),  # a 200 is no promise
    "config_error": End(State.WAITING, stop=True),
    "config_error_country": End(State.FAILED, alert=True),
    "quota": End(State.WAITING, stop=True),
    "retry": End(State.WAITING),
    "permanent_address": End(State.FAILED, suppress=True),
    "permanent_address if the payload is known good": End(State.FAILED, suppress=True),
    "permanent_message": End(State.FAILED),
    "bug_in_request": End(State.FAILED),
    "opted_out": End(State.FAILED, suppress=True, opt_out=True),
    "ambiguous": End(State.UNRESOLVED),
    "unknown": End(State.FAILED, alert=True),
}
IN_NEWS: Mapping[str, End] = {
    "accepted": End(State.ACCEPTED),
    "waiting": End(State.ACCEPTED),
    "delivered": End(State.DELIVERED),
    "engagement": End(State.DELIVERED),
    "opted_in": End(State.ACCEPTED),
    "opted_out": End(State.FAILED, suppress=True, opt_out=True),
    "complaint": End(State.COMPLAINED, suppress=True, opt_out=True),
    "permanent_address": End(State.BOUNCED, suppress=True),
    "permanent_message": End(State.FAILED),
    "temporary_message": End(State.WAITING),
    "temporary_address": End(State.WAITING),
    "blocked": End(State.FAILED),
    "bug_in_request": End(State.FAILED, alert=True),
    "config_error": End(State.FAILED, alert=True),
    "expired": End(State.FAILED),
    "retry": End(State.WAITING),
    "ambiguous": End(State.ACCEPTED),  # it may have arrived
    "unknown": End(State.FAILED, alert=True),
}
# Rows that say more than their class.
HALT = End(State.FAILED, stop=True)
EXCEPTIONS: Mapping[tuple[str, str], End] = {
    ("event", "21703"): HALT,
    ("event", "30002"): HALT,
    ("event", "63001"): HALT,
    ("event", "63051"): HALT,
    ("event", "dropped Recipient List over Package Quota / Invalid SMTPAPI header"): HALT,
    ("event", "63033"): End(State.BOUNCED, suppress=True),
    ("event", "30008"): End(State.FAILED),  # "outcome unclear": the one try that the table would allow might be a second arrival
    ("event", "30007"): End(State.FAILED, alert=True),
    ("event", "63013"): End(State.FAILED, alert=True),
    ("event", "unsubscribe"): End(State.ACCEPTED, suppress=True, opt_out=True),
    ("event", "group_unsubscribe"): End(State.ACCEPTED, suppress=True, opt_out=True),  # we ask for no groups: a no is a no
    **{("send", code): End(State.FAILED, alert=True) for code in ("21602", "21603", "21604", "21656")},
}
DAY_SECONDS = 86_400.0
WAITS_SECONDS_MIN = {  # where the table names a least wait, or says "next day", "hours", "much later"
    "21611": 120.0,
    "QUOTA_EXCEEDED": 60.0,
    "30003": 7_200.0,
    "30450": 1_800.0,
    "63018": 3_600.0,
    **dict.fromkeys(("30023", "63038", "63049"), DAY_SECONDS),
}


# -- one case: a row, where it is met, and what the provider says ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    """A row met at sending (`answer`) or in later news (`news`, which are given the message's id)."""

    row: Row
    where: str
    channel: Channel
    answer: Answer | None = None
    news: tuple[Mapping[str, str], ...] = ()
    variant: int = 0

    @property
    def name(self) -> str:
        return f"{self.row['provider']}-{self.row['code']}-{self.where}-{self.variant}".replace(" ", "_").replace("/", "|")

    @property
    def banned(self) -> set[str]:
        """Where the address is banned, if it is: a number that is none is none for both its channels."""
        return {"sms", "whatsapp"} if self.row["suppress"] == "sms+whatsapp address" else {self.channel.value}

    @property
    def end(self) -> End:
        by_class = AT_SEND if self.where == "send" else IN_NEWS
        return EXCEPTIONS.get((self.where, str(self.row["code"]))) or by_class[self.row["class"]]


def cases() -> Iterator[Case]:
    for row in ROWS:
        yield from {"twilio": text_cases, "sendgrid": mail_cases, "fcm": push_cases}[row["provider"]](row)


def text_cases(row: Row) -> Iterator[Case]:
    code = "29999" if row["code"] is None else str(row["code"])
    channel = Channel.WHATSAPP if code.startswith("63") else Channel.SMS
    at_send, in_news = "send" in row["where"], "callback" in row["where"]
    if code == "5xx or no answer":
        for number, answer in enumerate((http_answer(500), http_answer(503, b"<html>"), LOST)):
            yield Case(row, "send", channel, answer, variant=number)
    elif at_send or not in_news:
        found = [status for status in (401, 404, 429) if str(status) in row["where"]] or [400]
        yield Case(row, "send", channel, as_json(found[0], {"code": int(code), "message": "prose", "status": found[0]}))
    if in_news or row["code"] is None:
        yield Case(row, "event", channel, None, ({"status": "undelivered", "code": code},))
        yield Case(row, "event", channel, None, ({"status": "sent"}, {"status": "failed", "code": code}), variant=1)


def mail_cases(row: Row) -> Iterator[Case]:
    code = str(row["code"])
    if row["where"] == "event webhook":
        for number, fields in enumerate(mail_fields(code)):
            yield Case(row, "event", Channel.EMAIL, None, (fields,), number)
    elif code == "no answer":
        yield Case(row, "send", Channel.EMAIL, LOST)
    else:
        for number, status in enumerate(code.split(" ")[0].split("/")):
            yield Case(row, "send", Channel.EMAIL, mail_answer(int(status), code), variant=number)


def mail_answer(status: int, code: str) -> Answer:
    if status == 413:
        return http_answer(413, b"<html><center><h1>413 Request Entity Too Large</h1></center></html>")
    if status < 300:
        return MAIL_ANSWERS.fine(1) if status == 202 else http_answer(status)
    message = code.partition(" ")[2] or "too many requests"
    return as_json(status, {"errors": [{"field": None, "message": message}]})


def mail_fields(code: str) -> Iterator[Mapping[str, str]]:
    event, _, rest = code.partition(" ")
    if event == "dropped":
        yield from ({"event": "dropped", "reason": reason} for reason in rest.split(" / "))
    elif event == "bounce":
        yield {"event": "bounce", "type": rest.removeprefix("type="), "status": "5.0.0"}
    else:
        yield from ({"event": word} for word in code.split("/"))


def push_cases(row: Row) -> Iterator[Case]:
    if row["http"] is None:
        yield Case(row, "send", Channel.PUSH, LOST)
        return
    code = row["code"].split(" ")[0]
    details: list[dict[str, Any]] = [{"@type": FCM_ERROR, "errorCode": code}]
    if "fieldViolations" in row["code"]:
        details = [{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [{"field": "message.token"}]}]
    elif "no FcmError" in row["code"]:
        details = []
    message = "The registration token is not a valid FCM registration token"
    error = {"code": row["http"], "status": row["status"], "message": message, "details": details}
    yield Case(row, "send", Channel.PUSH, as_json(row["http"], {"error": error}))


CASES = list(cases())


# -- the bench: a house whose providers answer what a case says --------------------------------------------------------


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
    """A real ledger and the real adapters, before one server that plays all providers."""

    services: Services
    clock: Clock
    answer: Answer | None = None
    people: int = 0

    def send(self, channel: Channel, answer: Answer | None) -> str:
        """One message to a person who was never written to before; their id."""
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
        """What beat and workers do."""
        sweep.sweep(self.services)
        for due in scheduler.due_chunks(self.services):
            run_chunk(self.services, due.period, due.number)

    def await_acceptance(self, recipient: str) -> Message:
        """Work hour by hour, for what is due by night has to wait for the day."""
        self.answer = None
        for _ in range(24 * 10):
            self.work()
            if (message := self.message(recipient)).state is State.ACCEPTED:
                break
            self.clock.pass_(3_600)
        return message

    def hear(self, channel: Channel, recipient: str, fields: Mapping[str, str]) -> None:
        """News of that message."""
        message_id = str(self.message(recipient).ref)
        events: list[Event]
        if channel is Channel.EMAIL:
            sid = fields.get("sid", recipient)
            own = {"sg_event_id": f"{sid}-{fields['event']}", "message_id": message_id, "timestamp": "1795431600"}
            events = sendgrid_events({**fields, **own, "sg_message_id": f"{sid}.recvd"}, now=self.clock())
        else:
            told = {"sid": f"SM{recipient}", **fields}
            events = twilio_events(**told, message_id=message_id, channel=channel.value, now=self.clock())
        provider_events.keep(self.services, events)
        provider_events.keep(self.services, events)
        while provider_events.settle_some(self.services, lambda _: None):
            pass

    def message(self, recipient: str) -> Message:
        with lend(self.services.pool) as connection:
            (found,) = messages.of_campaign(connection, recipient, recipient)
        return found

    def facts(self, recipient: str) -> Facts:
        with lend(self.services.pool) as connection:
            return facts_of(connection, [recipient])[recipient]

    def banned(self, recipient: str, channel: Channel) -> set[str]:
        """The channels on which the person's address is banned."""
        facts = self.facts(recipient)
        return {"push"} if channel is Channel.PUSH and not facts.devices else set(facts.suppressions)

    def counted(self, recipient: str) -> int:
        """How many of the person's messages count towards their caps."""
        with lend(self.services.pool) as connection:
            rows = connection.execute("SELECT FROM cap_reservations WHERE recipient_id = %s", (recipient,))
            return len(rows.fetchall())

    def switched_off(self, recipient: str) -> bool:
        with lend(self.services.pool) as connection:
            choices = consent.preferences(connection, recipient).choices
        return any(choice.value == "off" for subject, choice in choices.items() if subject.startswith("channel:"))

    def stopped(self) -> set[Channel]:
        """The stopped channels; they are let go again, for the next case."""
        with lend(self.services.pool) as connection:
            found = set(stopped_channels.stopped(connection))
            for channel in found:
                stopped_channels.lift(connection, channel)
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
        made = ReactionSetup(replace(services, providers=providers), clock)
        yield made
        http.close()


def test_the_table_of_reactions_is_here() -> None:
    require(TABLE)
    assert len(ROWS) == 108
    assert {id(case.row) for case in CASES} == {id(row) for row in ROWS}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_row_ends_as_the_table_says(setup: ReactionSetup, case: Case) -> None:
    with capture_logs() as logs:
        recipient = setup.send(case.channel, case.answer)
        for fields in case.news:
            assert setup.message(recipient).state in {State.ACCEPTED, State.UNRESOLVED}
            setup.hear(case.channel, recipient, fields)
    message, stopped = setup.message(recipient), setup.stopped()
    alerts = [entry for entry in logs if entry["log_level"] == "warning"]
    banned = setup.banned(recipient, case.channel)
    found = End(
        state=message.state,
        suppress=bool(banned),
        opt_out=setup.switched_off(recipient),
        stop=stopped == {case.channel},
        alert=bool(alerts),
    )
    assert found == case.end
    assert banned == (case.banned if case.end.suppress else set())
    assert recipient not in json.dumps(alerts)
    _check_waiting(case, message, setup.clock())


def _check_waiting(case: Case, message: Message, now: datetime) -> None:
    """What waits has a time; being too fast, or badly set up, spends no attempt."""
    if message.state is not State.WAITING:
        assert message.until is None
        return
    assert message.until is not None
    least = WAITS_SECONDS_MIN.get(str(case.row["code"]), 0.0)
    assert timedelta(seconds=least) <= message.until - now <= timedelta(days=1) * (1 + JITTER)
    if case.end.stop or "429" in str(case.row.get("http") or case.row["where"]):
        assert message.attempts == 0


def test_the_table_agrees_on_who_is_suppressed() -> None:
    """Our classes against the table's own column, so that a slip in the tables above can't hide. We are wider in one place: an
    unsubscribe from a group is one from all.
    """
    for case in CASES:
        said = str(case.row["suppress"] or "")
        at_once = bool(said) and "after" not in said and "lifts" not in said
        assert case.end.suppress == at_once, case.name


AGAIN = [case for case in CASES if case.where == "event" and case.end.state is State.WAITING and not case.variant]


@pytest.mark.parametrize("case", AGAIN, ids=lambda case: case.name)
def test_what_reached_nobody_leaves_again_as_often_as_the_table_says(setup: ReactionSetup, case: Case) -> None:
    """Once or twice, a few times: then it has failed, and counts towards no cap. Late news of a former attempt moves nothing."""
    recipient = setup.send(case.channel, None)
    old = SENT if case.channel is not Channel.EMAIL else PROCESSED
    for tries in range(10):
        assert setup.await_acceptance(recipient).state is State.ACCEPTED
        fields = {**case.news[0], "sid": f"{recipient}-{tries}"}
        setup.hear(case.channel, recipient, fields)
        setup.hear(case.channel, recipient, {**fields, **old})
        message = setup.message(recipient)
        if message.state is State.FAILED:
            break
        assert message.state is State.WAITING
    assert tries == message.attempts - 1 == TRIES[str(case.row["code"])]
    assert message.reason
    assert setup.counted(recipient) == 0


def test_many_tokens_of_another_project_stop_the_channel_and_lose_none() -> None:
    error = {"code": 403, "status": "PERMISSION_DENIED", "details": [{"@type": FCM_ERROR, "errorCode": "SENDER_ID_MISMATCH"}]}
    foreign = as_json(403, {"error": error})
    with http_server(lambda request, _: ACCESS_TOKEN if request.path == "/token" else foreign) as server:
        adapter: Fcm = fcm(server.port, HttpTransport(timeout_seconds=5))
        batch = [Outbound(f"m-{number}", Channel.PUSH, token(number), PUSH) for number in range(OTHER_PROJECT_TOKENS_MIN)]
        found = [result for _, result in adapter.send(batch)]
        adapter.close()
    assert [type(result) for result in found] == [Misconfigured] * len(batch)

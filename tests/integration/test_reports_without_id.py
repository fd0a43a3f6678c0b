"""Delivery reports that name no message of ours: found by receipt and address, else by address; what fits nothing is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from channels.base import Channel, Event, EventKind
from dispatcher.campaigns import submission
from dispatcher.domain.message import State
from dispatcher.inbound import provider_events
from dispatcher.intake.campaign import parse_campaign
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import events as consent
from dispatcher.ledger.consent import recipients
from dispatcher.ledger.delivery import messages
from dispatcher.ledger.delivery.messages import Message
from dispatcher.ledger.maintenance import alerts, stopped_channels
from dispatcher.maintenance import sweep
from dispatcher.maintenance.metrics import GAUGES, collect
from tests.support.services import NOON, add_people, outbox, person, states, work
from tests.support.webhook_front import ANNA, KEYS, Front, open_front

OFFER = {"project": "a boat", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
MAIL = "anna@example.org"


@pytest.fixture
def front(database: str) -> Iterator[Front]:
    with open_front(database, KEYS) as opened:
        add_people(opened.services, person("anna", 1), person("bert", 2))
        yield opened


def submit(front: Front, name: str, *channels: str, people: tuple[str, ...] = ("anna",), **changes: Any) -> None:
    audience = [{"recipient": each, "data": OFFER} for each in people]
    form = {"id": name, "template": "loan_offer", "channels": list(channels), "audience": audience, **changes}
    submission.submit(front.services, parse_campaign(form, submission.validation_context(front.services)))
    work(front.services)


def message(front: Front, name: str, recipient: str = "anna") -> Message:
    with lend(front.services.pool) as connection:
        return messages.of_campaign(connection, name, recipient)[0]


def report(front: Front, kind: str, *, age_seconds: int = 0, **fields: Any) -> None:
    """A report of SendGrid, as late ones come: without custom arguments."""
    row = {"event": kind, "email": MAIL, "timestamp": int(front.services.clock().timestamp()), "sg_event_id": f"e-{kind}", **fields}
    row = {name: value for name, value in row.items() if value is not None}
    assert front.sendgrid(json.dumps([row]).encode(), age_seconds).status_code == 204
    apply(front)


def apply(front: Front) -> None:
    while provider_events.apply_batch(front.services, front.broker.publish):
        pass


def choice(front: Front, recipient: str, subject: str) -> str:
    with lend(front.services.pool) as connection:
        return consent.preferences(connection, recipient).choices[subject].value


def alerts_shown(front: Front) -> list[str]:
    with lend(front.services.pool) as connection:
        return [alert.code for alert in alerts.newest(connection)]


def unmatched(front: Front) -> int:
    (gauge,) = (gauge for gauge in GAUGES if gauge.name == "events_unmatched")
    ((_, value),) = gauge.samples(collect(front.services))
    return int(value)


def stored(database: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database) as connection:
        return connection.execute(
            "SELECT period, id, chunk IS NOT NULL, unmatched, address_key FROM provider_events ORDER BY period, id"
        ).fetchall()


# -- by receipt and address --------------------------------------------------------------------------------------------


def test_a_late_complaint_that_names_receipt_and_address_is_as_one_that_names_the_message(front: Front, database: str) -> None:
    submit(front, "spring", "email", people=("anna", "bert"))
    receipt = message(front, "spring").receipt
    with psycopg.connect(database) as connection:  # SendGrid has one receipt for all mails of a request
        connection.execute("UPDATE messages SET receipt = %s", (receipt,))
    report(front, "spamreport", sg_message_id=f"{receipt}.recvd-5f54b5d587-pczjm-1-67BADEEA-6.0", email="Anna@Example.ORG")
    assert states(front.services) == {"accepted": 1, "complained": 1}
    told = message(front, "spring")
    assert (told.state, [each.kind for each in told.reports]) == (State.COMPLAINED, ["complained"])
    assert message(front, "spring", "bert").state is State.ACCEPTED
    assert (choice(front, "anna", "channel:email"), choice(front, "bert", "channel:email")) == ("off", "on")
    assert front.banned("anna") == {"email"}
    assert unmatched(front) == 0
    submit(front, "summer", "email")
    assert states(front.services, "summer") == {"refused": 1}
    with lend(front.services.pool) as connection:
        assert "address_key" not in json.dumps(recipients.export(connection, "anna")["messages"][0]["events"], default=str)


def test_a_report_about_a_message_of_an_earlier_month_is_told_with_that_message(front: Front, database: str) -> None:
    submit(front, "spring", "email")
    front.services.clock.pass_(20 * 86_400)  # type: ignore[attr-defined]
    sweep.sweep(front.services)
    for _ in range(2):
        report(front, "bounce", sg_message_id=message(front, "spring").receipt, status="5.1.1")
    told = message(front, "spring")
    assert (told.state, [each.code for each in told.reports]) == (State.BOUNCED, ["5.1.1"])
    assert [row[:4] for row in stored(database)] == [(202611, "e-bounce", True, False), (202612, "e-bounce", False, False)]


def test_of_two_messages_with_one_receipt_it_is_the_newest(front: Front, database: str) -> None:
    for name in ("first", "second"):
        submit(front, name, "email")
        front.services.clock.pass_(60)  # type: ignore[attr-defined]
    with psycopg.connect(database) as connection:
        connection.execute("UPDATE messages SET receipt = 'same'")
    report(front, "delivered", sg_message_id="same")
    assert [message(front, name).state for name in ("first", "second")] == [State.ACCEPTED, State.DELIVERED]


def test_status_callbacks_without_our_parameter_find_their_message(front: Front) -> None:
    submit(front, "spring", "sms")
    sid = str(message(front, "spring").receipt)
    form = {"MessageSid": sid, "MessageStatus": "undelivered", "ErrorCode": "30005", "To": ANNA, "From": "+32460000000"}
    assert front.twilio("/webhooks/twilio/status", form).status_code == 204
    apply(front)
    assert (message(front, "spring").state, front.banned("anna")) == (State.BOUNCED, {"sms"})
    submit(front, "whats", "whatsapp")
    sid = str(message(front, "whats").receipt)
    form = {"MessageSid": sid, "MessageStatus": "read", "To": f"whatsapp:{ANNA}", "From": "whatsapp:+32460000000"}
    assert front.twilio("/webhooks/twilio/status?message=not-ours", form).status_code == 204
    apply(front)
    assert message(front, "whats").state is State.READ


def test_a_report_of_telnyx_without_our_parameter_finds_its_message(front: Front) -> None:
    submit(front, "spring", "sms")
    payload = {"id": message(front, "spring").receipt, "to": [{"phone_number": ANNA, "status": "delivered"}]}
    front.telnyx({"data": {"id": "e-1", "event_type": "message.finalized", "payload": payload}, "meta": {}})
    apply(front)
    assert message(front, "spring").state is State.DELIVERED


# -- by address alone --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields", [{}, {"sg_message_id": "other"}, {"message_id": "299912-1-0-0"}, {"message_id": "202611-99-0-0"}]
)
def test_an_unsubscribe_that_names_only_an_address_is_an_opt_out_of_all_who_have_it(front: Front, fields: dict[str, Any]) -> None:
    add_people(front.services, person("carl", 3, email=MAIL))
    report(front, "unsubscribe", **fields)
    assert [choice(front, name, "channel:email") for name in ("anna", "carl", "bert")] == ["off", "off", "on"]
    assert (front.banned("anna"), front.banned("bert")) == ({"email"}, set())
    assert len(front.broker.dues) == 2  # acknowledgements; the policy refuses them, because the address is suppressed
    assert unmatched(front) == 0
    submit(front, "spring", "email")
    assert states(front.services) == {"refused": 1}


@pytest.mark.parametrize(
    "address",
    [
        f" {MAIL}\n",
        f"Anna <{MAIL}>",
        f'"Peeters, Anna" <{MAIL}>',
        f"<{MAIL}>",
        f"mailto:{MAIL}",
        f"MAILTO:{MAIL}?subject=stop",
        "anna@EXAMPLE.ORG.",
        [MAIL],
    ],
)
def test_an_address_of_a_report_is_read_in_each_form(front: Front, address: Any) -> None:
    report(front, "Unsubscribe ", email=address)
    assert choice(front, "anna", "channel:email") == "off"
    assert unmatched(front) == 0


def test_a_bounce_of_an_address_that_nobody_has_holds_for_who_gets_it(front: Front) -> None:
    report(front, "bounce", email="new@example.org", status="5.1.1")
    add_people(front.services, person("dora", 4, email="new@example.org"))
    assert front.banned("dora") == {"email"}


def test_resubscribing_by_address_lifts_what_the_unsubscribe_made(front: Front) -> None:
    report(front, "group_unsubscribe")
    assert front.banned("anna") == {"email"}
    front.services.clock.pass_(60)  # type: ignore[attr-defined]
    report(front, "group_resubscribe")
    assert (front.banned("anna"), choice(front, "anna", "channel:email")) == (set(), "off")


def test_soft_bounces_of_other_messages_add_up_by_address(front: Front) -> None:
    for number in range(3):
        form = {
            "MessageSid": f"SM{number}",
            "MessageStatus": "undelivered",
            "ErrorCode": "30003",
            "To": ANNA,
            "From": "+32460000000",
        }
        assert front.banned("anna") == set()
        front.twilio("/webhooks/twilio/status", form)
        apply(front)
    assert front.banned("anna") == {"sms"}


# -- what fits nothing -------------------------------------------------------------------------------------------------


def test_what_fits_nothing_is_kept_and_alerts_once_per_code(front: Front, database: str) -> None:
    with capture_logs() as lines:
        for number in range(3):
            report(front, "delivered", sg_event_id=f"d-{number}", email=f"somebody{number}@example.com")
        report(front, "unsubscribe", email="not an address")
        report(front, "spamreport", email=["x"], message_id=7, sg_message_id={})
    assert (unmatched(front), sorted(alerts_shown(front))) == (
        5,
        ["unmatched:complained", "unmatched:delivered", "unmatched:opted_out"],
    )
    assert all(key is None for *_, key in stored(database))
    assert "example.com" not in repr(lines)


def test_an_unreadable_entry_costs_only_itself(front: Front) -> None:
    submit(front, "spring", "email")
    good = {"event": "unsubscribe", "email": MAIL, "sg_event_id": "good"}
    odd = [1, None, "x", [], [good], {"event": 5}, {"event": "bounce", "timestamp": {}, "status": 5, "sg_event_id": []}]
    assert front.sendgrid(json.dumps([*odd, good]).encode()).status_code == 204
    apply(front)
    assert choice(front, "anna", "channel:email") == "off"


def test_an_event_does_not_show_its_address() -> None:
    assert MAIL not in repr(Event("sendgrid", "e", Channel.EMAIL, EventKind.BOUNCED, NOON, address=MAIL))


# -- the account -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"event": "account_status_change", "type": "compliance_suspend", "email": None}, "compliance_suspend"),
        ({"event": "account_status_change", "type": "Compliance_Suspend ", "email": None}, "compliance_suspend"),
        ({"event": "dropped", "reason": "Invalid SMTPAPI header"}, "dropped_invalid_header"),
        ({"event": "dropped", "reason": "Recipient List over Package Quota", "email": None}, "dropped_over_quota"),
    ],
)
def test_a_report_about_the_account_stops_the_channel_though_it_names_nobody(
    front: Front, fields: Mapping[str, Any], code: str
) -> None:
    report(front, **{"kind": fields["event"], **{name: value for name, value in fields.items() if name != "event"}})
    with lend(front.services.pool) as connection:
        assert stopped_channels.stopped(connection) == {Channel.EMAIL: code}
    assert unmatched(front) == 0
    submit(front, "spring", "email")
    assert (states(front.services), outbox(front.services).sent) == ({"waiting": 1}, [])


def test_a_warning_about_the_account_is_shown_and_stops_nothing(front: Front) -> None:
    report(front, "account_status_change", type="something_else", email=None)
    with lend(front.services.pool) as connection:
        assert stopped_channels.stopped(connection) == {}


# -- replays -----------------------------------------------------------------------------------------------------------


def test_a_call_repeated_in_the_next_month_is_not_taken_again(front: Front, database: str) -> None:
    front.services.clock.pass_(7 * 86_400 + 12 * 3_600)  # type: ignore[attr-defined]  # 30 November, 23:00
    body = json.dumps([{"event": "unsubscribe", "email": MAIL, "sg_event_id": "e-1"}]).encode()
    form = {"MessageSid": "SM1", "MessageStatus": "failed", "ErrorCode": "21610", "To": ANNA, "From": "+32460000000"}
    assert front.sendgrid(body).status_code == 204
    assert front.twilio("/webhooks/twilio/status", form).status_code == 204
    apply(front)
    front.services.clock.pass_(70 * 3_600)  # type: ignore[attr-defined]
    sweep.sweep(front.services)
    assert front.sendgrid(body, age_seconds=70 * 3_600).status_code == 204
    assert front.events() == 0
    front.services.clock.pass_(62 * 86_400)  # type: ignore[attr-defined]
    sweep.sweep(front.services)
    assert front.twilio("/webhooks/twilio/status", form).status_code == 204  # Twilio signs no time
    assert front.events() == 0
    assert [row[0] for row in stored(database)] == [202611] * 3


@pytest.mark.parametrize("path", ["/webhooks/twilio/status", "/webhooks/twilio/inbound"])
def test_twilio_s_sha256_signature_counts_where_the_call_names_it(front: Front, path: str) -> None:
    form = {"MessageSid": "SM1", "MessageStatus": "delivered", "To": ANNA, "From": "+32460000000", "Body": "Hello"}
    accepted = 204 if path.endswith("status") else 200
    for algorithm, digest, answer in [
        ("HMAC_SHA256", "sha256", accepted),
        ("HMAC_SHA1", "sha1", accepted),
        ("", "sha256", 403),
        ("HMAC_SHA256", "sha1", 403),
        ("HMAC_SHA512", "sha512", 403),
        ("HMAC_MD5", "sha1", 403),
        ("none", "sha1", 403),
    ]:
        assert front.twilio(path, form, algorithm=algorithm, digest=digest).status_code == answer, (algorithm, digest)

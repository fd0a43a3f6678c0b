"""Webhooks: only signed calls are accepted, each event is stored once, and STOP is an opt-out."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from base64 import b64encode
from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import urlencode

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from channels.base import Channel
from channels.providers.outbox import Outbox
from channels.providers.twilio import EMPTY_TWIML as NOTHING_SAID
from channels.providers.twilio import twiml_response
from channels.sandbox.keys import SendGridSigner
from channels.sms_segments import count_segments
from dispatcher.campaigns import submission
from dispatcher.delivery.pipeline import run_chunk
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.recipient import LANGUAGES
from dispatcher.inbound import customer_replies, provider_events
from dispatcher.inbound.help_reply import help_text
from dispatcher.intake.trigger import parse_trigger
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import events as consent
from dispatcher.ledger.consent import suppressions
from dispatcher.ledger.keyed_hash import address_key
from dispatcher.maintenance import retention
from dispatcher.runtime.services import Services
from tests.support.services import add_people, person
from tests.support.webhook_front import ANNA, KEYS, SIGNER, TOKEN, Front, event, open_front

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@pytest.fixture
def front(database: str) -> Iterator[Front]:
    with open_front(database, KEYS) as opened:
        yield opened


# -- SendGrid ----------------------------------------------------------------------------------------------------------


def test_signed_events_are_kept_once_and_put_on_the_inbound_lane(front: Front) -> None:
    body = json.dumps([event(), event(sg_event_id="e-2", event="open"), event()]).encode()
    assert front.sendgrid(body).status_code == 204
    assert front.sendgrid(body).status_code == 204
    assert front.events() == 2
    assert front.broker.told_of_events == 1  # one task applies both


def test_an_event_outlives_a_broker_that_is_away(front: Front) -> None:
    front.broker.away = True
    assert front.sendgrid(json.dumps([event()]).encode()).status_code == 204
    assert front.events() == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Twilio-Email-Event-Webhook-Signature": ""},
        {"X-Twilio-Email-Event-Webhook-Signature": "not base64!"},
        {"X-Twilio-Email-Event-Webhook-Signature": b64encode(b"x" * 70).decode()},
        {"X-Twilio-Email-Event-Webhook-Timestamp": ""},
        {"X-Twilio-Email-Event-Webhook-Timestamp": "soon"},
        {"X-Twilio-Email-Event-Webhook-Timestamp": "1"},
    ],
)
def test_a_call_whose_signature_is_wrong_or_odd_is_refused(front: Front, headers: dict[str, str]) -> None:
    assert front.sendgrid(json.dumps([event()]).encode(), headers=headers).status_code == 403
    assert front.events() == 0


def test_an_old_call_is_refused(front: Front) -> None:
    """Providers repeat a call for a day, and may not sign it anew."""
    assert front.sendgrid(b"[]", age_seconds=72 * 3_600 + 1).status_code == 403
    assert front.sendgrid(b"[]", age_seconds=72 * 3_600 - 1).status_code == 204
    assert front.sendgrid(b"[]", age_seconds=-301).status_code == 403
    assert front.sendgrid(b"[]", age_seconds=-299).status_code == 204


def test_no_header_at_all_is_refused(front: Front) -> None:
    for path in ("/webhooks/sendgrid", "/webhooks/twilio/status", "/webhooks/twilio/inbound"):
        answer = front.client.post(path, content=b"[]")
        assert answer.status_code == 403, path
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("body", [b"", b"{}", b"1", b"nonsense", b"[" * 2_000])
def test_what_is_signed_but_unreadable_is_told_so(front: Front, body: bytes) -> None:
    assert front.sendgrid(body).status_code == 400


def test_what_the_ledger_could_not_keep_costs_nobody_else_their_news(front: Front) -> None:
    odd = [event(sg_event_id="a\0b"), event(sg_event_id="\ud800"), event(sg_event_id="x" * 5_000), event()]
    assert front.sendgrid(json.dumps(odd).encode()).status_code == 204
    assert front.events() == 4


def test_a_large_body_is_refused_before_it_is_read_whole(front: Front) -> None:
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        while read < 20_000_000:
            read += 100_000
            yield b" " * 100_000

    said = front.client.post("/webhooks/sendgrid", content=b"", headers={"Content-Length": "3000000"})
    unsaid = front.client.post("/webhooks/sendgrid", content=endless())
    assert (said.status_code, unsaid.status_code) == (413, 413)


# -- Twilio ------------------------------------------------------------------------------------------------------------


def test_a_status_callback_is_kept_and_its_query_is_part_of_what_is_signed(front: Front) -> None:
    fields = {"MessageSid": "SM1", "MessageStatus": "delivered", "To": ANNA}
    path = "/webhooks/twilio/status?message=202611-1-0-0"
    assert front.twilio(path, fields, signed_path="/webhooks/twilio/status").status_code == 403
    assert front.twilio(path, fields, signed_path="/webhooks/twilio/status?message=202611-1-1-0").status_code == 403
    assert front.events() == 0
    assert front.twilio(path, fields).status_code == 204
    assert front.events() == 1
    assert front.broker.told_of_events == 1


def test_without_a_token_of_ours_even_a_call_signed_with_nothing_is_refused(database: str) -> None:
    with open_front(database, {}) as front:
        url = f"{front.services.public_url}/webhooks/twilio/inbound"
        fields = {"MessageSid": "SM1", "From": ANNA, "Body": "START"}
        text = url + "".join(f"{name}{fields[name]}" for name in sorted(fields))
        signature = b64encode(hmac.digest(b"", text.encode(), hashlib.sha1)).decode()
        answer = front.client.post(
            "/webhooks/twilio/inbound",
            content=urlencode(fields),
            headers={"X-Twilio-Signature": signature, "Content-Type": "application/x-www-form-urlencoded"},
        )
        assert answer.status_code == 403
        assert front.sendgrid(b"[]").status_code == 403


def test_a_signed_call_without_its_parts_is_told_so(front: Front) -> None:
    assert front.twilio("/webhooks/twilio/status", {"MessageSid": "SM1"}).status_code == 400
    assert front.twilio("/webhooks/twilio/inbound", {"Body": "STOP"}).status_code == 400


# -- every kind of call ------------------------------------------------------------------------------------------------

FORM = {"MessageSid": "SM1", "MessageStatus": "delivered", "From": ANNA, "To": "+32460000000", "Body": "STOP"}
FORM_TYPE = {"Content-Type": "application/x-www-form-urlencoded"}
REPORT = {
    "data": {"id": "e-1", "event_type": "message.finalized", "payload": {"id": "SM1", "to": [{"status": "delivered"}]}},
    "meta": {"delivered_to": "https://dispatcher.example/webhooks/telnyx?message=202611-1-0-0"},
}
PATHS = ("/webhooks/sendgrid", "/webhooks/twilio/status", "/webhooks/twilio/inbound", "/webhooks/telnyx")
RIGHT = dict(zip(PATHS, (204, 204, 200, 204), strict=True))


def signed(front: Front, path: str, signer: SendGridSigner = SIGNER, token: str = TOKEN) -> tuple[bytes, dict[str, str]]:
    """The body and headers of a call as the provider makes it."""
    if path == PATHS[3]:
        return front.telnyx_call(REPORT, signer)
    if path == PATHS[0]:
        body, timestamp = json.dumps([event()]).encode(), str(int(front.services.clock().timestamp()))
        names = ("X-Twilio-Email-Event-Webhook-Timestamp", "X-Twilio-Email-Event-Webhook-Signature")
        return body, dict(zip(names, (timestamp, signer.sign(timestamp, body)), strict=True))
    text = front.services.public_url + path + "".join(f"{name}{FORM[name]}" for name in sorted(FORM))
    signature = b64encode(hmac.digest(token.encode(), text.encode(), hashlib.sha1)).decode()
    return urlencode(FORM).encode(), {"X-Twilio-Signature": signature, **FORM_TYPE}


@pytest.mark.parametrize("path", PATHS)
def test_each_kind_of_call_gets_its_answer(front: Front, path: str) -> None:
    add_people(front.services, person("anna", 1))
    body, headers = signed(front, path)
    signature = next(name for name in headers if "Signature" in name)
    others_body, others = signed(front, path, SendGridSigner(), "another token")

    def answers(content: bytes, **changes: str | None) -> int:
        sent = [(name.encode(), value.encode("latin-1")) for name, value in {**headers, **changes}.items() if value is not None]
        return front.client.post(path, content=content, headers=sent).status_code

    assert answers(others_body, **others) == 403  # another key
    assert answers(body[:-3]) == 403  # truncated
    assert answers(b" " + body) == answers(body + b"&x=1") == answers(body.replace(b"SM1", b"SM2").replace(b"e-1", b"e-2")) == 403
    for odd in (None, "", "=", "é", "A" * 10_000, "MEUCIQ==", headers[signature][:-4]):
        assert answers(body, **{signature: odd}) == 403, odd
    assert answers(b"x" * 10_485_760) == 413
    assert front.events() == 0
    assert front.switch("anna") == "on"
    assert [answers(body), answers(body)] == [RIGHT[path]] * 2  # right, and replayed
    assert front.events() == (path != PATHS[2])
    with lend(front.services.pool) as connection:
        heard = [said for said in consent.history(connection, "anna") if said.source == "inbound"]
    assert len(heard) == (path == PATHS[2])


def test_bytes_moved_between_timestamp_and_body_are_noticed(front: Front) -> None:
    body, headers = signed(front, PATHS[0])
    timestamp = headers["X-Twilio-Email-Event-Webhook-Timestamp"]
    for shifted, rest in ((timestamp + body[:1].decode(), body[1:]), (timestamp[:-1], timestamp[-1:].encode() + body)):
        moved = {**headers, "X-Twilio-Email-Event-Webhook-Timestamp": shifted}
        assert front.client.post(PATHS[0], content=rest, headers=moved).status_code == 403


def test_no_input_is_a_fault_of_ours(front: Front) -> None:
    """Signed or not, any body, any headers: one of the answers that are meant, never a 500."""
    heads = st.dictionaries(
        st.sampled_from([*signed(front, PATHS[0])[1], *signed(front, PATHS[1])[1]]),
        st.binary(max_size=40),
        max_size=3,
    )
    events_ = st.lists(st.dictionaries(st.sampled_from(list(event())), JSON_VALUES, max_size=5), max_size=3)
    fields = st.dictionaries(st.sampled_from([*FORM, "OptOutType", "ErrorCode"]), st.text(max_size=30), max_size=6)

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.sampled_from(PATHS), st.one_of(st.binary(max_size=60), events_, fields), heads, st.booleans())
    def call(path: str, content: Any, odd: dict[str, bytes], genuine: bool) -> None:
        sent = [(name.encode(), value) for name, value in odd.items()]
        if isinstance(content, dict):
            answer = front.twilio(path, content) if genuine else front.client.post(path, data=content, headers=sent)
        else:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            answer = front.sendgrid(body) if genuine else front.client.post(path, content=body, headers=sent)
        assert answer.status_code in {200, 204, 400, 403}, answer.text

    call()
    provider_events.apply_batch(front.services, front.broker.publish)


# -- what people answer ------------------------------------------------------------------------------------------------


def test_stop_by_another_provider_is_the_same_stop(front: Front) -> None:
    add_people(front.services, person("anna", 1), person("bert", 2))
    said = {"id": "t-1", "from": {"phone_number": ANNA}, "text": "stop svp", "autoresponse_type": None}
    body, headers = front.telnyx_call({"data": {"id": "e-1", "event_type": "message.received", "payload": said}})
    assert front.client.post("/webhooks/telnyx", content=body, headers=headers).status_code == 204
    assert (front.switch("anna"), front.switch("bert")) == ("off", "on")
    assert front.banned("anna") == {"sms"}


def test_stop_switches_the_group_off_for_everyone_with_the_number_and_bans_it_on_its_channel(front: Front) -> None:
    add_people(front.services, person("anna", 1), person("bert", 1), person("carl", 2))
    answer = front.text("Stop, svp!")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/xml; charset=utf-8")
    assert [front.switch(name) for name in ("anna", "bert", "carl")] == ["off", "off", "on"]
    assert front.banned("anna") == {"sms"}
    with lend(front.services.pool) as connection:
        said = consent.history(connection, "anna")[-1]
        assert (said.subject, said.source, said.actor) == ("channel:sms_whatsapp", "inbound", "sms")
        assert (
            suppressions.suppress(
                connection, Channel.SMS, address_key(front.services.secret, "sms", ANNA), "x", "y", front.services.clock()
            )
            == 1
        )


def test_stop_by_whatsapp_counts_for_the_group_too_and_twice_is_once(front: Front) -> None:
    add_people(front.services, person("anna", 1))
    for _ in range(2):
        assert front.text("ARRÊT", f"whatsapp:{ANNA}").status_code == 200
    assert (front.switch("anna"), front.banned("anna")) == ("off", {"whatsapp"})
    with lend(front.services.pool) as connection:
        assert [event.new_value for event in consent.history(connection, "anna") if event.subject == "channel:sms_whatsapp"] == [
            "on",
            "off",
        ]


def test_a_stop_is_acknowledged_by_one_mail_to_each_who_is_concerned(front: Front) -> None:
    add_people(
        front.services, person("anna", 1, language="fr"), person("bert", 1), person("carl", 2), person("dora", 1, email=None)
    )
    for _ in range(2):
        front.text("STOP")
    front.broker.work(front.services)
    mails = cast(Outbox, front.services.providers[Channel.EMAIL]).sent
    assert sorted(mail.address for mail in mails) == ["anna@example.org", "bert@example.org"]


def test_start_lifts_the_ban_and_grants_nothing(front: Front) -> None:
    add_people(front.services, person("anna", 1))
    front.text("STOP")
    front.text("START")
    assert (front.switch("anna"), front.banned("anna")) == ("off", set())


def test_start_brings_no_dead_address_back(front: Front) -> None:
    add_people(front.services, person("anna", 1))
    with lend(front.services.pool) as connection:
        key = address_key(front.services.secret, "sms", ANNA)
        suppressions.suppress(connection, Channel.SMS, key, "30005", "twilio", front.services.clock())
    front.text("START")
    assert front.banned("anna") == {"sms"}


def test_a_text_that_comes_again_is_answered_and_not_obeyed_again(front: Front) -> None:
    add_people(front.services, person("anna", 1))
    start = front.text("START", MessageSid="SM-old")
    front.text("STOP")
    retry_hint = front.text("START", MessageSid="SM-old")
    assert (retry_hint.status_code, retry_hint.text) == (200, start.text)
    assert front.banned("anna") == {"sms"}


def test_resubscribing_at_the_provider_lifts_its_block_and_grants_nothing(front: Front) -> None:
    add_people(front.services, person("anna"))
    place = take_service_mail(front.services, "anna")
    said = {"message_id": str(place), "email": "anna@example.org"}
    for number, (name, banned) in enumerate((("unsubscribe", {"email"}), ("group_resubscribe", set()), ("spamreport", {"email"}))):
        front.services.clock.pass_(60)  # type: ignore[attr-defined]
        at = int(front.services.clock().timestamp())
        front.sendgrid(json.dumps([event(event=name, sg_event_id=f"n-{number}", timestamp=at, **said)]).encode())
        provider_events.apply_batch(front.services, front.broker.publish)
        assert front.banned("anna") == banned, name
    front.sendgrid(json.dumps([event(event="group_resubscribe", sg_event_id="n-9", timestamp=at, **said)]).encode())
    provider_events.apply_batch(front.services, front.broker.publish)
    assert front.banned("anna") == {"email"}  # a resubscription does not lift the ban of a spam complaint
    with lend(front.services.pool) as connection:
        assert consent.preferences(connection, "anna").choices["channel:email"].value == "off"


def take_service_mail(services: Services, recipient_id: str) -> MessageId:
    """A message that was sent, for events of providers."""
    job = {"key": f"k-{recipient_id}", "recipient": recipient_id, "template": "optout_acknowledgement", "data": {}}
    place = submission.take_trigger(services, parse_trigger(job, submission.validation_context(services)))
    run_chunk(services, place.period, place.chunk)
    return MessageId(place.period, place.chunk, 0, 0)


@pytest.mark.parametrize("language", LANGUAGES)
def test_help_is_answered_in_the_persons_language_within_one_sms(front: Front, language: str) -> None:
    add_people(front.services, person("anna", 1, language=language))
    answer = front.text("Aide svp ?")
    (said,) = re.findall("<Response><Message>(.+)</Message></Response>", answer.text)
    assert said == help_text(language, "KBC Bank", "https://www.kbc-bank.example/contact")
    assert "STOP" in said
    size = count_segments(said)
    assert (size.encoding, size.count) == ("GSM-7", 1)
    assert (front.switch("anna"), front.banned("anna")) == ("on", set())


def test_help_that_the_provider_answered_or_from_a_stranger_is_safe(front: Front) -> None:
    assert front.text("HELP", OptOutType="HELP").text == NOTHING_SAID
    assert "Reply STOP" in front.text("HELP", "+32479999999").text
    assert (
        twiml_response("a & b <c>")
        == "<?xml version='1.0' encoding='UTF-8'?><Response><Message>a &amp; b &lt;c&gt;</Message></Response>"
    )


def test_an_unclear_text_waits_for_a_person_who_may_hear_a_no_in_it(front: Front) -> None:
    add_people(front.services, person("anna", 1), person("bert", 1))
    for words in ("Laat me met rust!", "Waar is het stopcontact?", "START", "wat\0 nu"):
        assert front.text(words).text == NOTHING_SAID
    first, second, odd = customer_replies.waiting(front.services, 10)
    assert (first.text, first.recipients, odd.text) == ("Laat me met rust!", ("anna", "bert"), "wat\ufffd nu")
    assert customer_replies.close_unclear_message(front.services, front.broker.publish, first.id, "desk-7", stop=True)
    assert not customer_replies.close_unclear_message(front.services, front.broker.publish, first.id, "desk-8", stop=True)
    assert customer_replies.close_unclear_message(front.services, front.broker.publish, second.id, "desk-7", stop=False)
    assert [front.switch(name) for name in ("anna", "bert")] == ["off", "off"]
    assert front.banned("anna") == {"sms"}
    assert len(front.broker.dues) == 2  # an acknowledgement each
    with lend(front.services.pool) as connection:
        assert consent.history(connection, "anna")[-1].actor == "desk-7"
    assert customer_replies.waiting(front.services, 10) == [odd]


def test_words_are_forgotten_after_thirty_days(front: Front, database: str) -> None:
    front.text("Bel me op +32 470 00 00 01")
    front.services.clock.pass_(29 * 86_400)  # type: ignore[attr-defined]
    list(retention.clear(front.services))
    assert len(customer_replies.waiting(front.services, 10)) == 1
    front.services.clock.pass_(2 * 86_400)  # type: ignore[attr-defined]
    assert {done.data.policy_key: done.cleared for done in retention.clear(front.services)}["answers"] == 1
    assert customer_replies.waiting(front.services, 10) == []
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT words, closed_by FROM inbound_texts").fetchall() == [(None, "nobody")]


def test_the_providers_own_reading_of_a_stop_counts_whatever_the_words(front: Front) -> None:
    add_people(front.services, person("anna", 1))
    front.text("laat me met rust", OptOutType="STOP")
    assert front.switch("anna") == "off"


@pytest.mark.parametrize("kind", ["stop", " Stop "])
def test_the_providers_reading_counts_in_any_letters(front: Front, kind: str) -> None:
    add_people(front.services, person("anna", 1))
    front.text("laat me met rust", OptOutType=kind)
    assert front.switch("anna") == "off"


@pytest.mark.parametrize(
    ("words", "switch"), [("STOP", "off"), ("Stop sms", "off"), ("stop er niet mee", None), ("geen idee", None)]
)
def test_no_start_button_counts_against_a_no(front: Front, words: str, switch: str | None) -> None:
    add_people(front.services, person("anna", 1))
    before = front.switch("anna")
    front.text(words, ButtonPayload="START")
    assert front.switch("anna") == (switch or before)
    assert len(customer_replies.waiting(front.services, 10)) == (switch is None)


def test_a_stop_button_counts_whatever_its_label(front: Front) -> None:
    add_people(front.services, person("anna", 1))
    front.text("Nee, bedankt", ButtonPayload="STOP", ButtonText="Nee, bedankt")
    assert front.switch("anna") == "off"


def test_the_sender_s_own_name_beside_stop_is_no_other_word(front: Front) -> None:
    add_people(front.services, person("anna", 1))
    front.text("Stop KBC")
    assert front.switch("anna") == "off"


def test_other_texts_and_unknown_numbers_change_nothing(front: Front) -> None:
    add_people(front.services, person("anna", 1))
    front.text("Waar is het stopcontact?")
    front.text("STOP", "+32479999999")
    front.text("STOP\0", "not a number \0")
    assert (front.switch("anna"), front.banned("anna")) == ("on", set())
    assert provider_events.apply_batch(front.services, front.broker.publish) == 0

"""Twilio adapter: requests equal the SDK's byte for byte; webhooks."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator
from twilio.rest import Client

from channels.base import (
    BadPayload,
    BadSignature,
    Channel,
    ChannelError,
    EventKind,
    Misconfigured,
    OptedOut,
    Outbound,
    Receipt,
    Rejected,
    Sms,
    Throttled,
    Uncertain,
    WhatsApp,
)
from channels.http import HttpResponse, HttpTransport
from channels.providers.twilio import TwilioSms, TwilioWhatsApp, parse_events, parse_inbound
from channels.send_window import window_of
from tests.support.http_servers import http_server
from tests.support.provider_cases import ACCOUNT, CALLBACK, SENDER, SMS, TWILIO, WHATSAPP, phone, twilio_account

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
TEXT = Outbound("camp:1/é", Channel.SMS, phone(1), SMS, ttl_seconds=3600)
TEMPLATE = Outbound("camp:2", Channel.WHATSAPP, phone(1), WHATSAPP)
ADAPTER = TwilioSms(twilio_account(), HttpTransport(), now=lambda: NOW)


def form(outbound: Outbound, sender: str = SENDER) -> dict[str, str]:
    make = TwilioSms if outbound.channel is Channel.SMS else TwilioWhatsApp
    request = make(twilio_account(sender=sender), HttpTransport(), CALLBACK).build(outbound)
    return {name: values[0] for name, values in parse_qs(request.body.decode(), strict_parsing=True).items()}


def test_our_request_equals_the_sdks() -> None:
    with http_server(lambda _, number: TWILIO.fine(number)) as server:
        http, base = HttpTransport(timeout_seconds=5), f"http://127.0.0.1:{server.port}"
        ours = TwilioSms(twilio_account(base), http, CALLBACK)
        assert [type(result) for _, result in ours.send([TEXT], window_of(30))] == [Receipt]
        sdk = Client(ACCOUNT, "token")
        sdk.api.base_url = base
        sdk.messages.create(
            to=phone(1),
            from_=SENDER,
            body=SMS.text,
            validity_period=3600,
            status_callback=f"{CALLBACK}?message=camp%3A1%2F%C3%A9",
        )
        http.close()
    mine, theirs = server.arrived
    assert (mine.method, mine.path) == (theirs.method, theirs.path)
    assert parse_qs(mine.body) == parse_qs(theirs.body)
    for name in ("authorization", "content-type", "accept", "user-agent", "x-twilio-client"):
        assert mine.headers[name] == theirs.headers[name]


def test_a_message_has_its_callback_and_validity_period() -> None:
    sent = form(TEXT)
    assert sent["StatusCallback"] == f"{CALLBACK}?message=camp%3A1%2F%C3%A9"
    assert sent["ValidityPeriod"] == "3600"
    assert form(replace(TEXT, ttl_seconds=10**6))["ValidityPeriod"] == "36000"
    assert form(replace(TEXT, ttl_seconds=0))["ValidityPeriod"] == "1"
    assert "ValidityPeriod" not in form(replace(TEXT, ttl_seconds=None))


def test_an_outbound_may_name_another_sender() -> None:
    service = "MG" + "a" * 32
    for sender, field in (("CBC", "From"), ("+32460000009", "From"), (service, "MessagingServiceSid")):
        fields = form(replace(TEXT, sender=sender))
        assert fields[field] == sender
        assert {"From", "MessagingServiceSid"} & fields.keys() == {field}


def test_a_sender_is_a_number_a_name_or_a_service() -> None:
    service = "MG" + "a" * 32
    assert form(TEXT)["From"] == SENDER
    assert form(TEXT, "KBC")["From"] == "KBC"
    assert form(TEXT, service)["MessagingServiceSid"] == service
    assert "From" not in form(TEXT, service)
    assert form(TEMPLATE)["From"] == form(TEMPLATE, f"whatsapp:{SENDER}")["From"] == f"whatsapp:{SENDER}"


def test_a_whatsapp_message_is_a_template_with_values() -> None:
    sent = form(TEMPLATE)
    assert sent["To"] == f"whatsapp:{phone(1)}"
    assert sent["ContentSid"] == WHATSAPP.content_sid
    assert json.loads(sent["ContentVariables"]) == WHATSAPP.variables
    assert "Body" not in sent


def test_a_free_text_answer_needs_no_template() -> None:
    sent = form(replace(TEMPLATE, content=WhatsApp(text="Rue Haute 1")))
    assert (sent["To"], sent["Body"]) == (f"whatsapp:{phone(1)}", "Rue Haute 1")
    assert not {"ContentSid", "ContentVariables"} & sent.keys()
    for nothing in (WhatsApp(), WhatsApp(text="x" * 1601)):
        with pytest.raises(Rejected):
            form(replace(TEMPLATE, content=nothing))


@pytest.mark.parametrize(
    "address", ["whatsapp:+32470000001", "messenger:1", "0470000001", "+32 470 00 00 01", "+32470000001\n", "+٣٢٤٧٠٠٠٠٠٠١"]
)
def test_an_address_is_a_plain_number(address: str) -> None:
    with pytest.raises(Rejected):
        ADAPTER.build(replace(TEXT, address=address))


def test_a_too_long_text_is_not_sent() -> None:
    ADAPTER.build(replace(TEXT, content=Sms("é" * 1600)))
    with pytest.raises(Rejected, match="21617"):
        ADAPTER.build(replace(TEXT, content=Sms("é" * 1601)))
    with pytest.raises(Rejected, match="21602"):
        ADAPTER.build(replace(TEXT, content=Sms("")))


def refused(status: int, body: object, *headers: bytes) -> ChannelError:
    result = ADAPTER.parse(HttpResponse(status, (b"HTTP/1.1 400 \r\n", *headers, b"\r\n"), json.dumps(body).encode()))
    assert isinstance(result, ChannelError)
    return result


@pytest.mark.parametrize(
    ("status", "body", "error", "code"),
    [
        (400, {"code": 21610}, OptedOut, "21610"),
        (400, {"code": 54321}, Rejected, "54321"),
        (403, {"code": 54321}, Rejected, "54321"),
        (400, {"type": "t", "title": "t", "status": 400, "code": 21610}, OptedOut, "21610"),
        (429, {"code": 54321}, Throttled, "54321"),
        (401, {}, Misconfigured, "http_401"),
        (400, "prose", Rejected, "http_400"),
        (503, {"code": 20503}, Uncertain, "http_503"),
        (302, {}, Uncertain, "http_302"),
        (201, {"sid": ""}, Uncertain, "no_name"),
    ],
)
def test_a_refusal_keeps_its_code(status: int, body: object, error: type[ChannelError], code: str) -> None:
    result = refused(status, body)
    assert (type(result), result.code) == (error, code)


def test_a_full_sender_queue_waits_some_minutes() -> None:
    queue_full, with_seconds, with_date = (
        refused(400, {"code": 21611}),
        refused(429, {"code": 20429}, b"retry-after: 3\r\n"),
        refused(429, {"code": 20429}, b"Retry-After: Sun, 01 Mar 2026 12:00:09 GMT\r\n"),
    )
    waits = [error.retry_after_seconds for error in (queue_full, with_seconds, with_date) if isinstance(error, Throttled)]
    assert waits == [300.0, 3.0, 9.0]


# -- webhooks ----------------------------------------------------------------------------------------------------------

URL = f"{CALLBACK}?message=camp%3A1%2F%C3%A9"
FIELDS = {"MessageSid": "SM1", "MessageStatus": "delivered", "To": phone(1), "From": SENDER, "Empty": ""}


def signed(fields: dict[str, str], url: str = URL) -> tuple[bytes, str]:
    return urlencode(fields).encode(), RequestValidator("token").compute_signature(url, fields)


def event(**fields: str) -> Any:
    body, signature = signed(FIELDS | fields)
    (found,) = parse_events(URL, body, signature, "token", NOW)
    return found


def test_a_stop_behind_a_failure_is_a_separate_event() -> None:
    body, signature = signed(FIELDS | {"MessageStatus": "failed", "ErrorCode": "21610"})
    found = parse_events(URL, body, signature, "token", NOW)
    assert [event.kind for event in found] == [EventKind.FAILED, EventKind.OPTED_OUT]
    assert len({event.id for event in found}) == 2


def test_a_status_is_an_event_of_its_message() -> None:
    found = event()
    assert (found.provider, found.id, found.message_id, found.receipt) == ("twilio", "SM1:delivered", "camp:1/é", "SM1")
    assert (found.channel, found.kind, found.at) == (Channel.SMS, EventKind.DELIVERED, NOW)
    assert phone(1) not in repr(found)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        ("sent", "", EventKind.ACCEPTED),
        ("read", "", EventKind.READ),
        ("undelivered", "30003", EventKind.FAILED),
        ("undelivered", "30005", EventKind.BOUNCED),
        ("failed", "63024", EventKind.BOUNCED),
        ("failed", "12345", EventKind.FAILED),
        ("failed", "prose", EventKind.FAILED),
        ("delivered", "30005", EventKind.DELIVERED),
        ("brand_new", "", EventKind.UNKNOWN),
    ],
)
def test_every_status_has_its_kind(status: str, code: str, kind: EventKind) -> None:
    found = event(MessageStatus=status, ErrorCode=code, To=f"whatsapp:{phone(1)}")
    assert (found.kind, found.channel) == (kind, Channel.WHATSAPP)
    assert found.code == (code if code.isdigit() else None)


def test_an_inbound_message_is_parsed() -> None:
    fields = {"MessageSid": "SM2", "From": f"whatsapp:{phone(7)}", "To": f"whatsapp:{SENDER}", "Body": "STOP svp é"}
    found = parse_inbound(CALLBACK, *signed(fields, CALLBACK), "token")
    assert (found.id, found.channel, found.address, found.text, found.opt_out) == (
        "SM2",
        Channel.WHATSAPP,
        phone(7),
        "STOP svp é",
        None,
    )


def test_a_signed_call_without_its_fields_is_a_bad_payload() -> None:
    with pytest.raises(BadPayload):
        parse_events(URL, *signed({"MessageSid": "SM1"}), "token", NOW)
    with pytest.raises(BadPayload):
        parse_inbound(URL, *signed({"Body": "hi"}), "token")


def test_a_changed_call_does_not_verify() -> None:
    body, signature = signed(FIELDS)
    for url, sent, sign, key in [
        (URL + "x", body, signature, "token"),
        (URL, body.replace(b"delivered", b"failed"), signature, "token"),
        (URL, body + b"&MessageStatus=failed", signature, "token"),
        (URL, body, signature[:-1], "token"),
        (URL, body, "", "token"),
        (URL, body, signature, "other"),
    ]:
        with pytest.raises(BadSignature):
            parse_events(url, sent, sign, key, NOW)


@given(
    url=st.text(max_size=20) | st.sampled_from(["http://[", "http://a:b/", "//:99999", URL]),
    body=st.binary(max_size=20) | st.sampled_from([b"", b"&", b"a=b&a=c", b"%ff=%fe"]),
    signature=st.text(max_size=30),
)
def test_any_other_call_is_a_bad_signature(url: str, body: bytes, signature: str) -> None:
    with pytest.raises(BadSignature):
        parse_events(url, body, signature, "token", NOW)

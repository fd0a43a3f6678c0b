"""SendGrid adapter: requests and the event webhook."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from sendgrid.helpers.mail import (
    ClickTracking,
    Content,
    CustomArg,
    From,
    Header,
    Mail,
    OpenTracking,
    Personalization,
    ReplyTo,
    Subject,
    Substitution,
    To,
    TrackingSettings,
)

from channels.base import BadPayload, BadSignature, Channel, EventKind, Outbound, Rejected, Throttled, Uncertain
from channels.http import HttpResponse, HttpTransport
from channels.mail_batching import group_mails
from channels.providers.sendgrid import SendGrid, parse_events
from channels.validation import RESERVED_HEADERS
from tests.support.provider_cases import EMAIL

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
STAMP = str(int(NOW.timestamp()))
KEY = ec.generate_private_key(ec.SECP256R1())
PUBLIC_KEY = base64.b64encode(
    KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
).decode()

ADAPTER = SendGrid("SG.key", HttpTransport(), now=lambda: NOW)
MAIL = Outbound("m-1", Channel.EMAIL, "margaux@home.example", EMAIL)


def test_a_mail_is_sent_with_all_fields() -> None:
    request = ADAPTER.build(MAIL)
    assert request.url == "https://api.sendgrid.com/v3/mail/send"
    assert {"Authorization: Bearer SG.key", "Content-Type: application/json"} <= set(request.headers)
    mail = json.loads(request.body)
    assert mail["from"] == {"email": "news@bank.example", "name": "KBC"}
    assert mail["subject"] == EMAIL.subject
    assert mail["personalizations"] == [
        {"to": [{"email": "margaux@home.example"}], "custom_args": {"message_id": "m-1"}, "headers": dict(EMAIL.headers)}
    ]
    assert [part["type"] for part in mail["content"]] == ["text/plain", "text/html"]
    tracking = mail["tracking_settings"]
    assert not tracking["click_tracking"]["enable"]
    assert not tracking["click_tracking"]["enable_text"]
    assert not tracking["open_tracking"]["enable"]


def test_our_json_equals_the_sdks() -> None:
    second = Outbound("m-2", Channel.EMAIL, "emile@home.example", replace(EMAIL, subject="Élan"))
    (batch,) = group_mails([MAIL, second], 2)
    sdk = Mail()
    sdk.from_email, sdk.subject = From(batch.template.sender_address, batch.template.sender_name), Subject(batch.template.subject)
    for outbound, filling in list(zip(batch.mails, batch.values_by_tag, strict=True))[::-1]:  # the SDK inserts at the front
        part = Personalization()
        part.add_to(To(outbound.address))
        part.add_custom_arg(CustomArg("message_id", outbound.id))
        for tag, text in filling.items():
            part.add_substitution(Substitution(tag, text))
        for name, value in EMAIL.headers:
            part.add_header(Header(name, value))
        sdk.add_personalization(part)
    sdk.add_content(Content("text/plain", batch.template.text))
    sdk.add_content(Content("text/html", batch.template.html))
    sdk.tracking_settings = TrackingSettings(click_tracking=ClickTracking(False, False), open_tracking=OpenTracking(False))
    assert any(batch.values_by_tag)
    assert json.loads(ADAPTER.build_batch(batch).body) == sdk.get()


@pytest.mark.parametrize("name", sorted(RESERVED_HEADERS))
def test_a_reserved_header_is_refused(name: str) -> None:
    outbound = replace(MAIL, content=replace(EMAIL, headers=((name.title(), "x"),)))
    with pytest.raises(Rejected):
        ADAPTER.build(outbound)


@pytest.mark.parametrize("address", ["a@b.example, c@d.example", "Eve <eve@d.example>", "a@b.example\n", "nobody", "a b@c.d"])
def test_an_address_is_one_plain_address(address: str) -> None:
    with pytest.raises(Rejected):
        ADAPTER.build(replace(MAIL, address=address))


def test_success_without_a_message_id_is_uncertain() -> None:
    assert isinstance(ADAPTER.parse(HttpResponse(202)), Uncertain)
    assert isinstance(ADAPTER.parse(HttpResponse(200)), Uncertain)


def test_a_rate_limit_ends_when_sendgrid_says() -> None:
    reset = b"X-RateLimit-Reset: %d\r\n" % (NOW.timestamp() + 7)
    result = ADAPTER.parse(HttpResponse(429, (b"HTTP/1.1 429 \r\n", reset, b"\r\n")))
    assert isinstance(result, Throttled)
    assert result.retry_after_seconds == 7


def test_an_error_names_the_field_and_omits_the_message() -> None:
    error = {"field": "personalizations.0.to.0.email", "message": "margaux@home.example is no address"}
    result = ADAPTER.parse(HttpResponse(400, (), json.dumps({"errors": [error]}).encode()))
    assert isinstance(result, Rejected)
    assert str(result) == "http_400: personalizations.0.to.0.email"


# -- events ------------------------------------------------------------------------------------------------------------


def signed(body: bytes, stamp: str = STAMP) -> str:
    return base64.b64encode(KEY.sign(stamp.encode() + body, ec.ECDSA(hashes.SHA256()))).decode()


def parse(*rows: dict[str, Any]) -> list[tuple[EventKind, str | None]]:
    body = json.dumps(rows).encode()
    return [(event.kind, event.code) for event in parse_events(body, signed(body), STAMP, PUBLIC_KEY, NOW)]


def test_an_event_keeps_its_ids_and_time() -> None:
    row = {"event": "delivered", "sg_event_id": "e1", "sg_message_id": "abc.recvd-1", "message_id": "m-1", "timestamp": 1700000000}
    body = json.dumps([{**row, "email": "margaux@home.example", "new_field": [1]}]).encode()
    (event,) = parse_events(body, signed(body), STAMP, PUBLIC_KEY, NOW)
    assert (event.provider, event.id, event.message_id, event.receipt) == ("sendgrid", "e1", "m-1", "abc")
    assert event.at == datetime.fromtimestamp(1700000000, UTC)
    assert "margaux" not in repr(event)


def test_every_event_has_its_kind() -> None:
    assert parse(
        {"event": "processed"},
        {"event": "deferred"},
        {"event": "bounce", "type": "bounce", "status": "5.1.1"},
        {"event": "bounce", "type": "blocked", "status": "prose"},
        {"event": "dropped", "reason": "Bounced Address"},
        {"event": "dropped", "reason": "Unsubscribed Address"},
        {"event": "dropped", "reason": "Spam Reporting Address"},
        {"event": "dropped", "reason": "Recipient List over Package Quota"},
        {"event": "spamreport"},
        {"event": "group_unsubscribe"},
        {"event": "group_resubscribe"},
        {"event": "click"},
        {"event": "brand_new"},
        {},
    ) == [
        (EventKind.ACCEPTED, None),
        (EventKind.DEFERRED, None),
        (EventKind.BOUNCED, "5.1.1"),
        (EventKind.FAILED, "blocked"),
        (EventKind.BOUNCED, "dropped_bounced"),
        (EventKind.FAILED, "dropped_unsubscribed"),
        (EventKind.OPTED_OUT, "dropped_unsubscribed"),
        (EventKind.COMPLAINED, "dropped_spam_report"),
        (EventKind.HALTED, "dropped_over_quota"),
        (EventKind.COMPLAINED, None),
        (EventKind.OPTED_OUT, None),
        (EventKind.OPTED_IN, None),
        (EventKind.ENGAGED, None),
        (EventKind.UNKNOWN, None),
        (EventKind.UNKNOWN, None),
    ]


def test_an_event_without_id_gets_a_stable_id() -> None:
    body = json.dumps([{"event": "open", "a": 1}, {"a": 1, "event": "open"}, {"event": "open", "a": 2}]).encode()
    first, retry_hint, other = (event.id for event in parse_events(body, signed(body), STAMP, PUBLIC_KEY, NOW))
    assert first == retry_hint != other


def test_bytes_moved_from_body_to_timestamp_do_not_verify() -> None:
    body = b"1" + json.dumps([{"event": "delivered"}]).encode()
    signature = signed(body)
    with pytest.raises(BadSignature, match=r"signature|age"):
        parse_events(body[1:], signature, STAMP + "1", PUBLIC_KEY, NOW)
    moved = b"[" + body
    with pytest.raises(BadSignature, match="timestamp"):
        parse_events(moved[1:], signed(moved), STAMP + "[", PUBLIC_KEY, NOW)


def test_a_changed_call_does_not_verify() -> None:
    body = json.dumps([{"event": "delivered", "message_id": "m-1"}]).encode()
    for sent, signature, stamp in [
        (body.replace(b"m-1", b"m-2"), signed(body), STAMP),
        (body, signed(body), str(int(STAMP) + 1)),
        (body, signed(b"[]"), STAMP),
    ]:
        with pytest.raises(BadSignature, match="signature"):
            parse_events(sent, signature, stamp, PUBLIC_KEY, NOW)


@pytest.mark.parametrize("shift", [timedelta(minutes=-6), timedelta(hours=72, seconds=1)])
def test_an_old_or_future_call_is_refused(shift: timedelta) -> None:
    with pytest.raises(BadSignature, match="age"):
        parse_events(b"[]", signed(b"[]"), STAMP, PUBLIC_KEY, NOW + shift)


@given(
    body=st.binary(max_size=20) | st.just(b"[]"),
    signature=st.text(max_size=20) | st.just(signed(b"[]")),
    stamp=st.text(max_size=12) | st.just(STAMP) | st.just("²" * 10),
    key=st.text(max_size=10) | st.just(PUBLIC_KEY),
)
def test_any_other_call_is_a_bad_signature(body: bytes, signature: str, stamp: str, key: str) -> None:
    try:
        events = parse_events(body, signature, stamp, key, NOW)
    except BadSignature:
        return
    assert events == []
    assert (body, stamp, key) == (b"[]", STAMP, PUBLIC_KEY)


@pytest.mark.parametrize("body", [b"{}", b"1", b"nothing", b"[" * 100_000])
def test_a_signed_body_without_events_is_a_bad_payload(body: bytes) -> None:
    with pytest.raises(BadPayload):
        parse_events(body, signed(body), STAMP, PUBLIC_KEY, NOW)


def test_a_mail_has_its_reply_address_as_the_sdk_writes_it() -> None:
    sdk = Mail(From("news@bank.example", "KBC"))
    sdk.reply_to = ReplyTo("advice@bank.example")
    body = json.loads(ADAPTER.build(replace(MAIL, content=replace(EMAIL, reply_to="advice@bank.example"))).body)
    assert body["reply_to"] == sdk.get()["reply_to"]
    assert body["from"] == {"email": "news@bank.example", "name": "KBC"}
    assert "reply_to" not in json.loads(ADAPTER.build(MAIL).body)


def test_mails_with_different_reply_addresses_share_no_request() -> None:
    other = Outbound("m-2", Channel.EMAIL, "emile@home.example", replace(EMAIL, reply_to="advice@bank.example"))
    assert [[mail.id for mail in batch.mails] for batch in group_mails([MAIL, other], 2)] == [["m-1"], ["m-2"]]

"""Telnyx adapter: requests, recorded answers, and signed webhook calls."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from channels.base import (
    BadPayload,
    BadSignature,
    Channel,
    ChannelError,
    Event,
    EventKind,
    InboundText,
    Misconfigured,
    NoAddress,
    OptedOut,
    Outbound,
    Receipt,
    Rejected,
    Sms,
    Throttled,
    Uncertain,
)
from channels.http import HttpResponse, HttpTransport
from channels.providers.telnyx import (
    _ALERT_CODES,
    _FAILURE_CODES,
    _RETRY_HINTS,
    _SOFT_BOUNCE_LIMITS,
    ERROR_CODES,
    Telnyx,
    TelnyxAccount,
    parse_webhook,
)
from channels.registry import WebhookItem
from tests.support.http_servers import http_answer, http_server
from tests.support.provider_cases import SECRET_TEXT, SENDER, phone

RECORDED = Path(__file__).parent / "recorded" / "telnyx"
NOW = datetime(2026, 11, 23, 11, 0, 1, tzinfo=UTC)
SIGNER = Ed25519PrivateKey.generate()
PUBLIC_KEY = base64.b64encode(SIGNER.public_key().public_bytes_raw()).decode()
ADAPTER = Telnyx(TelnyxAccount("KEY0", SENDER), HttpTransport(), "https://bank.example/webhooks/telnyx", now=lambda: NOW)
MESSAGE = Outbound("m 1", Channel.SMS, phone(1), Sms(SECRET_TEXT), ttl_seconds=60)


def recorded(name: str) -> bytes:
    return (RECORDED / f"{name}.json").read_bytes()


def signed(body: bytes, at: datetime = NOW, between: bytes = b"|") -> tuple[str, str]:
    stamp = str(int(at.timestamp()))
    return base64.b64encode(SIGNER.sign(stamp.encode() + between + body)).decode(), stamp


def read(body: bytes) -> list[WebhookItem]:
    return parse_webhook(body, *signed(body), PUBLIC_KEY, NOW)


# -- sending -----------------------------------------------------------------------------------------------------------


def test_a_message_is_sent_with_all_fields() -> None:
    request = ADAPTER.build(MESSAGE)
    assert request.url == "https://api.telnyx.com/v2/messages"
    assert "Authorization: Bearer KEY0" in request.headers
    assert json.loads(request.body) == {
        "from": SENDER,
        "to": phone(1),
        "text": SECRET_TEXT,
        "type": "SMS",
        "webhook_url": "https://bank.example/webhooks/telnyx?message=m%201",
        "use_profile_webhooks": False,
    }
    named = Telnyx(TelnyxAccount("KEY0", "Bank", messaging_profile_id="p-1"), HttpTransport())
    assert json.loads(named.build(MESSAGE).body) == {
        "from": "Bank",
        "messaging_profile_id": "p-1",
        "to": phone(1),
        "text": SECRET_TEXT,
        "type": "SMS",
    }


def test_an_outbound_may_name_another_sender() -> None:
    assert json.loads(ADAPTER.build(replace(MESSAGE, sender="CBC")).body)["from"] == "CBC"


@pytest.mark.parametrize(("text", "code"), [("x" * 1531, "40302"), ("ç" * 671, "40302"), ("", "40316")])
def test_messages_that_telnyx_would_refuse_are_not_sent(text: str, code: str) -> None:
    with pytest.raises(Rejected, match=code):
        ADAPTER.build(replace(MESSAGE, content=Sms(text)))
    ADAPTER.build(replace(MESSAGE, content=Sms(text[:-1] or "x")))


@pytest.mark.parametrize(
    ("status", "name", "expected"),
    [
        (401, "unauthorized", Misconfigured),
        (429, "too_many_requests", Throttled),
        (403, "stopped", OptedOut),
        (400, "invalid_recipient", NoAddress),
        (400, "invalid_sender", Misconfigured),
        (500, "stopped", Uncertain),
    ],
)
def test_each_recorded_refusal_has_its_error(status: int, name: str, expected: type[ChannelError]) -> None:
    assert type(ADAPTER.parse(HttpResponse(status, (), recorded(name)))) is expected


def test_the_recorded_success_is_a_receipt() -> None:
    assert ADAPTER.parse(HttpResponse(200, (), recorded("accepted"))) == Receipt("40385f64-5717-4562-b3fc-2c963f66afa6")


def refused(code: str, title: str = "Blocked due to STOP message", status: int = 400) -> tuple[ChannelError, list[Any]]:
    with capture_logs() as logs:
        result = ADAPTER.parse(HttpResponse(status, (), json.dumps({"errors": [{"code": code, "title": title}]}).encode()))
    assert isinstance(result, ChannelError)
    return result, logs


@pytest.mark.parametrize("code", ERROR_CODES)
def test_each_code_has_its_error_and_alert(code: str) -> None:
    result, logs = refused(code)
    assert (type(result), result.code) == (ERROR_CODES[code][0], code)
    assert [log["event"] for log in logs] == (["provider_code"] if code in _ALERT_CODES else [])


def test_an_unknown_code_is_rejected_with_an_alert() -> None:
    result, logs = refused("49999")
    assert type(result) is Rejected
    assert [log["event"] for log in logs] == ["unknown_provider_code"]
    assert type(refused("40300", "The number is not assigned to a profile")[0]) is Rejected
    assert type(refused("99999", status=429)[0]) is Throttled


def test_a_check_requires_an_enabled_profile() -> None:
    bodies = [{"data": []}, {"data": {"id": "p-1", "enabled": True}}, {"data": {"id": "p-1", "enabled": False}}]
    with http_server(lambda _, number: http_answer(200, json.dumps(bodies[number - 1]).encode())) as server:
        http, here = HttpTransport(timeout_seconds=5), f"http://127.0.0.1:{server.port}"
        assert Telnyx(TelnyxAccount("KEY0", SENDER, here), http).check() is None
        profiled = Telnyx(TelnyxAccount("KEY0", SENDER, here, "p-1"), http)
        assert profiled.check() is None
        assert isinstance(profiled.check(), Misconfigured)
        http.close()
    assert [each.path for each in server.arrived] == ["/v2/messaging_profiles", *["/v2/messaging_profiles/p-1"] * 2]


# -- the webhook -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kinds", "code"),
    [
        ("message_sent", [EventKind.ACCEPTED], None),
        ("message_delivered", [EventKind.DELIVERED], None),
        ("message_failed", [EventKind.BOUNCED], "40012"),
        ("message_stopped", [EventKind.FAILED, EventKind.OPTED_OUT], "40300"),
    ],
)
def test_each_recorded_report_is_an_event_of_our_message(name: str, kinds: list[EventKind], code: str | None) -> None:
    events = read(recorded(name))
    assert all(isinstance(event, Event) for event in events)
    found = [event for event in events if isinstance(event, Event)]
    assert [event.kind for event in found] == kinds
    assert {(event.message_id, event.receipt, event.code) for event in found} == {
        ("m-1", "40385f64-5717-4562-b3fc-2c963f66afa6", code)
    }
    assert len({event.id for event in found}) == len(found)
    assert "parts" in found[0].extra
    assert not any(personal in str(found[0].extra) for personal in ("+3247", "Margaux", "bank.example"))
    assert found[0].at == datetime(2026, 11, 23, 11, 0, 0, 148_000, tzinfo=UTC)


def test_an_inbound_message_has_telnyxs_opt_out_type() -> None:
    assert read(recorded("message_received")) == [
        InboundText("84cca175-9755-4859-b67f-4730d7f58aa3", Channel.SMS, "+32470000001", "Stop", "STOP")
    ]


@pytest.mark.parametrize("code", [*_FAILURE_CODES, "49999"])
def test_each_failure_code_has_its_kind(code: str) -> None:
    body = json.loads(recorded("message_failed"))
    body["data"]["payload"]["errors"] = [{"code": code, "title": "some words"}]
    with capture_logs() as logs:
        (event,) = read(json.dumps(body).encode())
    assert isinstance(event, Event)
    assert (event.kind, event.code) == (_FAILURE_CODES.get(code, EventKind.FAILED), code)
    assert (event.retry_hint, event.soft_bounce_limit) == (_RETRY_HINTS.get(code), _SOFT_BOUNCE_LIMITS.get(code))
    assert bool(logs) == (code in _ALERT_CODES or code not in _FAILURE_CODES)


def test_a_call_without_telnyxs_signature_is_refused() -> None:
    body = recorded("message_delivered")
    signature, stamp = signed(body)
    other = base64.b64encode(Ed25519PrivateKey.generate().public_key().public_bytes_raw()).decode()
    forged: list[tuple[bytes, str, str, str]] = [
        (body.replace(b"m-1", b"m-2"), signature, stamp, PUBLIC_KEY),
        (body, signature, str(int(stamp) + 1), PUBLIC_KEY),
        (body, signature, stamp, other),
        (body, signature, stamp, "short"),
        (body, "", stamp, PUBLIC_KEY),
        (body, "!" + signature, stamp, PUBLIC_KEY),
        (body, signature, "", PUBLIC_KEY),
        (body, *signed(body, between=b""), PUBLIC_KEY),
        (body, *signed(body, at=NOW - timedelta(hours=73)), PUBLIC_KEY),
        (body, *signed(body, at=NOW + timedelta(minutes=6)), PUBLIC_KEY),
    ]
    for call in forged:
        with pytest.raises(BadSignature):
            parse_webhook(*call, NOW)


@given(
    body=st.binary(max_size=40)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=8) | st.just("message.received"),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(st.sampled_from(["data", "payload", "id", "to", "from", "errors", "event_type"]), inner, max_size=4)
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_signed_body_gives_items_or_bad_payload(body: bytes) -> None:
    with suppress(BadPayload):
        assert all(isinstance(each, Event | InboundText) for each in read(body))

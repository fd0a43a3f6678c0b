"""FCM adapter: requests, size limits, access tokens."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from firebase_admin import messaging
from hypothesis import given
from hypothesis import strategies as st

from channels.base import (
    BadAddress,
    Channel,
    ChannelError,
    Misconfigured,
    Outbound,
    Push,
    PushOptions,
    Receipt,
    Rejected,
    Throttled,
    Unavailable,
)
from channels.http import HttpResponse, HttpTransport
from channels.providers.fcm import ENVELOPE_BYTES, PAIR_BYTES, PAYLOAD_BYTES_MAX, Fcm, payload_bytes
from channels.send_window import window_of
from tests.support.http_servers import LOST, Answer, ReceivedRequest, http_server
from tests.support.provider_cases import ACCESS_TOKEN, FCM, PUSH, as_json, service_account, token

NOW = datetime.now(UTC)
MESSAGE = Outbound("m-1", Channel.PUSH, token(1), PUSH, ttl_seconds=600)
ADAPTER = Fcm({**service_account(), "token_uri": "http://127.0.0.1:1/token"}, HttpTransport(), now=lambda: NOW)


def test_a_push_message_is_sent_with_all_fields() -> None:
    request = ADAPTER.build(MESSAGE)
    assert request.url == "https://fcm.googleapis.com/v1/projects/bank/messages:send"
    assert json.loads(request.body) == {
        "message": {
            "token": token(1),
            "notification": {"title": "KBC", "body": PUSH.body},
            "data": {"offer": "1", "message_id": "m-1", "link": PUSH.link},
            "android": {"ttl": "600s", "notification": {"tag": "m-1"}},
            "apns": {"headers": {"apns-collapse-id": "m-1", "apns-expiration": str(int(NOW.timestamp()) + 600)}},
            "webpush": {"headers": {"TTL": "600"}, "notification": {"tag": "m-1"}, "fcm_options": {"link": PUSH.link}},
        }
    }


@pytest.mark.parametrize("ttl", [None, 0, 600, 10**8])
@pytest.mark.parametrize("link", ["", "bank://offer", "https://bank.example/é"])
def test_our_json_equals_the_sdks(ttl: int | None, link: str) -> None:
    outbound = replace(MESSAGE, content=replace(PUSH, link=link), ttl_seconds=ttl)
    seconds = None if ttl is None else min(ttl, 28 * 24 * 3600)
    expiration = {} if seconds is None else {"apns-expiration": str(int(NOW.timestamp()) + seconds)}
    sdk = messaging.Message(
        notification=messaging.Notification(title=PUSH.title, body=PUSH.body),
        data={**PUSH.data, "message_id": "m-1"} | ({"link": link} if link else {}),
        android=messaging.AndroidConfig(ttl=seconds, notification=messaging.AndroidNotification(tag="m-1")),
        apns=messaging.APNSConfig(headers={"apns-collapse-id": "m-1", **expiration}),
        webpush=messaging.WebpushConfig(
            headers=None if seconds is None else {"TTL": str(seconds)},
            notification=messaging.WebpushNotification(tag="m-1"),
            fcm_options=messaging.WebpushFCMOptions(link=link) if link.startswith("https://") else None,
        ),
    )
    sdk.token = token(1)  # its constructor warns about every token
    assert json.loads(ADAPTER.build(outbound).body) == {"message": json.loads(str(sdk))}


def test_only_https_links_are_sent_to_browsers() -> None:
    message = json.loads(ADAPTER.build(replace(MESSAGE, content=replace(PUSH, link="bank://offer"))).body)["message"]
    assert message["data"]["link"] == "bank://offer"
    assert "fcm_options" not in message["webpush"]


OPTIONS = PushOptions(
    collapse_key="spring",
    ttl_seconds=300,
    priority="high",
    sound="coin.caf",
    badge=3,
    image="https://bank.example/i.png",
    icon="ic_coin",
    android_channel="offers",
)


def optioned(options: PushOptions, ttl: int | None = 600) -> Any:
    push = replace(MESSAGE, content=replace(PUSH, options=options), ttl_seconds=ttl)
    return json.loads(ADAPTER.build(push).body)["message"]


def test_each_option_reaches_the_platforms_that_know_it() -> None:
    message = optioned(OPTIONS)
    expiration = str(int(NOW.timestamp()) + 300)
    image = "https://bank.example/i.png"
    assert message["notification"]["image"] == image
    assert message["android"] == {
        "collapse_key": "spring",
        "priority": "HIGH",
        "ttl": "300s",
        "notification": {
            "tag": "spring",
            "sound": "coin.caf",
            "icon": "ic_coin",
            "channel_id": "offers",
            "notification_count": 3,
        },
    }
    assert message["apns"] == {
        "headers": {"apns-collapse-id": "spring", "apns-expiration": expiration, "apns-priority": "10"},
        "payload": {"aps": {"sound": "coin.caf", "badge": 3, "mutable-content": 1}},
    }
    assert message["webpush"] == {
        "headers": {"TTL": "300", "Urgency": "high", "Topic": "spring"},
        "notification": {"tag": "spring", "image": image},
        "fcm_options": {"link": PUSH.link},
    }


def test_the_shorter_ttl_counts_and_badge_0_is_sent() -> None:
    assert optioned(OPTIONS, ttl=60)["android"]["ttl"] == "60s"
    assert optioned(OPTIONS, ttl=None)["android"]["ttl"] == "300s"
    assert "ttl" not in optioned(PushOptions(), ttl=None)["android"]
    assert optioned(PushOptions(badge=0))["apns"]["payload"] == {"aps": {"badge": 0}}
    assert "payload" not in optioned(PushOptions())["apns"]
    assert optioned(PushOptions(priority="normal"))["apns"]["headers"]["apns-priority"] == "5"


def test_push_options_equal_the_sdks() -> None:
    sdk = messaging.Message(
        notification=messaging.Notification(title=PUSH.title, body=PUSH.body, image=OPTIONS.image),
        data={**PUSH.data, "message_id": "m-1", "link": PUSH.link},
        android=messaging.AndroidConfig(
            ttl=300,
            collapse_key="spring",
            priority="high",
            notification=messaging.AndroidNotification(
                tag="spring", sound="coin.caf", icon="ic_coin", channel_id="offers", notification_count=3
            ),
        ),
        apns=messaging.APNSConfig(
            headers={
                "apns-collapse-id": "spring",
                "apns-expiration": str(int(NOW.timestamp()) + 300),
                "apns-priority": "10",
            },
            payload=messaging.APNSPayload(messaging.Aps(sound="coin.caf", badge=3, mutable_content=True)),
        ),
        webpush=messaging.WebpushConfig(
            headers={"TTL": "300", "Urgency": "high", "Topic": "spring"},
            notification=messaging.WebpushNotification(tag="spring", image=OPTIONS.image),
            fcm_options=messaging.WebpushFCMOptions(link=PUSH.link),
        ),
    )
    sdk.token = token(1)
    theirs = json.loads(str(sdk))
    theirs["android"]["priority"] = theirs["android"]["priority"].upper()  # FCM accepts both; the description has capitals
    assert optioned(OPTIONS) == theirs


def test_a_payload_that_fcm_would_refuse_is_not_sent() -> None:
    # Two entries to show, one for the app and the tag: names, values and FCM's own overhead for each.
    room = PAYLOAD_BYTES_MAX - ENVELOPE_BYTES - 4 * PAIR_BYTES - len("titlebodymessage_idm-1tagm-1")
    full = "é" * (room // 2) + "x" * (room % 2)
    ADAPTER.build(replace(MESSAGE, content=Push("", full)))
    with pytest.raises(Rejected, match="payload_too_big"):
        ADAPTER.build(replace(MESSAGE, content=Push("", full + "x")))


@pytest.mark.parametrize("pairs", [1, 2, 3])
def test_bytes_are_counted_as_google_counts_them(pairs: int) -> None:
    """Measured: of 4,096 bytes, one data pair leaves 4,051 for name and value, two leave 4,045, three 4,039."""
    seen = {1: 4051, 2: 4045, 3: 4039}[pairs]
    names = "abc"[:pairs]
    data = dict.fromkeys(names, "value") | {"a": "x" * (seen - 5 * (pairs - 1) - pairs)}
    assert payload_bytes({"data": data}) == PAYLOAD_BYTES_MAX


def test_the_largest_platform_decides_the_payload_size() -> None:
    bare, with_badge = (
        payload_bytes({"data": {"a": "b"}}),
        payload_bytes({"data": {"a": "b"}, "apns": {"payload": {"aps": {"badge": 12}}}}),
    )
    assert with_badge == bare + len("aps") + PAIR_BYTES + len("badge12") + PAIR_BYTES
    more = {"data": {"a": "b"}, "apns": {"payload": {"aps": {"badge": 12}}}, "android": {"notification": {"tag": "x" * 90}}}
    assert payload_bytes(more) == bare + len("tag") + 90 + PAIR_BYTES


@given(
    title=st.text(max_size=60),
    size=st.integers(3_000, 4_100),
    sign=st.sampled_from(["x", "é", "€", "\U0001f600"]),
    options=st.sampled_from(
        [PushOptions(), OPTIONS, replace(OPTIONS, sound="s" * 200), replace(OPTIONS, image="https://x.example/" + "i" * 300)]
    ),
)
def test_a_push_message_is_sent_if_and_only_if_it_fits(title: str, size: int, sign: str, options: PushOptions) -> None:
    def leaving(body: str) -> Any:
        push = Push(title, body, link="https://bank.example/x", data={"offer": "1"}, options=options)
        return json.loads(ADAPTER.build(replace(MESSAGE, content=push)).body)["message"]

    body = sign * (size // len(sign.encode()))
    if payload_bytes(leaving("")) + len(body.encode()) <= PAYLOAD_BYTES_MAX:
        assert payload_bytes(leaving(body)) <= PAYLOAD_BYTES_MAX
    else:
        with pytest.raises(Rejected, match="payload_too_big"):
            leaving(body)


def error(code: int, status: str, detail: str = "", message: str = "") -> ChannelError:
    details = [{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": detail}] if detail else []
    body = {"error": {"code": code, "status": status, "message": message, "details": details}}
    result = ADAPTER.parse(HttpResponse(code, (), json.dumps(body).encode()))
    assert isinstance(result, ChannelError)
    return result


def test_a_token_is_suppressed_only_if_fcm_blames_it() -> None:
    about_token = "The registration token is not a valid FCM registration token"
    assert isinstance(error(404, "NOT_FOUND", "UNREGISTERED"), BadAddress)
    assert isinstance(error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", about_token), BadAddress)
    assert isinstance(error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "Invalid TTL"), Rejected)
    assert isinstance(error(400, "INVALID_ARGUMENT", "", about_token), Rejected)
    assert isinstance(error(404, "NOT_FOUND"), Misconfigured)
    assert isinstance(error(400, "BRAND_NEW"), Rejected)


def test_a_quota_without_a_time_waits_a_minute() -> None:
    result = error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
    assert isinstance(result, Throttled)
    assert (result.code, result.retry_after_seconds) == ("QUOTA_EXCEEDED", 60.0)


def test_access_tokens_are_reused_and_renewed_in_time() -> None:
    clock = [datetime.now(UTC)]
    with http_server(lambda request, number: ACCESS_TOKEN if request.path == "/token" else FCM.fine(number)) as server:
        http, base = HttpTransport(timeout_seconds=5), f"http://127.0.0.1:{server.port}"
        fcm = Fcm({**service_account(), "token_uri": f"{base}/token"}, http, base, now=lambda: clock[0])
        for wait in (timedelta(0), timedelta(minutes=50), timedelta(minutes=6)):
            clock[0] += wait
            assert {type(result) for _, result in fcm.send([MESSAGE] * 3, window_of(30))} == {Receipt}
        http.close()
    assert Counter(request.path for request in server.arrived) == {"/token": 2, "/v1/projects/bank/messages:send": 9}
    assert server.arrived[1].headers["authorization"] == "Bearer ya29.x"


def test_a_refused_access_token_is_not_used_again() -> None:
    def script(request: ReceivedRequest, number: int) -> Answer:
        return ACCESS_TOKEN if request.path == "/token" else FCM.wrong_key if number == 2 else FCM.fine(number)

    with http_server(script) as server:
        http, base = HttpTransport(timeout_seconds=5), f"http://127.0.0.1:{server.port}"
        fcm = Fcm({**service_account(), "token_uri": f"{base}/token"}, http, base)
        kinds = [type(result) for _ in range(3) for _, result in fcm.send([MESSAGE], window_of(30))]
        http.close()
    assert kinds == [Misconfigured, Receipt, Receipt]
    assert Counter(request.path == "/token" for request in server.arrived) == {True: 2, False: 3}


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (as_json(400, {"error": "invalid_grant"}), Misconfigured),
        (as_json(200, {"surprise": 1}), Misconfigured),
        (as_json(200, {"access_token": "a\r\nX-Evil: 1", "expires_in": 3600}), Misconfigured),
        (as_json(503, {}), Unavailable),
        (LOST, Unavailable),
        (Answer(b"garbage", close=True), Unavailable),
    ],
    ids=["refused", "no token", "two lines", "busy", "lost", "garbage"],
)
def test_without_an_access_token_nothing_is_sent(answer: Answer, fault: type[ChannelError]) -> None:
    def script(request: ReceivedRequest, _: int) -> Answer:
        return answer if request.path == "/token" else FCM.fine(1)

    with http_server(script) as server:
        http, base = HttpTransport(timeout_seconds=5), f"http://127.0.0.1:{server.port}"
        fcm = Fcm({**service_account(), "token_uri": f"{base}/token"}, http, base)
        assert [type(result) for _, result in fcm.send([MESSAGE, MESSAGE], window_of(30))] == [fault, fault]
        assert isinstance(fcm.check(), fault)
        http.close()
    assert {request.path for request in server.arrived} == {"/token"}

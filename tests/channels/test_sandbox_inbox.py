"""The pages of the sandbox inbox."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from html import unescape
from urllib.parse import parse_qsl, urlencode

import firebase_admin
import pytest
from firebase_admin import messaging
from sendgrid.helpers.mail import Mail, To

from channels.sandbox import SandboxClient
from tests.support.sandbox_clients import (
    SENDER,
    Webhook,
    get,
    make_mail,
    make_push,
    post_mail,
    sendgrid_client,
    twilio_client,
)

HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"


def test_hostile_content_is_escaped(sandbox: SandboxClient, firebase_app: firebase_admin.App) -> None:
    mail = Mail("bank@example.com", To("anne@example.com", HOSTILE), f"Subject {HOSTILE}", HOSTILE, HOSTILE)
    sendgrid_client(sandbox).send(mail)
    twilio_client(sandbox).messages.create(to="+32470000001", from_=SENDER, body=HOSTILE)
    variables = json.dumps({"1": HOSTILE})
    twilio_client(sandbox).messages.create(
        to="whatsapp:+32470000001", from_="whatsapp:" + SENDER, content_sid="HX" + "3" * 32, content_variables=variables
    )
    push = messaging.Notification(HOSTILE, HOSTILE)
    messaging.send(make_push(HOSTILE, notification=push, data={HOSTILE: HOSTILE}), app=firebase_app)
    for path in ("/", "/?q=" + urlencode({"": HOSTILE})[1:], *(f"/messages/{seq}" for seq in range(1, 5))):
        page = get(sandbox, path)
        assert "alert(" in page or path.startswith("/?q")
        assert "<script" not in page
        assert "<img" not in page
    assert 'sandbox="allow-popups allow-popups-to-escape-sandbox"' in get(sandbox, "/messages/1")


def test_messages_are_shown_as_recipients_see_them(sandbox: SandboxClient, firebase_app: firebase_admin.App) -> None:
    sandbox.set_content("HX" + "3" * 32, "Hallo {{1}}, uw ticket naar {{2}}")
    sendgrid_client(sandbox).send(make_mail("anne@example.com"))
    twilio_client(sandbox).messages.create(to="+32470000001", from_=SENDER, body="ç" * 71)
    twilio_client(sandbox).messages.create(
        to="whatsapp:+32470000002",
        from_="whatsapp:" + SENDER,
        content_sid="HX" + "3" * 32,
        content_variables=json.dumps({"1": "Bart", "2": "Gent"}),
    )
    messaging.send(make_push("tok", notification=messaging.Notification("Title", "Body")), app=firebase_app)
    assert "&lt;p&gt;html&lt;/p&gt;" in get(sandbox, "/messages/1")
    assert "2 (UCS-2, 71 characters)" in get(sandbox, "/messages/2")
    assert "Hallo Bart, uw ticket naar Gent" in get(sandbox, "/messages/3")
    assert "Title" in get(sandbox, "/messages/4")
    everything, only_push, found = get(sandbox, "/"), get(sandbox, "/?channel=push"), get(sandbox, "/?q=ANNE%40")
    assert all(f"/messages/{seq}" in everything for seq in range(1, 5))
    assert [f"/messages/{seq}" in only_push for seq in (1, 4)] == [False, True]
    assert [f"/messages/{seq}" in found for seq in (1, 4)] == [True, False]
    assert "bounce" in get(sandbox, "/guide")
    assert "--paper" in get(sandbox, "/inbox.css")


def test_a_picture_shows_its_alt_text_as_where_none_is_loaded(sandbox: SandboxClient) -> None:
    html = '<p><img src="https://b.example/a.png" alt="A &amp; B" style="color:#ffffff"> <img src="data:image/png;base64,AA"></p>'
    sendgrid_client(sandbox).send(Mail("bank@example.com", To("anne@example.com"), "Subject", "text", html))
    shown = unescape(get(sandbox, "/messages/1").partition('srcdoc="')[2].partition('"')[0])
    assert '<p><span style="color:#ffffff">A &amp; B</span> <img src="data:' in shown


def test_only_our_own_page_can_send_a_reply(sandbox: SandboxClient, webhook: Webhook) -> None:
    sandbox.set_events(twilio_inbound_url=webhook.url, delay_seconds=0)
    twilio_client(sandbox).messages.create(to="+32470000001", from_=SENDER, body="x")
    form = urlencode({"seq": 1, "text": "STOP"}).encode()
    for path, body in (("/reply", form), ("/_sandbox/reply", b'{"from":"+32470000001","to":"+1","text":"STOP"}')):
        with pytest.raises(urllib.error.HTTPError):
            get(sandbox, path, body, {"Origin": "https://elsewhere.example"})
    assert "blocked" in get(sandbox, "/reply", form)
    sandbox.wait_for_events()
    assert [dict(parse_qsl(body))["Body"] for _, _, body in webhook.calls] == ["STOP"]


def test_the_list_refreshes_on_request(sandbox: SandboxClient) -> None:
    for path, seconds in (("/?follow=1", "2"), ("/", None)):
        with urllib.request.urlopen(sandbox.url + path) as answer:  # noqa: S310
            assert answer.headers["Refresh"] == seconds


def test_a_push_message_shows_its_platform_options(sandbox: SandboxClient) -> None:
    message = {
        "token": "t-1",
        "notification": {"title": "Hello", "body": "You", "image": "https://bank.example/i.png"},
        "android": {"collapse_key": "spring", "notification": {"notification_count": 3}},
        "apns": {"payload": {"aps": {"sound": "coin.caf"}}},
    }
    body = json.dumps({"message": message}).encode()
    get(sandbox, "/v1/projects/p/messages:send", body, {"Authorization": "Bearer x"})
    page = get(sandbox, "/messages/1")
    for events_seen in ("payload.aps.sound", "coin.caf", "notification.notification_count", "spring", "https://bank.example/i.png"):
        assert events_seen in page
    assert '<b class="badge-count"' in page


def test_arrivals_stay_when_old_content_is_dropped(sandbox: SandboxClient) -> None:
    parts = [{"to": [{"email": f"a{n}@example.com"}]} for n in range(1_000)]
    for _ in range(21):
        post_mail(sandbox, make_mail(personalizations=parts))
    assert sandbox.message(1)["content"] is None
    assert sandbox.message(21_000)["content"]["to"] == [{"email": "a999@example.com"}]
    assert sandbox.counts()["email"] == 21_000
    assert "no longer stored" in get(sandbox, "/messages/1")

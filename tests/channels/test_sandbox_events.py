"""Events that the sandbox posts, checked with the official validators, and replies of people."""

from __future__ import annotations

import json
from urllib.parse import parse_qsl

import pytest
from sendgrid.helpers.eventwebhook import EventWebhook
from twilio.base.exceptions import TwilioRestException
from twilio.request_validator import RequestValidator

from channels.sandbox import SandboxClient
from tests.support.sandbox_clients import (
    ACCOUNT,
    AUTH_TOKEN,
    SENDER,
    Webhook,
    make_mail,
    post_mail,
    sendgrid_client,
    twilio_client,
)


def test_mail_events_verify_with_the_official_validator(sandbox: SandboxClient, webhook: Webhook) -> None:
    sandbox.set_events(sendgrid_url=webhook.url + "/webhooks/sendgrid", delay_seconds=0)
    receipt = sendgrid_client(sandbox).send(make_mail(custom_args={"message": "m-1"})).headers["X-Message-Id"]
    for name in ("bounce", "blocked", "spam", "dropped", "silent"):
        sendgrid_client(sandbox).send(make_mail(f"{name}@example.com"))
    sandbox.wait_for_events()
    validator = EventWebhook(sandbox.sendgrid_webhook_public_key)
    events = []
    for _, headers, body in webhook.calls:
        proof = [headers[f"x-twilio-email-event-webhook-{part}"] for part in ("signature", "timestamp")]
        assert validator.verify_signature(body, *proof)
        assert not validator.verify_signature(body + " ", *proof)
        events += json.loads(body)
    events_seen = [(event["email"].split("@")[0], event["event"], event.get("type")) for event in events]
    assert events_seen == [
        ("anne", "processed", None),
        ("anne", "delivered", None),
        ("bounce", "processed", None),
        ("bounce", "bounce", "bounce"),
        ("blocked", "processed", None),
        ("blocked", "bounce", "blocked"),
        ("spam", "processed", None),
        ("spam", "delivered", None),
        ("spam", "spamreport", None),
        ("dropped", "dropped", None),
    ]
    assert len({event["sg_event_id"] for event in events}) == len(events)
    assert events[0]["message"] == "m-1"
    assert events[0]["sg_message_id"].startswith(receipt + ".")


def test_mail_events_are_posted_in_batches(sandbox: SandboxClient, webhook: Webhook) -> None:
    sandbox.set_events(sendgrid_url=webhook.url, delay_seconds=0)
    parts = [{"to": [{"email": f"a{n}@example.com"}]} for n in range(1_000)]
    post_mail(sandbox, make_mail(personalizations=parts))
    sandbox.wait_for_events()
    sizes = [len(json.loads(body)) for _, _, body in webhook.calls]
    assert sum(sizes) == 2_000
    assert max(sizes) <= 1_000
    assert len(sizes) <= 4


def test_status_callbacks_verify_and_follow_the_number(sandbox: SandboxClient, webhook: Webhook) -> None:
    sandbox.set_events(delay_seconds=0)
    client = twilio_client(sandbox)
    for to, from_ in (
        ("+32470000001", SENDER),
        ("+32460930003", SENDER),
        ("+32460900000", SENDER),
        ("whatsapp:+32470000001", "whatsapp:" + SENDER),
        ("whatsapp:+32460963016", "whatsapp:" + SENDER),
    ):
        client.messages.create(to=to, from_=from_, body="x", status_callback=webhook.url + f"/status?message={to[-3:]}")
        sandbox.wait_for_events()
    validator = RequestValidator(AUTH_TOKEN)
    events_seen: dict[str, list[str]] = {}
    for path, headers, body in webhook.calls:
        form = dict(parse_qsl(body))
        assert validator.validate(webhook.url + path, form, headers["x-twilio-signature"])
        assert not validator.validate(webhook.url + path, form | {"To": "+1"}, headers["x-twilio-signature"])
        events_seen.setdefault(form["To"], []).append(form["MessageStatus"] + form.get("ErrorCode", ""))
    assert events_seen == {
        "+32470000001": ["queued", "sent", "delivered"],
        "+32460930003": ["queued", "sent", "undelivered30003"],
        "+32460900000": ["queued"],
        "whatsapp:+32470000001": ["queued", "sent", "delivered", "read"],
        "whatsapp:+32460963016": ["queued", "sent", "undelivered63016"],
    }


def test_repeated_events_keep_their_ids(sandbox: SandboxClient, webhook: Webhook) -> None:
    sandbox.set_events(sendgrid_url=webhook.url, delay_seconds=0, duplicate_share=1, out_of_order=True)
    for _ in range(10):
        sendgrid_client(sandbox).send(make_mail())
    sandbox.wait_for_events()
    events = [event for _, _, body in webhook.calls for event in json.loads(body)]
    assert len(events) == 40
    assert len({event["sg_event_id"] for event in events}) == 20
    assert [event["event"] for event in events] != ["processed", "processed", "delivered", "delivered"] * 10


def test_a_failed_webhook_call_is_retried(sandbox: SandboxClient, webhook: Webhook) -> None:
    sandbox.set_events(sendgrid_url=webhook.url, delay_seconds=0, retries=2, retry_seconds=0.01)
    webhook.answers += [500, 503, 200, 500, 500, 500]
    for _ in range(2):
        sendgrid_client(sandbox).send(make_mail())
        sandbox.wait_for_events()
    assert sandbox.counts()["events"] == {"posted": 2, "failed": 2, "retried": 4, "dropped": 0, "pending": 0}


def test_a_reply_reaches_the_webhook_and_stop_blocks(sandbox: SandboxClient, webhook: Webhook) -> None:
    sandbox.set_events(twilio_inbound_url=webhook.url + "/inbound", delay_seconds=0)
    client = twilio_client(sandbox)
    client.messages.create(to="+32470000001", from_=SENDER, body="x")
    sandbox.reply("+32470000001", SENDER, "Stop ")
    sandbox.wait_for_events()  # before the next reply, whose call could overtake this one
    sandbox.reply("+32470000001", "whatsapp:" + SENDER, "Hallo", channel="whatsapp")
    sandbox.wait_for_events()
    forms = [dict(parse_qsl(body)) for _, _, body in webhook.calls]
    (path, headers, _), form = webhook.calls[0], forms[0]
    assert RequestValidator(AUTH_TOKEN).validate(webhook.url + path, form, headers["x-twilio-signature"])
    assert (form["From"], form["To"], form["Body"], form["AccountSid"]) == ("+32470000001", SENDER, "Stop ", ACCOUNT)
    assert forms[1]["From"] == "whatsapp:+32470000001"
    with pytest.raises(TwilioRestException) as refused:
        client.messages.create(to="+32470000001", from_=SENDER, body="x")
    assert refused.value.code == 21610
    sandbox.reply("+32470000001", SENDER, "start")
    assert client.messages.create(to="+32470000001", from_=SENDER, body="x").sid

"""Twilio's double keeps the API's contract, checked with the official client."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest
from twilio.base.exceptions import TwilioRestException

from channels.sandbox import SandboxClient, running
from channels.sandbox.segments import count_segments
from tests.support.sandbox_clients import (
    SENDER,
    twilio_client,
)


def test_messages_can_be_sent_listed_and_fetched(sandbox: SandboxClient) -> None:
    client = twilio_client(sandbox)
    callback = "https://bank.example/webhooks/twilio/status?" + urlencode({"message": "m 1"})
    sms = client.messages.create(to="+32470000001", from_=SENDER, body="Vous êtes prêt €", status_callback=callback)
    whatsapp = client.messages.create(
        to="whatsapp:+32470000001",
        messaging_service_sid="MG" + "2" * 32,
        content_sid="HX" + "3" * 32,
        content_variables=json.dumps({"1": "Anne"}),
    )
    assert (sms.status, sms.num_segments, sms.direction, sms.to) == ("queued", "1", "outbound-api", "+32470000001")
    assert sms.date_created is not None
    assert (whatsapp.status, whatsapp.from_, len(whatsapp.sid or "")) == ("accepted", None, 34)
    assert sms.sid != whatsapp.sid
    assert [message.sid for message in client.messages.list(to="+32470000001")] == [sms.sid]
    assert [message.sid for message in client.messages.list()] == [whatsapp.sid, sms.sid]
    assert client.messages.list(to="+32470000001", date_sent_after=sms.date_created.replace(year=2100)) == []
    assert client.messages(sms.sid or "").fetch().body == "Vous êtes prêt €"
    assert [(line["channel"], line["message_id"]) for line in sandbox.log()] == [("sms", "m 1"), ("whatsapp", "")]


def test_ids_are_unique_across_runs(sandbox: SandboxClient) -> None:
    first = twilio_client(sandbox).messages.create(to="+32470000001", from_=SENDER, body="x").sid
    with running() as other:
        second = twilio_client(other).messages.create(to="+32470000001", from_=SENDER, body="x").sid
        assert first != second
        with pytest.raises(TwilioRestException) as unknown:
            twilio_client(other).messages(first or "").fetch()
    assert unknown.value.code == 20404


def test_message_lists_have_pages(sandbox: SandboxClient) -> None:
    client = twilio_client(sandbox)
    sids = [client.messages.create(to="+32470000001", from_=SENDER, body=str(n)).sid for n in range(5)]
    assert [message.sid for message in client.messages.list(to="+32470000001", page_size=2)] == sids[::-1]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"to": "0470000001"}, 21211),
        ({"to": "+15005550001"}, 21211),
        ({"to": "+15005550004"}, 21610),
        ({"to": "+15005550009"}, 21614),
        ({"to": "+32460920429"}, 20429),
        ({"to": "whatsapp:+32460963007", "from_": "whatsapp:" + SENDER}, 63007),
        ({"to": "whatsapp:+32470000001"}, 63007),
        ({"from_": "+15005550008"}, 21611),
        ({"from_": "a name that is too long"}, 21212),
        ({"from_": None}, 21603),
        ({"body": None}, 21602),
        ({"body": "x" * 1601}, 21617),
        ({"body": None, "content_sid": "HX1"}, 21655),
        ({"body": None, "content_sid": "HX" + "3" * 32, "content_variables": '{"1": 1}'}, 21656),
    ],
)
def test_refusals_have_twilios_codes(sandbox: SandboxClient, changes: dict[str, Any], code: int) -> None:
    fields = {"to": "+32470000001", "from_": SENDER, "body": "x"} | changes
    with pytest.raises(TwilioRestException) as refused:
        twilio_client(sandbox).messages.create(**{name: value for name, value in fields.items() if value is not None})
    assert refused.value.code == code
    assert refused.value.status == (429 if code == 20429 else 400)
    assert sandbox.counts()["total"] == 0


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("x" * 160, 1),
        ("x" * 161, 2),
        ("x" * 306, 2),
        ("€" * 80, 1),
        ("x" * 152 + "€" * 5, 2),
        ("x" * 152 + "€" + "x" * 151, 2),
        ("x" * 152 + "€" + "x" * 152, 3),
        ("ç" * 70, 1),
        ("ç" * 71, 2),
        ("é" * 160, 1),
        ("x" * 66 + "👋" + "x" * 65, 2),
        ("x" * 66 + "👋" + "x" * 66, 3),
    ],
)
def test_segments_are_counted_as_carriers_do(text: str, segments: int) -> None:
    assert count_segments(text) == segments

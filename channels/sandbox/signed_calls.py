"""Webhook calls as providers make and sign them, to be sent to our own web application: a reply by SMS, an event about a mail."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from channels.sandbox.client import SandboxClient
from channels.sandbox.events import text_headers

REPLIES_BY, MAIL_EVENTS_BY = "twilio", "sendgrid"  # the providers whose calls these are


@dataclass(frozen=True, slots=True)
class SignedCall:
    """A POST with the provider's signature."""

    url: str
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class MailEvent:
    """An event about an address: SendGrid's name of it, its time (unix seconds), and the message, if any, that it is about."""

    name: str
    id: str
    address: str
    at: int
    message_id: str = ""


def reply(public_url: str, number: str, text: str, sid: str, token: str) -> SignedCall:
    """A reply by SMS from a number. `token`: Twilio's auth token, which signs it."""
    url = f"{public_url}/webhooks/{REPLIES_BY}/inbound"
    form = {"MessageSid": sid, "SmsSid": sid, "From": number, "To": number, "Body": text, "NumMedia": "0"}
    return SignedCall(url, urlencode(form).encode(), text_headers(url, form, token))


def mail_event(public_url: str, event: MailEvent, signed_at: int, sandbox: SandboxClient) -> SignedCall:
    """An event of SendGrid, signed by the sandbox: only who has the private key can. Raises `OSError`, `ValueError`."""
    row: dict[str, Any] = {"event": event.name, "email": event.address, "timestamp": event.at, "sg_event_id": event.id}
    if event.message_id:
        row["message_id"] = event.message_id
    body = json.dumps([row])
    headers = {
        "Content-Type": "application/json",
        "X-Twilio-Email-Event-Webhook-Signature": sandbox.sign_sendgrid(str(signed_at), body),
        "X-Twilio-Email-Event-Webhook-Timestamp": str(signed_at),
    }
    return SignedCall(f"{public_url}/webhooks/{MAIL_EVENTS_BY}", body.encode(), headers)

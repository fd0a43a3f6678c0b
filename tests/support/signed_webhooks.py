"""Signed webhook calls as the providers make them, parsed by our adapters."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twilio.request_validator import RequestValidator

from channels.base import Event
from channels.providers import sendgrid, twilio

NOW = datetime(2026, 11, 23, 11, 0, tzinfo=UTC)
AUTH_TOKEN = "token"
_KEY = ec.generate_private_key(ec.SECP256R1())
_PUBLIC_KEY = base64.b64encode(
    _KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
).decode()


def sendgrid_events(*rows: dict[str, Any], now: datetime = NOW) -> list[Event]:
    """Return the events of one call of SendGrid's event webhook."""
    body, stamp = json.dumps(rows).encode(), str(int(now.timestamp()))
    signature = base64.b64encode(_KEY.sign(stamp.encode() + body, ec.ECDSA(hashes.SHA256()))).decode()
    return sendgrid.parse_events(body, signature, stamp, _PUBLIC_KEY, now)


def twilio_events(
    status: str, code: str = "", message_id: str = "m-1", channel: str = "sms", sid: str = "SM" + "1" * 32, now: datetime = NOW
) -> list[Event]:
    """Return the events of one status callback of Twilio."""
    prefix = "whatsapp:" if channel == "whatsapp" else ""
    form = {"MessageSid": sid, "MessageStatus": status, "To": f"{prefix}+32470000001", "From": f"{prefix}+32460000000"}
    form |= {"ErrorCode": code} if code else {}
    url = f"https://bank.example/webhooks/twilio/status?{urlencode({'message': message_id})}"
    return twilio.parse_events(url, *signed_form(url, form), AUTH_TOKEN, now)


def signed_form(url: str, form: Mapping[str, str]) -> tuple[bytes, str]:
    """Return the body and signature of a Twilio call."""
    return urlencode(form).encode(), RequestValidator(AUTH_TOKEN).compute_signature(url, form)

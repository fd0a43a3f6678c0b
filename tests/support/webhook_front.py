"""The webhooks of a running app, called as the providers call them."""

from __future__ import annotations

import hmac
import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from httpx2 import Response
from starlette.testclient import TestClient

from channels.sandbox.keys import SendGridSigner
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import events as consent
from dispatcher.ledger.delivery.candidates import facts_of
from dispatcher.ledger.maintenance.metrics import metrics
from dispatcher.runtime.services import Services
from dispatcher.web.app import create
from tests.support.services import Broker, Clock, make_services

TOKEN = "a twilio auth token"
SIGNER = SendGridSigner()
KEYS = {"sendgrid": SIGNER.public_key, "twilio": TOKEN, "telnyx": SIGNER.telnyx.public_key}
ANNA = "+32470000001"
NOTHING: Mapping[str, str] = {}


@dataclass
class Front:
    """The webhooks, called as the providers call them."""

    services: Services
    broker: Broker
    client: TestClient
    texts: int = 0

    def sendgrid(self, body: bytes, age_seconds: int = 0, headers: Mapping[str, str] = NOTHING) -> Response:
        timestamp = str(int(self.services.clock().timestamp()) - age_seconds)
        signed = {
            "X-Twilio-Email-Event-Webhook-Timestamp": timestamp,
            "X-Twilio-Email-Event-Webhook-Signature": SIGNER.sign(timestamp, body),
        }
        return self.client.post("/webhooks/sendgrid", content=body, headers={**signed, **headers})

    def twilio(
        self, path: str, fields: Mapping[str, str], signed_path: str | None = None, algorithm: str = "", digest: str = "sha1"
    ) -> Response:
        text = f"{self.services.public_url}{signed_path or path}" + "".join(f"{name}{fields[name]}" for name in sorted(fields))
        signature = b64encode(hmac.digest(TOKEN.encode(), text.encode(), digest)).decode()
        headers = {"X-Twilio-Signature": signature, "Content-Type": "application/x-www-form-urlencoded"}
        if algorithm:
            headers["X-Twilio-Webhooks-Signature-Settings"] = f"key=webhooks_sharedkey_1,algorithm={algorithm}"
        return self.client.post(path, content=urlencode(fields), headers=headers)

    def telnyx(self, call: Mapping[str, Any]) -> Response:
        body, headers = self.telnyx_call(call)
        return self.client.post("/webhooks/telnyx", content=body, headers=headers)

    def telnyx_call(self, call: Mapping[str, Any], signer: SendGridSigner = SIGNER) -> tuple[bytes, dict[str, str]]:
        body, timestamp = json.dumps(call).encode(), str(int(self.services.clock().timestamp()))
        return body, {"Telnyx-Signature-Ed25519": signer.telnyx.sign(timestamp, body), "Telnyx-Timestamp": timestamp}

    def text(self, words: str, sender: str = ANNA, **more: str) -> Response:
        self.texts += 1
        fields = {"MessageSid": f"SM{self.texts}", "From": sender, "Body": words, **more}
        return self.twilio("/webhooks/twilio/inbound", fields)

    def events(self) -> int:
        with lend(self.services.pool) as connection:
            return metrics(connection, self.services.clock()).events_unsettled

    def switch(self, recipient_id: str) -> str:
        with lend(self.services.pool) as connection:
            return consent.preferences(connection, recipient_id).choices["channel:sms_whatsapp"].value

    def banned(self, recipient_id: str) -> set[str]:
        with lend(self.services.pool) as connection:
            return set(facts_of(connection, [recipient_id])[recipient_id].suppressions)


@contextmanager
def open_front(database: str, keys: Mapping[str, str]) -> Iterator[Front]:
    broker = Broker()
    with make_services(database, Clock(), keys) as services, TestClient(create(services, broker)) as client:
        yield Front(services, broker, client)


def event(**fields: Any) -> dict[str, Any]:
    return {"event": "delivered", "sg_event_id": "e-1", "message_id": "202611-1-0-0", "timestamp": 1795431600, **fields}

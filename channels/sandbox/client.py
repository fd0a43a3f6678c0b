"""Client of the control API under `/_sandbox/`, for tests, demo and benchmark."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from channels.sandbox.keys import write_service_account


class SandboxClient:
    """A running sandbox at `url`. Thread-safe: each call opens its own connection."""

    def __init__(self, url: str, trust: ssl.SSLContext | None = None) -> None:
        self.url = url.rstrip("/")
        self._trust = trust

    def log(self, after: int = 0, provider: str = "") -> Iterator[dict[str, Any]]:
        """Yield arrivals with numbers above `after`, oldest first: seq, provider, channel, at (unix seconds), address, message_id
        (the sender's), receipt (the provider's id), digest (of the request's body)."""
        with self._open("GET", f"/_sandbox/log?{urlencode({'after': after, 'provider': provider})}") as response:
            for line in response:
                yield json.loads(line)

    def clear_log(self) -> None:
        self._request("DELETE", "/_sandbox/log")

    def counts(self) -> dict[str, Any]:
        """Return `total`, the count of each channel, and `events` (posted, retried, failed, dropped, pending)."""
        counts: dict[str, Any] = self._request("GET", "/_sandbox/counts")
        return counts

    def message(self, seq: int) -> dict[str, Any]:
        """Return an arrival with its `content` as the recipient sees it (None if the body is no longer stored)."""
        message: dict[str, Any] = self._request("GET", f"/_sandbox/messages/{seq}")
        return message

    def set_faults(self, rules: Sequence[Mapping[str, Any]]) -> None:
        """Replace all fault rules; `channels.sandbox.faults` describes them."""
        self._request("PUT", "/_sandbox/faults", list(rules))

    def set_profile(self, name: str) -> None:
        """Replace all fault rules by a named set (`channels.sandbox.profiles`)."""
        self._request("PUT", f"/_sandbox/profile/{name}")

    def clear_faults(self) -> None:
        self._request("DELETE", "/_sandbox/faults")

    def set_events(self, **settings: object) -> None:
        """Change event settings (`channels.sandbox.events.EventSettings`), such as `sendgrid_url`."""
        self._request("PUT", "/_sandbox/events", settings)

    def refuse_keys(self, keys: Sequence[str]) -> None:
        """Answer these API keys, auth tokens and access tokens with 401, and all others normally."""
        self._request("PUT", "/_sandbox/refused-keys", list(keys))

    def set_content(self, content_sid: str, text: str) -> None:
        """Set the text of a WhatsApp template, with variables {{1}}, {{2}} …, so that messages are shown as recipients see them."""
        self._request("PUT", f"/_sandbox/contents/{content_sid}", {"text": text})

    def set_template_status(self, content_sid: str, status: str, reason: str = "") -> None:
        """Set WhatsApp's status of a template that was created, such as "paused"."""
        self._request("PUT", f"/_sandbox/contents/{content_sid}", {"status": status, "reason": reason})

    def set_review(self, status: str, reason: str = "") -> None:
        """Set what WhatsApp's review answers to the next submissions: "approved" at first."""
        self._request("PUT", "/_sandbox/review", {"status": status, "reason": reason})

    def reply(self, from_: str, to: str, text: str, channel: str = "sms", opt_out_type: str = "", provider: str = "twilio") -> None:
        """Send a reply as the recipient: an inbound webhook call. An opt-out keyword also blocks the number."""
        reply = {"from": from_, "to": to, "text": text, "channel": channel, "opt_out_type": opt_out_type, "provider": provider}
        self._request("POST", "/_sandbox/reply", reply)

    def sign_sendgrid(self, timestamp: str, body: str) -> str:
        """The signature of a call of SendGrid's event webhook."""
        signature: str = self._request("POST", "/_sandbox/sendgrid-signature", {"timestamp": timestamp, "body": body})["signature"]
        return signature

    @property
    def sendgrid_webhook_public_key(self) -> str:
        """The public key of SendGrid's event webhook."""
        key: str = self._request("GET", "/_sandbox/keys")["sendgrid_webhook"]
        return key

    @property
    def telnyx_webhook_public_key(self) -> str:
        """The public key of Telnyx's webhook calls."""
        key: str = self._request("GET", "/_sandbox/keys")["telnyx_webhook"]
        return key

    def service_account(self, path: Path, project: str = "sandbox") -> Path:
        """Write a temporary Google service account whose token endpoint is this sandbox."""
        return write_service_account(path, self.url, project)

    def wait_for_events(self, seconds_max: float = 30.0) -> None:
        """Wait until all events are posted. Raises TimeoutError."""
        end = time.monotonic() + seconds_max
        while self.counts()["events"]["pending"]:
            if time.monotonic() > end:
                raise TimeoutError("events still pending")
            time.sleep(0.02)

    def _request(self, method: str, path: str, document: object = None) -> Any:
        with self._open(method, path, document) as response:
            body = response.read()
        return json.loads(body) if body else None

    def _open(self, method: str, path: str, document: object = None) -> http.client.HTTPResponse:
        """Raises ValueError with the sandbox's message for a refused request, OSError if it cannot be reached."""
        parts = urlsplit(self.url)
        if parts.scheme == "https":
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(parts.netloc, timeout=60, context=self._trust)
        else:
            connection = http.client.HTTPConnection(parts.netloc, timeout=60)
        body = None if document is None else json.dumps(document).encode()
        connection.request(method, path, body, {"Connection": "close"})
        response = connection.getresponse()
        if response.status >= 400:
            with response:
                raise ValueError(f"sandbox: {response.status} {response.read().decode(errors='replace')}")
        return response

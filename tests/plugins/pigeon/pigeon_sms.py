"""Pigeon: SMS through an HTTP API that does not exist. An example of a provider in a package of its own."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from channels.alerts import alert
from channels.base import BadAddress, BadSignature, Channel, ChannelError, Event, EventKind, Outbound, Rejected, Result, Sms
from channels.http import HttpRequest, HttpResponse, HttpTransport, header_lines
from channels.http_adapter import error_from_status, fetch, message_ids, parse_receipt, send_all, utc_now
from channels.registry import AdapterContext, ProviderPlugin, VariableReader, WebhookEndpoint, WebhookItem, WebhookRequest
from channels.send_window import SendWindow
from channels.validation import check_content

NAME = "pigeon"
API = "https://api.pigeon.example"
ERROR_CODES: dict[str, tuple[type[ChannelError], str]] = {
    "no_such_loft": (BadAddress, "the number does not exist"),
    "too_heavy": (Rejected, "text too long"),
}
EVENT_KINDS = {"landed": EventKind.DELIVERED, "lost": EventKind.FAILED}


@dataclass(frozen=True, slots=True)
class PigeonAccount:
    """The settings. Secrets are kept out of its `repr`."""

    key: str = field(repr=False)
    sender: str
    base_url: str = API


class Pigeon:
    """Sends SMS."""

    name = NAME
    channel = Channel.SMS

    def __init__(self, account: PigeonAccount, http: HttpTransport) -> None:
        self._account, self._http = account, http
        self._headers = header_lines({"Authorization": f"Bearer {account.key}", "Content-Type": "application/json"})

    def send(self, batch: Sequence[Outbound], window: SendWindow) -> Iterator[tuple[Outbound, Result]]:
        """See `channels.base.Provider`."""
        return send_all(self._http, batch, self.build, self.parse, window, message_ids)

    def build(self, outbound: Outbound) -> HttpRequest:
        """Return the request of one message."""
        text = check_content(outbound, Channel.SMS, Sms).text
        fields = {"from": outbound.sender or self._account.sender, "to": outbound.address, "text": text, "reference": outbound.id}
        return HttpRequest(f"{self._account.base_url}/messages", self._headers, json.dumps(fields).encode())

    def parse(self, answer: HttpResponse) -> Result:
        """Return what an answer means."""
        if answer.status == 201:
            return parse_receipt(answer.fields().get("id"))
        code = answer.fields().get("error")
        if not isinstance(code, str) or answer.status not in (400, 422):
            return error_from_status(answer, utc_now())
        if code not in ERROR_CODES:
            alert(NAME, "unknown_code", known=False)  # the code itself may repeat a text of the message
            return Rejected("unknown_code")
        error, hint = ERROR_CODES[code]
        return error(code, hint)

    def check(self) -> ChannelError | None:
        """Ask whether the key works."""
        answer = fetch(self._http, HttpRequest(f"{self._account.base_url}/account", self._headers), utc_now)
        return answer if isinstance(answer, ChannelError) else None

    def close(self) -> None:
        """Close connections."""
        self._http.close()


def read_reports(call: WebhookRequest, key: str) -> list[WebhookItem]:
    """Return the delivery reports of a webhook call. Raises BadSignature."""
    expected = hmac.new(key.encode(), call.body, hashlib.sha256).hexdigest()
    if not key or not hmac.compare_digest(call.headers.get("x-pigeon-signature", ""), expected):
        raise BadSignature("the signature is not that of the key")
    report = json.loads(call.body)
    kind = EVENT_KINDS.get(report["status"], EventKind.UNKNOWN)
    return [Event(NAME, report["id"], Channel.SMS, kind, call.now, report["reference"])]


def _read_account(reader: VariableReader) -> PigeonAccount:
    return PigeonAccount(
        reader.secret("PIGEON_KEY", about="the API key"),
        reader.text("PIGEON_SENDER", about="the sender of SMS"),
        reader.url("PIGEON_BASE_URL", API, about="the base URL of the API"),
    )


def _make_adapter(account: PigeonAccount, context: AdapterContext) -> Pigeon:
    return Pigeon(account, context.http)


PLUGIN = ProviderPlugin(
    name=NAME,
    needs={Channel.SMS: ("PIGEON_KEY", "PIGEON_SENDER")},
    variable_prefixes=("PIGEON_",),
    read_account=_read_account,
    make_adapter=_make_adapter,
    endpoints={"reports": WebhookEndpoint(read_reports)},  # /webhooks/pigeon/reports
    webhook_key=lambda account: account.key,
)

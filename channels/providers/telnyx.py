"""SMS through Telnyx's Messages API (v2); delivery reports and inbound messages through its signed webhooks.

Written from Telnyx's public documentation as of November 2026: the API reference of `POST /v2/messages`, the guide to receiving
webhooks and the reference of messaging error codes. Uses no SDK: request and signature are a few lines.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from channels.alerts import alert
from channels.base import (
    BadAddress,
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
    Rejected,
    Result,
    RetryHint,
    Sms,
    Throttled,
)
from channels.event_fields import extra_fields
from channels.http import HttpRequest, HttpResponse, HttpTransport, header_lines
from channels.http_adapter import (
    Clock,
    ErrorCodes,
    error_from_status,
    fetch,
    message_ids,
    parse_receipt,
    retry_after_seconds,
    send_all,
    utc_now,
)
from channels.registry import (
    PHONE_NUMBER,
    SENDER_NAME,
    AdapterContext,
    Pattern,
    ProviderPlugin,
    VariableReader,
    WebhookEndpoint,
    WebhookItem,
    WebhookRequest,
)
from channels.send_window import SendWindow
from channels.signature_age import check_signature_age
from channels.sms_segments import count_segments
from channels.validation import check_content

API = "https://api.telnyx.com"
SEGMENTS_MAX = 10
STOP_CODE = "40300"  # "Blocked due to STOP message"; with another title it says nothing about the person

# Error codes of a refused send. Other codes are `Rejected`: no retry, and the address is not suppressed.
ERROR_CODES: ErrorCodes = {
    "10001": (Misconfigured, "the sender is not active"),
    "10002": (Rejected, "not a number"),
    "10003": (Misconfigured, "the webhook URL"),
    "10004": (Rejected, "a parameter is missing"),
    "10005": (Misconfigured, "no such path or profile"),
    "10006": (Misconfigured, "no such profile, or not ours"),
    "10009": (Misconfigured, "wrong key"),
    "10010": (Misconfigured, "the key may not do this"),
    "10011": (Throttled, "too many requests at once"),
    "10015": (Rejected, "malformed"),
    "10016": (Rejected, "not a number"),
    "20002": (Misconfigured, "the key was revoked"),
    "20006": (Misconfigured, "the key has expired"),
    "20012": (Misconfigured, "account inactive"),
    "20013": (Misconfigured, "account blocked"),
    "20014": (Misconfigured, "account not verified"),
    "20015": (Misconfigured, "messaging is not enabled"),
    "20016": (Misconfigured, "account not verified"),
    "20017": (Misconfigured, "account not verified"),
    "20100": (Misconfigured, "no funds"),
    "40001": (BadAddress, "a landline, or no route"),
    "40012": (BadAddress, "the carrier knows no such number"),
    "40013": (Misconfigured, "the carrier refuses the sender"),
    STOP_CODE: (OptedOut, "replied STOP"),
    "40301": (Rejected, "this number does not accept such a message"),
    "40302": (Rejected, "text too long"),
    "40304": (Rejected, "contents that exclude each other"),
    "40305": (Misconfigured, "the sender is not one of the profile's"),
    "40306": (Misconfigured, "an alphanumeric sender is not set up"),
    "40309": (Rejected, "sending to this country is disabled in the profile"),
    "40310": (NoAddress, "not a number"),
    "40311": (Misconfigured, "the profile's secret"),
    "40312": (Misconfigured, "the profile is disabled"),
    "40313": (Misconfigured, "the profile's secret"),
    "40314": (Misconfigured, "messaging is disabled for the account"),
    "40315": (Misconfigured, "the sender has a bad reputation"),
    "40316": (Rejected, "no text"),
    "40318": (Throttled, "the queue is full"),
    "40319": (Rejected, "no route from this sender to this number"),
    "40320": (Misconfigured, "the sender is not usable yet"),
    "40321": (Misconfigured, "no usable sender in the profile"),
    "40322": (Rejected, "content refused"),
    "40328": (Rejected, "text too long"),
    "40329": (Misconfigured, "the sender is not verified"),
}
# Why a message failed after it was taken. Other codes are FAILED, recorded, with an alert; the address is not suppressed.
_FAILURE_CODES: Mapping[str, EventKind] = {
    "40001": EventKind.BOUNCED,  # a landline, or no route
    "40002": EventKind.FAILED,  # filtered as spam, temporarily
    "40003": EventKind.FAILED,  # filtered as spam, permanently for this sender
    "40004": EventKind.FAILED,  # the carrier gives no reason
    "40005": EventKind.FAILED,  # expired at the carrier
    "40006": EventKind.FAILED,  # the carrier cannot be reached
    "40007": EventKind.FAILED,  # a loop
    "40008": EventKind.FAILED,  # the carrier gives no reason
    "40009": EventKind.FAILED,  # content
    "40010": EventKind.FAILED,  # sender not registered (US)
    "40011": EventKind.FAILED,  # rate
    "40012": EventKind.BOUNCED,  # no such number
    "40013": EventKind.HALTED,  # the carrier refuses the sender
    "40014": EventKind.FAILED,  # expired in the queue
    "40015": EventKind.FAILED,  # filtered by Telnyx
    "40016": EventKind.FAILED,  # daily limit (US)
    "40017": EventKind.FAILED,  # filtered as spam (US)
    "40018": EventKind.FAILED,  # rate (US)
    STOP_CODE: EventKind.FAILED,  # the opt-out is a separate event, see `_events`
    "40312": EventKind.HALTED,  # the profile is disabled
    "40314": EventKind.HALTED,  # messaging is disabled for the account
    "40315": EventKind.HALTED,  # the sender has a bad reputation
    "40321": EventKind.HALTED,  # no usable sender in the profile
    "40322": EventKind.FAILED,  # content
}
# Failures that reached nobody, so the message may be sent again: the wait, and how often. No retry if the carrier does not know
# what happened (40008), if the time was over (40005, 40014), or after a filter.
_MINUTE, _HOUR, _DAY = 60.0, 3_600.0, 86_400.0
_RETRY_HINTS = {
    "40006": RetryHint(4 * _HOUR, 2),
    "40011": RetryHint(_MINUTE, 5),
    "40016": RetryHint(_DAY, 2),
    "40018": RetryHint(_MINUTE, 5),
}
_SOFT_BOUNCE_LIMITS = {"40004": 2, "40008": 3}  # soft bounces: so many in a row mean that the number does not work
_KNOWN_FIELDS = frozenset({"id", "record_type", "direction", "errors", "tags", "media", "cc", "type"})
# Codes that only a person can fix.
_ALERT_CODES = frozenset(
    {"10002", "10004", "10015", "40002", "40003", "40009", "40010", "40015", "40017", "40309", "40316", "40322"}
)
_CODE = re.compile(r"[0-9]{5}")


@dataclass(frozen=True, slots=True)
class TelnyxAccount:
    """A Telnyx account. The sender is a number, or a name, which needs its messaging profile."""

    api_key: str = field(repr=False)
    sms_sender: str
    base_url: str = API
    messaging_profile_id: str = ""
    public_key: str = ""


class Telnyx:
    """The SMS adapter for one account.

    Reports go to `webhook_url`, with the message id as `?message=`. Telnyx has no validity period: a message that was sent in time
    may arrive late.
    """

    name = "telnyx"
    channel = Channel.SMS

    def __init__(self, account: TelnyxAccount, http: HttpTransport, webhook_url: str | None = None, now: Clock = utc_now) -> None:
        profile_id = account.messaging_profile_id
        self._http, self._now, self._webhook_url = http, now, webhook_url
        self._headers = header_lines({"Authorization": f"Bearer {account.api_key}", "Content-Type": "application/json"})
        self._messages_url = f"{account.base_url}/v2/messages"
        self._check_url = f"{account.base_url}/v2/messaging_profiles" + (f"/{profile_id}" if profile_id else "")
        self._sender = {"from": account.sms_sender} | ({"messaging_profile_id": profile_id} if profile_id else {})

    def send(self, batch: Sequence[Outbound], window: SendWindow) -> Iterator[tuple[Outbound, Result]]:
        """One request per message. See `channels.base.Provider`."""
        return send_all(self._http, batch, self.build, self.parse, window, message_ids)

    def build(self, outbound: Outbound) -> HttpRequest:
        """Return the request for one message. Raises Rejected for messages that Telnyx would refuse."""
        text = check_content(outbound, Channel.SMS, Sms).text
        if not 0 < count_segments(text).count <= SEGMENTS_MAX:
            code = "40302" if text else "40316"
            raise Rejected(code, ERROR_CODES[code][1])
        fields: dict[str, Any] = {**self._sender, "to": outbound.address, "text": text, "type": "SMS"}
        if outbound.sender:
            fields["from"] = outbound.sender
        if self._webhook_url:
            webhook_url = f"{self._webhook_url}?message={quote(outbound.id, safe='')}"
            fields |= {"webhook_url": webhook_url, "use_profile_webhooks": False}
        return HttpRequest(self._messages_url, self._headers, json.dumps(fields).encode())

    def parse(self, answer: HttpResponse) -> Result:
        """A 2xx with an id is a receipt; for a 4xx, ERROR_CODES decides by its code."""
        fields = answer.fields()
        if 200 <= answer.status < 300:
            return parse_receipt(_object(fields.get("data")).get("id"))
        code, error_text = _first_error(fields)
        if code is None or not 400 <= answer.status < 500:
            return error_from_status(answer, self._now())
        known = code in ERROR_CODES and (code != STOP_CODE or "stop" in error_text)
        if not known or code in _ALERT_CODES:
            alert(self.name, code, known=known)
        error, hint = ERROR_CODES[code] if known else (Throttled if answer.status == 429 else Rejected, "unknown code")
        if error is Throttled:
            return Throttled(code, hint, retry_after_seconds(answer, self._now()))
        return error(code, hint)

    def check(self) -> ChannelError | None:
        """Fetch the messaging profile, or the list of profiles, and see that it is enabled."""
        answer = fetch(self._http, HttpRequest(self._check_url, self._headers), self._now)
        if isinstance(answer, ChannelError):
            return answer
        return (
            Misconfigured("40312", ERROR_CODES["40312"][1])
            if _object(answer.fields().get("data")).get("enabled") is False
            else None
        )

    def close(self) -> None:
        """Close connections."""
        self._http.close()


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _first(value: object) -> Mapping[str, Any]:
    return _object(value[0]) if isinstance(value, list) and value else {}


def _first_error(holder: Mapping[str, Any]) -> tuple[str | None, str]:
    """Return the code of the first error and Telnyx's message, which must not be passed on."""
    error = _first(holder.get("errors"))
    code = str(error.get("code"))
    return code if _CODE.fullmatch(code) else None, f"{error.get('title')} {error.get('detail')}".lower()


# -- the webhook -------------------------------------------------------------------------------------------------------

_STATUSES: Mapping[str, EventKind] = {
    "scheduled": EventKind.ACCEPTED,
    "queued": EventKind.ACCEPTED,
    "sending": EventKind.ACCEPTED,
    "sent": EventKind.ACCEPTED,
    "delivery_unconfirmed": EventKind.ACCEPTED,  # the carrier sends no reports
    "delivered": EventKind.DELIVERED,
    "expired": EventKind.FAILED,
    "cancelled": EventKind.FAILED,
    "sending_failed": EventKind.FAILED,
    "delivery_failed": EventKind.FAILED,
}


def parse_webhook(body: bytes, signature: str, timestamp: str, public_key: str, now: datetime) -> list[WebhookItem]:
    """Return what one webhook call contains: an event, two if a message failed because of a person's STOP, or an inbound message.

    `signature` and `timestamp` are the values of the telnyx-signature-ed25519 and telnyx-timestamp headers, `public_key` the
    account's, in base64. Raises BadSignature, or BadPayload if the signed body is not an event of a message.
    """
    _verify(body, signature, timestamp, public_key, now)
    try:
        document = _object(json.loads(body))
    except (ValueError, RecursionError):
        raise BadPayload("not JSON") from None
    data = _object(document.get("data"))
    payload = _object(data.get("payload"))
    event_id, message = _text(data.get("id")), _text(payload.get("id"))
    if not event_id or not message:
        raise BadPayload("no id of the event or of the message")
    if data.get("event_type") == "message.received":
        return [_inbound(payload, message)]
    return list(_events(document, payload, event_id, _time(data.get("occurred_at"), now)))


def _verify(body: bytes, signature: str, timestamp: str, public_key: str, now: datetime) -> None:
    check_signature_age(timestamp, now)
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key, validate=True))
        key.verify(base64.b64decode(signature, validate=True), timestamp.encode() + b"|" + body)
    except InvalidSignature:
        raise BadSignature("signature") from None
    except ValueError:  # not base64, or the wrong length
        raise BadSignature("malformed") from None


def _inbound(payload: Mapping[str, Any], message: str) -> InboundText:
    sender = _text(_object(payload.get("from")).get("phone_number"))
    if not sender:
        raise BadPayload("no number of the sender")
    opt_out = _text(payload.get("autoresponse_type"))  # STOP, START or HELP; Telnyx has already answered it
    return InboundText(message, Channel.SMS, sender, _text(payload.get("text")) or "", opt_out)


def _events(document: Mapping[str, Any], payload: Mapping[str, Any], event_id: str, at: datetime) -> Iterator[Event]:
    code, error_text = _first_error(payload)
    recipient = _first(payload.get("to"))
    kind = _kind(_text(recipient.get("status")) or "", code)
    event = Event(
        provider=Telnyx.name,
        id=event_id,
        channel=Channel.SMS,
        kind=kind,
        at=at,
        message_id=_message_id(_text(_object(document.get("meta")).get("delivered_to"))),
        receipt=_text(payload.get("id")),
        code=code,
        retry_hint=_RETRY_HINTS.get(code or "") if kind is EventKind.FAILED else None,
        soft_bounce_limit=_SOFT_BOUNCE_LIMITS.get(code or "") if kind is EventKind.FAILED else None,
        address=_text(recipient.get("phone_number")),
        extra=extra_fields(payload, _KNOWN_FIELDS),
    )
    yield event
    if kind is EventKind.FAILED and code == STOP_CODE and "stop" in error_text:
        yield replace(event, id=f"{event_id}:opted_out", kind=EventKind.OPTED_OUT)


def _kind(status: str, code: str | None) -> EventKind:
    kind = _STATUSES.get(status, EventKind.UNKNOWN)
    if kind is not EventKind.FAILED or code is None:
        return kind
    if code not in _FAILURE_CODES or code in _ALERT_CODES:
        alert(Telnyx.name, code, known=code in _FAILURE_CODES)
    return _FAILURE_CODES.get(code, kind)


def _message_id(delivered_to: str | None) -> str | None:
    """Return our id, from the URL in the signed body. The URL that was called is not signed."""
    try:
        return next(iter(parse_qs(urlsplit(delivered_to or "").query).get("message", [])), None)
    except ValueError:
        return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _time(value: object, now: datetime) -> datetime:
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return now
    return moment if moment.tzinfo else now


# -- the plugin ----------------------------------------------------------------------------------------------------------

SENDER = Pattern(
    re.compile(rf"{PHONE_NUMBER}|{SENDER_NAME}"), "a number like +32470000000, or a name of at most 11 letters, digits and spaces"
)
PROFILE = Pattern(re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "the profile's id, 36 characters")
PUBLIC_KEY = Pattern(re.compile(r"[A-Za-z0-9+/]{43}="), "the public key that Telnyx shows, 44 characters")


def _read_account(reader: VariableReader) -> TelnyxAccount:
    account = TelnyxAccount(
        api_key=reader.secret("TELNYX_API_KEY", about="the API key"),
        base_url=reader.url("TELNYX_BASE_URL", API, about="the base URL of the API"),
        sms_sender=reader.matching("TELNYX_SMS_SENDER", SENDER, about="the sender of SMS; a name needs the messaging profile"),
        messaging_profile_id=reader.matching("TELNYX_MESSAGING_PROFILE_ID", PROFILE, about="the messaging profile"),
        public_key=reader.matching("TELNYX_PUBLIC_KEY", PUBLIC_KEY, about="verifies webhook calls"),
    )
    if account.sms_sender and not account.sms_sender.startswith("+") and not account.messaging_profile_id:
        reader.fault("TELNYX_MESSAGING_PROFILE_ID is missing: a name as TELNYX_SMS_SENDER belongs to a messaging profile.")
    return account


def _make_adapter(account: TelnyxAccount, context: AdapterContext) -> Telnyx:
    return Telnyx(account, context.http, context.webhook_url)


def _read_webhook(call: WebhookRequest, key: str) -> list[WebhookItem]:
    signature, timestamp = (call.headers.get(f"telnyx-{name}", "") for name in ("signature-ed25519", "timestamp"))
    return parse_webhook(call.body, signature, timestamp, key, call.now)


def _warnings(account: TelnyxAccount) -> Iterator[str]:
    if not account.public_key:
        yield "TELNYX_PUBLIC_KEY is missing: delivery reports and inbound messages cannot be verified and are refused."


PLUGIN = ProviderPlugin(
    name=Telnyx.name,
    needs={Channel.SMS: ("TELNYX_API_KEY", "TELNYX_SMS_SENDER")},
    variable_prefixes=("TELNYX_",),
    read_account=_read_account,
    make_adapter=_make_adapter,
    endpoints={"": WebhookEndpoint(_read_webhook)},
    webhook_key=lambda account: account.public_key,
    warnings=_warnings,
)

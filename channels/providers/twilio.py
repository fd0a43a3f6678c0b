"""SMS and WhatsApp through Twilio's Messages API; status callbacks and inbound messages through its signed webhooks.

The official SDK parses errors and gives the URL and headers of a request: a custom `HttpClient` captures the request that the SDK
would send. The form is built here, with the same fields as the SDK's.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache, partial
from html import escape
from logging import WARNING, getLogger
from typing import NoReturn
from urllib.parse import parse_qs, quote, urlencode, urljoin, urlsplit

from twilio.base.version import Version
from twilio.http import HttpClient
from twilio.http.response import Response as SdkResponse
from twilio.request_validator import HMAC_SHA1, HMAC_SHA256, RequestValidator, get_signature_algorithm
from twilio.rest import Client

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
    ProviderRecord,
    Rejected,
    Result,
    RetryHint,
    Sms,
    Throttled,
    Uncertain,
    WhatsApp,
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
    WebhookRequest,
)
from channels.send_window import SendWindow
from channels.twilio_content import TwilioContent
from channels.urlencoded import encode_value
from channels.validation import check_content, check_one_line

API = "https://api.twilio.com"
CONTENT_API = "https://content.twilio.com"
BODY_CHARACTERS_MAX = 1600
LIST_SIZE = 1000  # the largest page of a list
LIST_PAGES_MAX = 3  # if an address got more in that time, a person must look
TTL_SECONDS_MAX = 36_000
_WAIT_SECONDS = {"21611": 300.0}  # ten hours of messages wait for this sender: wait some minutes

SERVICE_SID = r"MG[0-9a-fA-F]{32}"
_SERVICE_SID = re.compile(SERVICE_SID)

# Error codes of a refused send. Twilio advises against much logic on codes because they change. Other codes are `Rejected`: no
# retry, and the address is not suppressed.
ERROR_CODES: ErrorCodes = {
    "20003": (Misconfigured, "wrong account, key or token"),
    "20404": (Misconfigured, "no such account or path"),
    "20429": (Throttled, "too many requests at once"),
    "21211": (NoAddress, "not a number"),
    "21212": (Misconfigured, "invalid sender"),
    "21265": (BadAddress, "a short code"),
    "21266": (BadAddress, "recipient and sender are the same"),
    "21268": (BadAddress, "a premium number"),
    "21408": (Rejected, "sending to this country is disabled in the account"),
    "21602": (Rejected, "no text"),
    "21603": (Rejected, "no sender"),
    "21604": (Rejected, "no recipient"),
    "21606": (Misconfigured, "this sender cannot send there"),
    "21608": (Misconfigured, "trial account"),
    "21610": (OptedOut, "replied STOP"),
    "21611": (Throttled, "the sender's queue is full"),
    "21612": (Rejected, "no route from this sender to this number"),
    "21614": (BadAddress, "not a mobile number"),
    "21617": (Rejected, "text too long"),
    "21635": (BadAddress, "a landline"),
    "21655": (Misconfigured, "invalid ContentSid"),
    "21656": (Rejected, "content variables are not an object of strings"),
    "21658": (Rejected, "a parameter is too long"),
    "21659": (Misconfigured, "the sender is not a number of Twilio's"),
    "21660": (Misconfigured, "the sender belongs to another account"),
    "21661": (Misconfigured, "the sender cannot send SMS"),
    "21703": (Misconfigured, "no usable sender in the messaging service"),
    "21705": (Misconfigured, "invalid messaging service"),
    "63007": (Misconfigured, "no such WhatsApp sender"),
    "63033": (BadAddress, "the person blocked us on WhatsApp"),
}


getLogger("twilio").setLevel(WARNING)  # the SDK logs request bodies at INFO

# -- building through the SDK ------------------------------------------------------------------------------------------


class _RequestCaptured(Exception):
    def __init__(self, url: str, data: dict[str, object], headers: dict[str, str], auth: tuple[str, str]) -> None:
        super().__init__()
        self.url, self.data, self.headers, self.auth = url, data, headers, auth


class _CapturingClient(HttpClient):  # type: ignore[misc]  # the SDK ships no types
    """The SDK's interface for custom HTTP clients: captures the request that the SDK would send, and sends nothing."""

    def __init__(self) -> None:
        super().__init__(getLogger(__name__), is_async=False)

    def request(
        self,
        method: str,  # noqa: ARG002 - the SDK's signature
        uri: str,
        params: dict[str, object] | None = None,  # noqa: ARG002
        data: dict[str, object] | None = None,
        headers: dict[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        timeout: float | None = None,  # noqa: ARG002
        allow_redirects: bool = False,  # noqa: ARG002
    ) -> NoReturn:
        raise _RequestCaptured(uri, data or {}, headers or {}, auth or ("", ""))


def _capture(call: Callable[[], object]) -> _RequestCaptured:
    try:
        call()
    except _RequestCaptured as captured:
        return captured
    raise AssertionError("the SDK sent no request")


@dataclass(frozen=True, slots=True)
class TwilioAccount:
    """A Twilio account. A sender is a number, the SID (MG…) of a messaging service, or for SMS an alphanumeric name."""

    account_sid: str
    auth_token: str = field(repr=False)
    sms_sender: str = ""
    whatsapp_sender: str = ""
    base_url: str = API
    content_base_url: str = CONTENT_API

    def sender(self, channel: Channel) -> str:
        """The sender of this channel."""
        return self.sms_sender if channel is Channel.SMS else self.whatsapp_sender


class Twilio:
    """The adapter for one channel of an account: `TwilioSms` or `TwilioWhatsApp`.

    An outbound may name another sender of the account. Status callbacks go to `callback_url`, with the message id as `?message=`.
    """

    name = "twilio"

    def __init__(
        self,
        channel: Channel,
        account: TwilioAccount,
        http: HttpTransport,
        callback_url: str | None = None,
        now: Clock = utc_now,
    ) -> None:
        self.channel = channel
        self._http, self._now = http, now
        self._callback = b"&StatusCallback=" + encode_value(f"{callback_url}?message=") if callback_url else b""
        environment = {
            "TWILIO_ACCOUNT_SID": account.account_sid
        }  # instead of the process environment, which could set a region or edge
        self._client = Client(account.account_sid, account.auth_token, http_client=_CapturingClient(), environment=environment)
        self._client.api.base_url = account.base_url
        self._sender = _sender_field(channel, account.sender(channel))
        self._messages_url = _capture(partial(self._client.messages.create, to="", body="")).url
        fetch = _capture(self._client.api.accounts(account.account_sid).fetch)
        self._account_url = fetch.url
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        self._headers = header_lines(fetch.headers | _basic_auth(*fetch.auth) | form)

    def send(self, batch: Sequence[Outbound], window: SendWindow) -> Iterator[tuple[Outbound, Result]]:
        """One request per message. See `channels.base.Provider`."""
        return send_all(self._http, batch, self.build, self.parse, window, message_ids)

    def build(self, outbound: Outbound) -> HttpRequest:
        """Return the request that the SDK would send. Raises Rejected for messages that Twilio would refuse."""
        form = _FORMS_BY_CHANNEL[self.channel](outbound)
        if outbound.ttl_seconds is not None:
            form += b"&ValidityPeriod=%d" % min(max(1, outbound.ttl_seconds), TTL_SECONDS_MAX)
        if self._callback:
            form += self._callback + encode_value(quote(outbound.id, safe=""))
        form += _sender_field(self.channel, outbound.sender) if outbound.sender else self._sender
        return HttpRequest(self._messages_url, self._headers, form)

    def parse(self, answer: HttpResponse) -> Result:
        """A 2xx with a SID is a receipt; for a 4xx, ERROR_CODES decides by its code."""
        if 200 <= answer.status < 300:
            return parse_receipt(answer.fields().get("sid"))
        return read_error(answer, self._now())

    def check(self) -> ChannelError | None:
        """Fetch the account and see that it is active."""
        answer = fetch(self._http, HttpRequest(self._account_url, self._headers), self._now)
        if isinstance(answer, ChannelError):
            return answer
        return None if answer.fields().get("status") == "active" else Misconfigured("account_not_active")

    def look_up(self, address: str, since: datetime) -> Sequence[ProviderRecord] | ChannelError:
        """See `channels.base.SupportsLookup`. Filters by number only, newest first: a queued message has no sending date yet."""
        to = f"whatsapp:{address}" if self.channel is Channel.WHATSAPP else address
        path = f"{urlsplit(self._messages_url).path}?{urlencode({'To': to, 'PageSize': LIST_SIZE})}"
        records: list[ProviderRecord] = []
        for _ in range(LIST_PAGES_MAX):
            answer = fetch(self._http, HttpRequest(urljoin(self._messages_url, path), self._headers), self._now)
            if isinstance(answer, ChannelError):
                return answer
            page = answer.fields()
            try:
                page_records = [self._record(row) for row in page["messages"]]
            except (KeyError, TypeError, ValueError, AttributeError):
                return Uncertain("unreadable")
            records += [record for record in page_records if record is not None and record.at >= since]
            path = str(page.get("next_page_uri") or "")
            if not path.startswith("/2010-04-01/") or any(record is not None and record.at < since for record in page_records):
                return records
        return Rejected("too_many_messages")

    def _record(self, row: Mapping[str, object]) -> ProviderRecord | None:
        """Return a row of the list, with the events that a status callback would give; None for an inbound message."""
        if row.get("direction") == "inbound":
            return None
        sid, status, error = str(row["sid"]), str(row["status"]).lower(), str(row.get("error_code") or "")
        created = parsedate_to_datetime(str(row["date_created"]))
        event = _event(sid, status, error, str(row["to"]), self.channel, created)
        return ProviderRecord(sid, created, str(row.get("body") or ""), tuple(_with_opt_out(event)))

    def close(self) -> None:
        """Close connections."""
        self._http.close()


TwilioSms = partial(Twilio, Channel.SMS)
TwilioWhatsApp = partial(Twilio, Channel.WHATSAPP)


def read_error(answer: HttpResponse, now: datetime) -> ChannelError:
    """Return what a refusal means; alert a code that needs a person."""
    code = _error_code(answer)
    if code is None or not 400 <= answer.status < 500:
        return error_from_status(answer, now)
    if code not in ERROR_CODES or code in _ALERT_CODES:
        alert(Twilio.name, code, known=code in ERROR_CODES)
    error, hint = ERROR_CODES.get(code) or (Throttled if answer.status == 429 else Rejected, "unknown code")
    if error is Throttled:
        wait = retry_after_seconds(answer, now)
        return Throttled(code, hint, _WAIT_SECONDS.get(code) if wait is None else wait)
    return error(code, hint)


def _sms_form(outbound: Outbound) -> bytes:
    text = _check_body(check_content(outbound, Channel.SMS, Sms).text)
    return b"To=%b&Body=%b" % (encode_value(outbound.address), encode_value(text))


def _check_body(text: str) -> str:
    """Return the text. Raises Rejected if Twilio would refuse it."""
    if not text or len(text) > BODY_CHARACTERS_MAX:
        code = "21617" if text else "21602"
        raise Rejected(code, ERROR_CODES[code][1])
    return text


def _whatsapp_form(outbound: Outbound) -> bytes:
    content = check_content(outbound, Channel.WHATSAPP, WhatsApp)
    to = encode_value(f"whatsapp:{outbound.address}")
    if content.text:
        return b"To=%b&Body=%b" % (to, encode_value(_check_body(content.text)))
    sid = encode_value(check_one_line(content.content_sid, "content_sid"))
    return b"To=%b&ContentSid=%b&ContentVariables=%b" % (to, sid, encode_value(_encode_json(dict(content.variables))))


# Built by hand: the SDK's `create` costs more than the rest of a hand-off. Tests compare our bytes with the SDK's.
_FORMS_BY_CHANNEL: Mapping[Channel, Callable[[Outbound], bytes]] = {Channel.SMS: _sms_form, Channel.WHATSAPP: _whatsapp_form}
_encode_json = json.JSONEncoder(ensure_ascii=False).encode  # `json.dumps` makes an encoder for each call


@lru_cache(maxsize=256)  # few senders
def _sender_field(channel: Channel, sender: str) -> bytes:
    if _SERVICE_SID.fullmatch(sender):
        return b"&MessagingServiceSid=" + encode_value(sender)
    return b"&From=" + encode_value(sender if channel is Channel.SMS else f"whatsapp:{sender.removeprefix('whatsapp:')}")


def _basic_auth(user: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()}


def _error_code(answer: HttpResponse) -> str | None:
    """Return Twilio's code, as the SDK reads it from either error format; None if there is none."""
    error = Version.exception("POST", "", SdkResponse(answer.status, answer.body.decode(errors="replace")), "")
    return str(error.code) if isinstance(error.code, int) and error.code >= 10_000 else None


# -- the webhooks ------------------------------------------------------------------------------------------------------

_STATUSES = {
    "accepted": EventKind.ACCEPTED,
    "scheduled": EventKind.ACCEPTED,
    "queued": EventKind.ACCEPTED,
    "sending": EventKind.ACCEPTED,
    "sent": EventKind.ACCEPTED,
    "delivered": EventKind.DELIVERED,
    "read": EventKind.READ,
    "undelivered": EventKind.FAILED,
    "failed": EventKind.FAILED,
    "canceled": EventKind.FAILED,
}
# Why a message failed after it was taken. Other codes are FAILED, recorded, with an alert; the address is not suppressed.
_FAILURE_CODES = {
    "21610": EventKind.FAILED,  # replied STOP: the opt-out is a separate event, see `parse_events`
    "21703": EventKind.HALTED,  # no usable sender in the messaging service
    "30001": EventKind.FAILED,  # the service's queue overflowed
    "30002": EventKind.HALTED,  # account suspended
    "30003": EventKind.FAILED,  # phone off or no signal
    "30004": EventKind.FAILED,  # blocked by the carrier or a do-not-call list
    "30005": EventKind.BOUNCED,  # unknown or no longer in service
    "30006": EventKind.BOUNCED,  # landline or unreachable carrier
    "30007": EventKind.FAILED,  # filtered as spam
    "30008": EventKind.FAILED,  # the carrier gives no reason
    "30022": EventKind.FAILED,  # rate
    "30023": EventKind.FAILED,  # daily cap
    "30032": EventKind.FAILED,  # number not verified (US)
    "30034": EventKind.FAILED,  # number not registered (US)
    "30036": EventKind.FAILED,  # its validity period ended
    "30410": EventKind.UNKNOWN,  # the carrier timed out: it may have arrived
    "30450": EventKind.FAILED,  # blocked for some minutes against SMS pumping
    "63001": EventKind.HALTED,  # unknown WhatsApp account
    "63003": EventKind.BOUNCED,  # not on WhatsApp
    "63005": EventKind.FAILED,  # content refused
    "63012": EventKind.FAILED,  # internal error of WhatsApp
    "63013": EventKind.FAILED,  # against a policy
    "63015": EventKind.FAILED,  # Twilio's own sandbox: the person has not joined
    "63016": EventKind.FAILED,  # free text outside the 24-hour window
    "63017": EventKind.FAILED,  # rate
    "63018": EventKind.FAILED,  # rate
    "63019": EventKind.FAILED,  # media
    "63021": EventKind.FAILED,  # content invalid
    "63024": EventKind.BOUNCED,  # no WhatsApp, or its terms not accepted
    "63027": EventKind.FAILED,  # no such template in that language
    "63028": EventKind.FAILED,  # number of parameters
    "63030": EventKind.FAILED,  # parameter not supported
    "63032": EventKind.FAILED,  # the person is part of an experiment without marketing
    "63033": EventKind.BOUNCED,  # the person blocked us there
    "63036": EventKind.FAILED,  # RCS out of reach
    "63038": EventKind.FAILED,  # daily limit of the account
    "63041": EventKind.FAILED,  # template paused
    "63049": EventKind.FAILED,  # Meta chose not to deliver this marketing message
    "63051": EventKind.HALTED,  # WhatsApp account locked
}
# Failures that reached nobody, so the message may be sent again: the wait, and how often. No retry if the provider does not know
# what happened (30008, 30410) or the time was over (30036).
_MINUTE, _HOUR, _DAY = 60.0, 3_600.0, 86_400.0
_RETRY_HINTS = {
    "30001": RetryHint(5 * _MINUTE, 5),
    "30003": RetryHint(4 * _HOUR, 2),
    "30022": RetryHint(_MINUTE, 5),
    "30023": RetryHint(_DAY, 2),
    "30450": RetryHint(30 * _MINUTE, 2),
    "63012": RetryHint(_MINUTE, 3),
    "63017": RetryHint(_MINUTE, 5),
    "63018": RetryHint(_HOUR, 5),  # too fast, or the limit of the portfolio, which lasts hours
    "63038": RetryHint(_DAY, 2),
    "63049": RetryHint(_DAY, 2),
}
_NO_RETRY_IN_US = "63049"  # Meta: do not send such a message again to a US number
# Soft bounces: so many in a row mean that the address does not work.
_SOFT_BOUNCE_LIMITS = {"30003": 3, "30004": 2}
# Codes that only a person can fix: settings of countries, numbers and templates, filters, policies.
_ALERT_CODES = frozenset(
    {"21408", "21602", "21603", "21604", "21656", "30007", "30032", "30034", "63013", "63015", "63027", "63028", "63030", "63041"}
)
_CODE = re.compile(r"[0-9]{5}")
_ALGORITHMS = frozenset({HMAC_SHA1, HMAC_SHA256})
_KNOWN_FIELDS = frozenset({"MessageSid", "MessageStatus", "ErrorCode", "SmsSid", "SmsStatus", "AccountSid", "ApiVersion"})


def parse_events(url: str, body: bytes, signature: str, auth_token: str, now: datetime, algorithm: str = HMAC_SHA1) -> list[Event]:
    """Return the event of one status callback; two events if the message failed because of a person's STOP.

    `url` is the public URL that Twilio called, with its query; `body` is the raw form; `now` is used as the event's time, because
    Twilio sends none; `algorithm` is what the call names. Raises BadSignature, or BadPayload if SID or status is missing.
    """
    form = _verify_form(url, body, signature, auth_token, algorithm)
    sid, status, error = form.get("MessageSid", ""), form.get("MessageStatus", "").lower(), form.get("ErrorCode", "")
    if not sid or not status:
        raise BadPayload("no MessageSid or MessageStatus")
    to, message_id = form.get("To", ""), next(iter(parse_qs(urlsplit(url).query).get("message", [])), None)
    event = _event(sid, status, error, to, _channel(to, form.get("From", "")), now)
    return _with_opt_out(replace(event, message_id=message_id, extra=extra_fields(form, _KNOWN_FIELDS)))


def _with_opt_out(event: Event) -> list[Event]:
    """Return the event; two if it failed because of a person's STOP: the failure and the opt-out."""
    if event.kind is not EventKind.FAILED or event.code != "21610":
        return [event]
    return [event, replace(event, id=f"{event.id}:opted_out", kind=EventKind.OPTED_OUT)]


def _event(sid: str, status: str, error: str, to: str, channel: Channel, at: datetime) -> Event:
    code = error if _CODE.fullmatch(error) else None
    kind = _kind(status, code)
    failed = code if kind is EventKind.FAILED and code else ""
    retry_hint = _RETRY_HINTS.get(failed)
    if failed == _NO_RETRY_IN_US and to.removeprefix("whatsapp:").startswith("+1"):
        retry_hint = None
    return Event(
        provider=Twilio.name,
        id=":".join(filter(None, (sid, status, code))),
        channel=channel,
        kind=kind,
        at=at,
        receipt=sid,
        code=code,
        retry_hint=retry_hint,
        soft_bounce_limit=_SOFT_BOUNCE_LIMITS.get(failed),
        address=to.removeprefix("whatsapp:") or None,
    )


def _kind(status: str, code: str | None) -> EventKind:
    kind = _STATUSES.get(status, EventKind.UNKNOWN)
    if kind is not EventKind.FAILED or code is None:
        return kind
    if code not in _FAILURE_CODES or code in _ALERT_CODES:
        alert(Twilio.name, code, known=code in _FAILURE_CODES)
    return _FAILURE_CODES.get(code, kind)


def parse_inbound(url: str, body: bytes, signature: str, auth_token: str, algorithm: str = HMAC_SHA1) -> InboundText:
    """Return the message of one inbound call. Arguments and errors as for `parse_events`."""
    form = _verify_form(url, body, signature, auth_token, algorithm)
    sid, sender = form.get("MessageSid", ""), form.get("From", "")
    if not sid or not sender:
        raise BadPayload("no MessageSid or From")
    address = sender.removeprefix("whatsapp:")
    opt_out = form.get("OptOutType", "").strip().upper() or None
    return InboundText(sid, _channel(sender), address, form.get("Body", ""), opt_out, form.get("ButtonPayload"))


class _FormFields(dict[str, list[str]]):
    """A form whose fields may repeat, with the interface that the SDK's validator needs."""

    def getlist(self, name: str) -> list[str]:
        return self[name]


def _verify_form(url: str, body: bytes, signature: str, auth_token: str, algorithm: str) -> dict[str, str]:
    """Verify the signature over public URL and fields, and return the first value of each field."""
    if algorithm.upper() not in _ALGORITHMS:
        raise BadSignature("algorithm")
    try:
        form = _FormFields(parse_qs(body.decode(), keep_blank_values=True, strict_parsing=bool(body)))
        valid = RequestValidator(auth_token).validate(url, form, signature, algorithm)
    except (ValueError, TypeError, AttributeError):  # what the SDK raises for missing or unexpected parts
        raise BadSignature("malformed") from None
    if not valid:
        raise BadSignature("signature")
    return {name: values[0] for name, values in form.items()}


def _channel(*addresses: str) -> Channel:
    return Channel.WHATSAPP if any(address.startswith("whatsapp:") for address in addresses) else Channel.SMS


EMPTY_TWIML = "<?xml version='1.0' encoding='UTF-8'?><Response/>"


def twiml_response(text: str | None) -> str:
    """Return the TwiML response to an inbound call: one message back to the sender, or an empty response."""
    return (
        EMPTY_TWIML
        if text is None
        else EMPTY_TWIML.replace("<Response/>", f"<Response><Message>{escape(text)}</Message></Response>")
    )


# -- the plugin ----------------------------------------------------------------------------------------------------------

SID = Pattern(re.compile(r"AC[0-9a-fA-F]{32}"), "AC and 32 hex digits")
SENDER = Pattern(
    re.compile(rf"{PHONE_NUMBER}|{SERVICE_SID}|{SENDER_NAME}"),
    "a number like +32470000000, a name of at most 11 letters, digits and spaces with a letter in it, or MG and 32 hex digits",
)
WHATSAPP_SENDER = Pattern(
    re.compile(rf"(?:whatsapp:)?{PHONE_NUMBER}|{SERVICE_SID}"), "a number like +32470000000, or MG and 32 hex digits"
)
_KEYS = ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN")


def _read_account(reader: VariableReader) -> TwilioAccount:
    return TwilioAccount(
        account_sid=reader.matching("TWILIO_ACCOUNT_SID", SID, about="the account"),
        auth_token=reader.secret("TWILIO_AUTH_TOKEN", about="the account's token; also verifies webhook calls"),
        base_url=reader.url("TWILIO_BASE_URL", API, about="the base URL of the API"),
        content_base_url=reader.url(
            "TWILIO_CONTENT_BASE_URL", CONTENT_API, about="the base URL of the Content API, which keeps WhatsApp templates"
        ),
        sms_sender=reader.matching("TWILIO_SMS_SENDER", SENDER, about="the sender of SMS"),
        whatsapp_sender=reader.matching(
            "TWILIO_WHATSAPP_SENDER", WHATSAPP_SENDER, about="the sender of WhatsApp messages"
        ).removeprefix("whatsapp:"),
    )


def _make_adapter(account: TwilioAccount, context: AdapterContext) -> Twilio:
    return Twilio(context.channel, account, context.http, f"{context.webhook_url}/status")


def _make_template_client(account: TwilioAccount, http: HttpTransport) -> TwilioContent:
    credentials = _basic_auth(account.account_sid, account.auth_token)
    return TwilioContent(
        account.account_sid, account.content_base_url, credentials, http, lambda answer: read_error(answer, utc_now())
    )


def _signature(call: WebhookRequest) -> str:
    return call.headers.get("x-twilio-signature", "")


def _algorithm(call: WebhookRequest) -> str:
    """The algorithm that the call names; HMAC_SHA1 where it names none."""
    return str(get_signature_algorithm(call.headers.get("x-twilio-webhooks-signature-settings", "")))


def _read_status(call: WebhookRequest, token: str) -> list[Event]:
    return parse_events(call.url, call.body, _signature(call), token, call.now, _algorithm(call))


def _read_inbound(call: WebhookRequest, token: str) -> list[InboundText]:
    return [parse_inbound(call.url, call.body, _signature(call), token, _algorithm(call))]


PLUGIN = ProviderPlugin(
    name=Twilio.name,
    needs={Channel.SMS: (*_KEYS, "TWILIO_SMS_SENDER"), Channel.WHATSAPP: (*_KEYS, "TWILIO_WHATSAPP_SENDER")},
    variable_prefixes=("TWILIO_",),
    read_account=_read_account,
    make_adapter=_make_adapter,
    endpoints={
        "status": WebhookEndpoint(_read_status),
        "inbound": WebhookEndpoint(_read_inbound, lambda text: (twiml_response(text), "text/xml")),
    },
    webhook_key=lambda account: account.auth_token,
    preferred=True,
    make_template_client=_make_template_client,
)

"""E-mail through SendGrid: Mail Send v3, and the signed event webhook. The official SDK makes headers and verifies signatures."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from typing import Any

from sendgrid import SendGridAPIClient
from sendgrid.helpers.eventwebhook import EventWebhook

from channels.alerts import alert
from channels.base import (
    BadPayload,
    BadSignature,
    Channel,
    ChannelError,
    Event,
    EventKind,
    MailTemplate,
    MergedEmail,
    Misconfigured,
    Outbound,
    Rejected,
    Result,
    RetryHint,
    TextTemplate,
    Throttled,
)
from channels.event_fields import extra_fields
from channels.http import HttpRequest, HttpResponse, HttpTransport, header_lines
from channels.http_adapter import DATA_ERRORS, Clock, error_from_status, fetch, parse_receipt, send_all, utc_now
from channels.mail_batching import MailBatch, email_of, group_mails, own_text, single
from channels.registry import AdapterContext, Pattern, ProviderPlugin, VariableReader, WebhookEndpoint, WebhookRequest
from channels.send_window import SendWindow
from channels.sendgrid_lists import read_lists
from channels.signature_age import check_signature_age
from channels.suppression_lists import ListedByProvider
from channels.validation import check_mail

API = "https://api.sendgrid.com"
MAILS_PER_REQUEST = 100  # so many messages are unresolved if an answer is lost: no more than after a killed worker
MAILS_PER_REQUEST_MAX = 1_000

_FIELD = re.compile(r"[a-z0-9_.]{1,80}")
# Tracking rewrites links, including the one-click unsubscribe link.
_TRACKING_OFF = json.dumps({"click_tracking": {"enable": False, "enable_text": False}, "open_tracking": {"enable": False}})


def _ids(batch: MailBatch) -> tuple[str, ...]:
    return tuple(mail.id for mail in batch.mails)


class SendGrid:
    """The e-mail adapter. `check` reads the key's own scopes, which every key may do."""

    name = "sendgrid"
    channel = Channel.EMAIL

    def __init__(
        self,
        api_key: str,
        http: HttpTransport,
        base_url: str = API,
        now: Clock = utc_now,
        mails_per_request: int = MAILS_PER_REQUEST,
    ) -> None:
        self._http, self._now = http, now
        self._mails_max = min(max(1, mails_per_request), MAILS_PER_REQUEST_MAX)
        sdk = SendGridAPIClient(api_key).client
        self._headers = header_lines(sdk.request_headers | {"Content-Type": "application/json"})
        self._send_url = f"{base_url.rstrip('/')}/v3/mail/send"
        self._base_url = base_url
        self._scopes_url = f"{base_url.rstrip('/')}/v3/scopes"

    def send(self, batch: Sequence[Outbound], window: SendWindow) -> Iterator[tuple[Outbound, Result]]:
        """Send mails in few requests. Mails of one request share its result, except for a refusal. See `channels.base.Provider`.

        SendGrid refuses a whole request for one bad mail in it. A refused request took nothing, so it is sent again in halves,
        until each bad mail is alone.
        """
        valid: list[Outbound] = []
        for outbound in batch:
            refusal = self._refusal(outbound)
            if refusal is None:
                valid.append(outbound)
            else:
                yield outbound, refusal
        waiting = list(group_mails(valid, self._mails_max))
        while waiting:
            halves: list[MailBatch] = []
            for sent, result in send_all(self._http, waiting, self.build_batch, self.parse, window, _ids):
                if isinstance(result, Rejected) and len(sent.mails) > 1:
                    halves += sent.halves()
                else:
                    yield from ((outbound, result) for outbound in sent.mails)
            waiting = halves

    def build(self, outbound: Outbound) -> HttpRequest:
        """Return the mail/send request for one mail. Raises Rejected for mails that SendGrid would refuse or could misread."""
        check_mail(outbound)
        return self.build_batch(single(outbound))

    def build_batch(self, batch: MailBatch) -> HttpRequest:
        """Return the mail/send request for a batch."""
        return HttpRequest(self._send_url, self._headers, _request_body(batch).encode())

    def _refusal(self, outbound: Outbound) -> Rejected | None:
        """Return why this mail cannot be sent in any batch, or None."""
        try:
            check_mail(outbound)
            own_text(outbound).encode()
        except Rejected as refusal:
            return refusal.with_traceback(None)  # its stack frames hold the message
        except DATA_ERRORS as error:
            return Rejected("unbuildable", type(error).__name__)
        return None

    def parse(self, answer: HttpResponse) -> Result:
        """202 with X-Message-Id is a receipt; 202 without one is `Uncertain` until an event with our id resolves it."""
        if answer.status == 202:
            return parse_receipt(answer.header("X-Message-Id"))
        if answer.status == 429:
            return Throttled("http_429", retry_after_seconds=self._reset_seconds(answer))
        field, message = _first_error(answer)
        if answer.status == 401 and "credits" in message:  # the same status as a wrong key; a person must buy or wait
            return Misconfigured("credits_exceeded", "no mails left in the plan")
        if answer.status == 400:
            return Rejected("http_400", field)
        if answer.status == 415:
            return Rejected("http_415", "the request was not JSON")
        return error_from_status(answer, self._now())

    def check(self) -> ChannelError | None:
        """Read the key's scopes and look for the right to send."""
        answer = fetch(self._http, HttpRequest(self._scopes_url, self._headers), self._now)
        if isinstance(answer, ChannelError):
            return answer
        scopes = answer.fields().get("scopes")
        return None if isinstance(scopes, list) and "mail.send" in scopes else Misconfigured("no_mail_send_scope")

    def suppression_lists(self, since: datetime | None) -> Iterator[Sequence[ListedByProvider] | ChannelError]:
        """Yield the entries of SendGrid's lists. The key needs the right to read suppressions."""
        return read_lists(self._http, self._headers, self._base_url, since, self._now)

    def close(self) -> None:
        """Close connections."""
        self._http.close()

    def _reset_seconds(self, answer: HttpResponse) -> float | None:
        reset = answer.header("X-RateLimit-Reset") or ""  # SendGrid sends a unix time and documents no Retry-After
        if not (reset.isascii() and reset.isdigit()):
            fallback = error_from_status(answer, self._now())
            return fallback.retry_after_seconds if isinstance(fallback, Throttled) else None
        return min(max(0.0, int(reset) - self._now().timestamp()), 3600.0)


# Built by hand: the SDK's objects cost several times as much as the JSON. Tests compare our bytes with the SDK's. For a merged
# e-mail only the values are encoded, because the JSON of the fixed text is cached; any other mail is one value per part.
_PLAIN_TEMPLATE = MailTemplate(*(TextTemplate(("", ""), (gap,)) for gap in range(3)))


def _request_body(batch: MailBatch) -> str:
    mail = batch.shared or email_of(batch.mails[0])
    template, values = (
        (mail.template, mail.values) if isinstance(mail, MergedEmail) else (_PLAIN_TEMPLATE, (mail.subject, mail.html, mail.text))
    )
    people = [_personalization(*each) for each in zip(batch.mails, batch.values_by_tag, strict=True)]
    return _request_template(template).fill(
        [*_json_escape(values), _sender(mail.sender_name, mail.sender_address, mail.reply_to), json.dumps(people)]
    )


@lru_cache(maxsize=256)  # templates; a campaign has a few
def _request_template(template: MailTemplate) -> TextTemplate:
    """Return the request body for mails of a template. After the mail's values come its sender (-2) and personalizations (-1)."""
    literals, gaps = [""], list[int]()
    for part in (
        TextTemplate(('{"from": ', ', "subject": "'), (-2,)),
        _escape(template.subject),
        TextTemplate(('", "personalizations": ', ', "content": [{"type": "text/plain", "value": "'), (-1,)),
        _escape(template.text),  # first: clients show the last part that they support
        TextTemplate(('"}, {"type": "text/html", "value": "',), ()),
        _escape(template.html),
        TextTemplate((f'"}}], "tracking_settings": {_TRACKING_OFF}}}',), ()),
    ):
        literals[-1] += part.literals[0]
        literals += part.literals[1:]
        gaps += part.gaps
    return TextTemplate(tuple(literals), tuple(gaps))


def _escape(part: TextTemplate) -> TextTemplate:
    return TextTemplate(tuple(_json_escape(part.literals)), part.gaps)


def _json_escape(texts: Sequence[str]) -> list[str]:
    """Return the texts as the inside of JSON strings. All at once: one by one costs several times as much."""
    escaped = encode_basestring_ascii("\0".join(texts))[1:-1].split("\\u0000")
    return escaped if len(escaped) == len(texts) else [encode_basestring_ascii(text)[1:-1] for text in texts]


@lru_cache(maxsize=256)
def _sender(name: str, address: str, reply_to: str) -> str:
    """Return the value of `from`, and the field `reply_to` after it where there is one."""
    sender = json.dumps({"name": name, "email": address})
    return f'{sender}, "reply_to": {json.dumps({"email": reply_to})}' if reply_to else sender


def _personalization(outbound: Outbound, values: Mapping[str, str]) -> dict[str, Any]:
    part: dict[str, Any] = {"to": [{"email": outbound.address}]}
    if headers := email_of(outbound).headers:
        part["headers"] = dict(headers)
    if values:
        part["substitutions"] = values
    part["custom_args"] = {"message_id": outbound.id}
    return part


def _first_error(answer: HttpResponse) -> tuple[str, str]:
    """Return the field with the error, as a path of names, and SendGrid's message, which must not be passed on."""
    errors = answer.fields().get("errors")
    first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
    field, message = str(first.get("field")), str(first.get("message"))
    return field if _FIELD.fullmatch(field) else "", message.lower()


# -- the event webhook -------------------------------------------------------------------------------------------------

_KINDS = {
    "processed": EventKind.ACCEPTED,
    "deferred": EventKind.DEFERRED,
    "delivered": EventKind.DELIVERED,
    "bounce": EventKind.BOUNCED,
    "dropped": EventKind.FAILED,
    "spamreport": EventKind.COMPLAINED,
    "unsubscribe": EventKind.OPTED_OUT,
    "group_unsubscribe": EventKind.OPTED_OUT,
    "group_resubscribe": EventKind.OPTED_IN,
    "open": EventKind.ENGAGED,
    "click": EventKind.ENGAGED,
}
# Why SendGrid dropped a mail before sending it. Any other reason is not because of the address, and gives an alert.
_DROPPED_UNSUBSCRIBED = "dropped_unsubscribed"
_DROP_REASONS = {
    "bounced address": (EventKind.BOUNCED, "dropped_bounced"),
    "invalid": (EventKind.BOUNCED, "dropped_invalid"),
    "unsubscribed address": (EventKind.FAILED, _DROPPED_UNSUBSCRIBED),  # the opt-out is a separate event, see `_events`
    "spam reporting address": (EventKind.COMPLAINED, "dropped_spam_report"),
    "spam content": (EventKind.FAILED, "dropped_spam_content"),
    "recipient list over package quota": (EventKind.HALTED, "dropped_over_quota"),
    "invalid smtpapi header": (EventKind.HALTED, "dropped_invalid_header"),
}
_BLOCKED_RETRY = RetryHint(4 * 3_600.0, 1)  # the receiving server did not take mail from us at that time
# SendGrid suspended the account: it queues mail for 72 hours and then drops it. The report names no person. Other changes of the
# account's status are unknown events, with an alert.
_SUSPENDED = "compliance_suspend"
_KNOWN_FIELDS = frozenset({"event", "sg_event_id", "sg_message_id", "message_id", "timestamp"})
_ENHANCED_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")


def parse_events(body: bytes, signature: str, timestamp: str, public_key: str, now: datetime) -> list[Event]:
    """Return the events of one webhook call. An entry that cannot be read costs only itself, and gives an alert.

    `signature` and `timestamp` are the values of the X-Twilio-Email-Event-Webhook- headers, `public_key` the base64 key
    of the account's settings. Raises BadSignature, or BadPayload if the signed body is not a list.
    """
    _verify(body, signature, timestamp, public_key, now)
    try:
        rows = json.loads(body)
    except (ValueError, RecursionError):
        raise BadPayload("not JSON") from None
    if not isinstance(rows, list):
        raise BadPayload("not a list")
    return [event for row in rows for event in _readable_events(row, now)]


def _readable_events(row: object, now: datetime) -> list[Event]:
    """The events of one entry; none, with an alert, where it is not an object or has odd fields."""
    try:
        if isinstance(row, dict):
            return _events(row, now)
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError):
        pass  # the error's text may repeat the entry
    alert(SendGrid.name, "unreadable_event", known=False)
    return []


def _verify(body: bytes, signature: str, timestamp: str, public_key: str, now: datetime) -> None:
    check_signature_age(timestamp, now)
    try:
        valid = _verifier(public_key).verify_signature(body.decode(), signature, timestamp)
    except Exception:  # not base64, not UTF-8, not a key of this kind: the SDK raises a different exception for each
        raise BadSignature("malformed") from None
    if not valid:
        raise BadSignature("signature")


@lru_cache(maxsize=4)
def _verifier(public_key: str) -> Any:
    return EventWebhook(public_key)


def _events(row: Mapping[str, Any], now: datetime) -> list[Event]:
    """Return the event of a row; two events if the mail was dropped because its reader had unsubscribed."""
    event = _event(row, now)
    if event.code != _DROPPED_UNSUBSCRIBED:
        return [event]
    return [event, replace(event, id=f"{event.id}:opted_out", kind=EventKind.OPTED_OUT)]


def _event(row: Mapping[str, Any], now: datetime) -> Event:
    kind, code = _kind(row)
    blocked = code is not None and _word(row, "event") == "bounce" and kind is EventKind.FAILED
    return Event(
        provider=SendGrid.name,
        id=_text(row, "sg_event_id") or hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest(),
        channel=Channel.EMAIL,
        kind=kind,
        at=_time(row.get("timestamp"), now),
        message_id=_text(row, "message_id"),
        receipt=(_text(row, "sg_message_id") or "").split(".")[0] or None,  # X-Message-Id, then routing information
        code=code,
        retry_hint=_BLOCKED_RETRY if blocked else None,
        address=_one_text(row.get("email")),
        extra=extra_fields(row, _KNOWN_FIELDS),
    )


def _kind(row: Mapping[str, Any]) -> tuple[EventKind, str | None]:
    name = _word(row, "event")
    if name == "dropped":
        known = _DROP_REASONS.get(_word(row, "reason"))
        if known is None:
            alert(SendGrid.name, "dropped", known=False)
        return known or (EventKind.FAILED, "dropped")
    if name == "bounce":
        status = (_text(row, "status") or "").strip()
        blocked = _word(row, "type") == "blocked"  # a temporary refusal, because of content or reputation: the address works
        default = "blocked" if blocked else "bounce"
        code = status if _ENHANCED_STATUS.fullmatch(status) else default
        return (EventKind.FAILED if blocked else EventKind.BOUNCED), code
    if name == "account_status_change" and _word(row, "type") == _SUSPENDED:
        alert(SendGrid.name, _SUSPENDED)
        return EventKind.HALTED, _SUSPENDED
    if name not in _KINDS:
        alert(SendGrid.name, "unknown_event", known=False)  # its name is left out: it could be anything
    return _KINDS.get(name, EventKind.UNKNOWN), None


def _text(row: Mapping[str, Any], key: str) -> str | None:
    value = row.get(key)
    return value if isinstance(value, str) and value else None


def _word(row: Mapping[str, Any], key: str) -> str:
    """A word of SendGrid's in small letters: an opt-out is not lost for a capital or a blank."""
    return (_one_text(row.get(key)) or "").strip().lower()


def _one_text(value: object) -> str | None:
    """A text, also as the only one of a list."""
    only = value[0] if isinstance(value, list) and len(value) == 1 else value
    return only if isinstance(only, str) and only else None


def _time(value: object, now: datetime) -> datetime:
    try:
        return datetime.fromtimestamp(int(str(value)), UTC)
    except (ValueError, OverflowError, OSError):
        return now


# -- the plugin ----------------------------------------------------------------------------------------------------------

# The fixed first bytes of every P-256 public key in DER; the 65 bytes after them are the point.
_P256 = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
WEBHOOK_KEY = Pattern(
    re.compile(re.escape(base64.b64encode(_P256[:24]).decode()) + r"[A-Za-z0-9+/]{90}[A-Za-z0-9+/=]{2}"),
    "the verification key that SendGrid shows, 124 characters that begin with MFkw",
)
_HEADERS = "x-twilio-email-event-webhook-"


@dataclass(frozen=True, slots=True)
class SendGridAccount:
    """A SendGrid account. `webhook_public_key` (base64 DER) verifies the signatures of the event webhook."""

    api_key: str = field(repr=False)
    base_url: str
    webhook_public_key: str
    mails_per_request: int


def _read_account(reader: VariableReader) -> SendGridAccount:
    return SendGridAccount(
        api_key=reader.secret("SENDGRID_API_KEY", about="the API key"),
        base_url=reader.url("SENDGRID_BASE_URL", API, about="the base URL of the API"),
        webhook_public_key=reader.matching("SENDGRID_WEBHOOK_PUBLIC_KEY", WEBHOOK_KEY, about="verifies calls of the event webhook"),
        mails_per_request=int(
            reader.number(
                "SENDGRID_MAILS_PER_REQUEST",
                MAILS_PER_REQUEST,
                least=1,
                most=MAILS_PER_REQUEST_MAX,
                about="mails in one request; so many are unresolved after a crash",
            )
        ),
    )


def _make_adapter(account: SendGridAccount, context: AdapterContext) -> SendGrid:
    return SendGrid(account.api_key, context.http, account.base_url, mails_per_request=account.mails_per_request)


def _read_webhook(call: WebhookRequest, key: str) -> list[Event]:
    signature, timestamp = (call.headers.get(f"{_HEADERS}{name}", "") for name in ("signature", "timestamp"))
    return parse_events(call.body, signature, timestamp, key, call.now)


def _warnings(account: SendGridAccount) -> Iterator[str]:
    if not account.webhook_public_key:
        yield "SENDGRID_WEBHOOK_PUBLIC_KEY is missing: reports of bounces and complaints cannot be verified and are refused."


PLUGIN = ProviderPlugin(
    name=SendGrid.name,
    needs={Channel.EMAIL: ("SENDGRID_API_KEY",)},
    variable_prefixes=("SENDGRID_",),
    read_account=_read_account,
    make_adapter=_make_adapter,
    endpoints={"": WebhookEndpoint(_read_webhook)},
    webhook_key=lambda account: account.webhook_public_key,
    warnings=_warnings,
    messages_per_request=lambda account: account.mails_per_request,
    preferred=True,
)

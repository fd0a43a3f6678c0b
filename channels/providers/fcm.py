"""Push messages through the HTTP v1 API of Firebase Cloud Messaging. The official SDK manages the credentials."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from firebase_admin import credentials
from google.auth import exceptions as auth_exceptions
from google.auth import transport
from msgspec.json import encode

from channels.base import (
    BadAddress,
    Channel,
    ChannelError,
    Misconfigured,
    Outbound,
    Push,
    PushOptions,
    Receipt,
    Rejected,
    Result,
    Throttled,
    Unavailable,
)
from channels.http import HttpRequest, HttpResponse, HttpTransport, header_lines
from channels.http_adapter import (
    Clock,
    ErrorCodes,
    error_from_status,
    message_ids,
    parse_receipt,
    retry_after_seconds,
    send_all,
    utc_now,
)
from channels.registry import AdapterContext, ProviderPlugin, VariableReader
from channels.send_window import SendWindow
from channels.validation import check_content

API = "https://fcm.googleapis.com"
PAYLOAD_BYTES_MAX = 4096
TTL_SECONDS_MAX = 28 * 24 * 3600
RETRY_AFTER_SECONDS = 60.0  # Google's minimum wait if a quota answer has no Retry-After
TOKEN_RENEWAL = timedelta(minutes=5)

OTHER_PROJECT_TOKENS_MIN = 5

_OTHER_PROJECT = "SENDER_ID_MISMATCH"
_FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"

# By FcmError's code, else by the status in Google's error body. INTERNAL and UNAVAILABLE are Google's own "try again", in a
# complete and readable answer. If the first push message was sent after all, the second one replaces it on the device (`tag`).
ERROR_CODES: ErrorCodes = {
    "UNREGISTERED": (BadAddress, "app removed or token replaced"),
    _OTHER_PROJECT: (BadAddress, "the token belongs to another project"),
    "QUOTA_EXCEEDED": (Throttled, "quota of project, device or topic"),
    "RESOURCE_EXHAUSTED": (Throttled, "quota"),
    "UNAVAILABLE": (Unavailable, "overloaded"),
    "INTERNAL": (Unavailable, "internal error"),
    "THIRD_PARTY_AUTH_ERROR": (Misconfigured, "the key for APNs or web push"),
    "UNAUTHENTICATED": (Misconfigured, "our credential"),
    "PERMISSION_DENIED": (Misconfigured, "API disabled or role missing"),
    "INVALID_ARGUMENT": (Rejected, "an error in the message"),
}


class Fcm:
    """The push adapter. `account` is the path of a service account's key file, or its content.

    Access tokens come from the credential's `token_uri`, over the same transport, and are reused until shortly before they expire.
    """

    name = "fcm"
    channel = Channel.PUSH

    def __init__(self, account: str | Mapping[str, Any], http: HttpTransport, base_url: str = API, now: Clock = utc_now) -> None:
        certificate = credentials.Certificate(account if isinstance(account, str) else dict(account))
        self._http, self._now = http, now
        self._credential = certificate.get_credential()
        self._headers: tuple[str, ...] = ()
        self._renewal = datetime.min.replace(tzinfo=UTC)
        self._url = f"{base_url.rstrip('/')}/v1/projects/{certificate.project_id}/messages:send"

    def send(self, batch: Sequence[Outbound], window: SendWindow) -> Iterator[tuple[Outbound, Result]]:
        """One request per device. See `channels.base.Provider`."""
        if fault := self._authorize():
            yield from ((outbound, fault) for outbound in batch)
            return
        other_project: list[tuple[Outbound, Result]] = []
        for outbound, result in send_all(self._http, batch, self.build, self.parse, window, message_ids):
            if isinstance(result, BadAddress) and result.code == _OTHER_PROJECT:
                other_project.append((outbound, result))
            else:
                yield outbound, result
        # Many tokens of another project at once: our project key is wrong, and no token may be suppressed because of it.
        key_is_wrong = len(other_project) >= OTHER_PROJECT_TOKENS_MIN and 2 * len(other_project) > len(batch)
        wrong_project = Misconfigured(_OTHER_PROJECT, "probably the key of another project")
        yield from ((outbound, wrong_project if key_is_wrong else result) for outbound, result in other_project)

    def build(self, outbound: Outbound) -> HttpRequest:
        """Return the messages:send request for one device. Raises Rejected for messages that FCM would refuse."""
        message = _message(outbound, check_content(outbound, self.channel, Push), self._now())
        return HttpRequest(self._url, self._headers, encode({"message": message}))

    def parse(self, answer: HttpResponse) -> Result:
        """A 200 with a name is a receipt; else ERROR_CODES decides by the FcmError's code or the error's status."""
        fields = answer.fields()
        if answer.status == 200:
            return parse_receipt(fields.get("name"))
        code, message = _error(fields)
        if answer.status == 401:
            self._renewal = datetime.min.replace(tzinfo=UTC)  # do not use a revoked token again
        if code not in ERROR_CODES or answer.status < 400:
            return self._throttled("http_429", "", answer) if answer.status == 429 else error_from_status(answer, self._now())
        error, hint = ERROR_CODES[code]
        if error is Throttled:
            return self._throttled(code, hint, answer)
        if code == "INVALID_ARGUMENT" and "registration token" in message:
            return BadAddress(code, "not a registration token")
        return error(code, hint)

    def check(self) -> ChannelError | None:
        """Fetch an access token and let FCM validate, without sending, a message to a topic."""
        if fault := self._authorize():
            return fault
        body = json.dumps({"validate_only": True, "message": {"topic": "dispatcher-check", "data": {"check": "1"}}})
        answer = self._http.request(HttpRequest(self._url, self._headers, body.encode()))
        result = self.parse(answer) if isinstance(answer, HttpResponse) else answer
        return None if isinstance(result, Receipt) else result

    def close(self) -> None:
        """Close connections."""
        self._http.close()

    def _throttled(self, code: str, hint: str, answer: HttpResponse) -> Throttled:
        wait = retry_after_seconds(answer, self._now())
        return Throttled(code, hint, RETRY_AFTER_SECONDS if wait is None else wait)

    def _authorize(self) -> ChannelError | None:
        """Make sure that `_headers` hold a valid access token."""
        if self._now() < self._renewal:
            return None
        try:
            self._credential.refresh(_TokenTransport(self._http))
            fields = {"Authorization": f"Bearer {self._credential.token}", "Content-Type": "application/json"}
            self._headers = header_lines(fields)
        except auth_exceptions.TransportError:
            return Unavailable("no_access_token", "the token server gave no usable answer")
        except Exception:  # google-auth raises RefreshError for a refusal, and other exceptions for unexpected answers
            return Misconfigured("no_access_token", "the service account's key was refused")
        expiry = self._credential.expiry or self._now().replace(tzinfo=None)
        self._renewal = expiry.replace(tzinfo=UTC) - TOKEN_RENEWAL
        return None


class _TokenTransport(transport.Request):
    """google-auth's interface for custom transports. Its retries sleep for seconds, so a temporary error ends this attempt."""

    def __init__(self, http: HttpTransport) -> None:
        self._http = http

    def __call__(
        self,
        url: str,
        method: str = "GET",  # noqa: ARG002 - google-auth's signature
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,  # noqa: ARG002
        **_: Any,
    ) -> _TokenResponse:
        answer = self._http.request(HttpRequest(url, header_lines(headers or {}), body or b""))
        if not isinstance(answer, HttpResponse) or answer.status >= 500 or answer.status in {408, 429}:
            raise auth_exceptions.TransportError("no usable answer")  # type: ignore[no-untyped-call]
        return _TokenResponse(answer.status, answer.body)


@dataclass(frozen=True, slots=True)
class _TokenResponse:
    """An answer as google-auth expects it."""

    status: int
    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


# Built by hand: the SDK's objects cost several times as much as the JSON. Tests compare our bytes with the SDK's.
def _message(outbound: Outbound, push: Push, now: datetime) -> dict[str, Any]:
    options = push.options
    ttl = _ttl_seconds(outbound.ttl_seconds, options.ttl_seconds)
    option_fields = _options_fields(options, ttl)
    # The tag lets a repeated push message replace the first one on the device. There is no collapse key unless the template sets
    # one: FCM keeps at most four of them per device and drops other waiting messages.
    tag = options.collapse_key or outbound.id
    data = {**push.data, "message_id": outbound.id}
    if push.link:
        data["link"] = push.link
    message: dict[str, Any] = {
        "token": outbound.address,
        "notification": {"title": push.title, "body": push.body, **option_fields.common},
        "data": data,
        "android": {**option_fields.android, "notification": {"tag": tag, **option_fields.on_android}},
        "apns": {**option_fields.apns, "headers": {"apns-collapse-id": tag, **option_fields.to_apns}},
        "webpush": {**option_fields.webpush, "notification": {"tag": tag, **option_fields.in_browsers}},
    }
    if ttl is not None:
        message["apns"]["headers"]["apns-expiration"] = str(int(now.timestamp()) + ttl)
    if push.link.startswith("https://"):
        message["webpush"]["fcm_options"] = {"link": push.link}
    characters = len(push.title) + len(push.body) + len(tag) + sum(len(name) + len(value) for name, value in data.items())
    _check_size(message, option_fields, characters)
    return message


@dataclass(frozen=True, slots=True)
class _OptionsFields:
    """Fields that follow from the options and the time to live. `bytes_counted` is at least the number that FCM counts of them."""

    common: Mapping[str, Any]
    android: Mapping[str, Any]
    on_android: Mapping[str, Any]
    apns: Mapping[str, Any]
    to_apns: Mapping[str, str]
    webpush: Mapping[str, Any]
    in_browsers: Mapping[str, Any]
    bytes_counted: int


@lru_cache(maxsize=1024)
def _options_fields(options: PushOptions, ttl: int | None) -> _OptionsFields:
    image = _set_fields(image=options.image)
    aps = _set_fields(sound=options.sound, badge=options.badge)
    if options.image:
        aps["mutable-content"] = 1  # lets the app's notification extension fetch the image
    on_android = _set_fields(
        sound=options.sound, icon=options.icon, channel_id=options.android_channel, notification_count=options.badge
    )
    to_browsers = _set_fields(TTL=None if ttl is None else str(ttl), Urgency=options.priority, Topic=options.collapse_key)
    return _OptionsFields(
        common=image,
        android=_set_fields(
            collapse_key=options.collapse_key,
            priority=options.priority.upper(),
            ttl=None if ttl is None else f"{ttl}s",
        ),
        on_android=on_android,
        apns={"payload": {"aps": aps}} if aps else {},
        to_apns=_set_fields(**{"apns-priority": {"high": "10", "normal": "5"}.get(options.priority)}),
        webpush={"headers": to_browsers} if to_browsers else {},
        in_browsers=image,
        bytes_counted=sum(map(_count_bytes, ({"title": "", "body": "", "tag": ""}, image, on_android, {"aps": aps}, image))),
    )


def _set_fields(**fields: object) -> dict[str, Any]:
    """Return the fields that are set."""
    return {name: value for name, value in fields.items() if value not in ("", None)}


def _ttl_seconds(*requested: int | None) -> int | None:
    """Return the shortest of the requested times, within FCM's limits."""
    times = [seconds for seconds in requested if seconds is not None]
    return min(max(0, min(times)), TTL_SECONDS_MAX) if times else None


def _check_size(message: Mapping[str, Any], option_fields: _OptionsFields, characters: int) -> None:
    """Raise Rejected for a payload over the limit. Counts exactly only if an upper bound, 4 bytes a character, is too high."""
    upper_bound = ENVELOPE_BYTES + option_fields.bytes_counted + PAIR_BYTES * len(message["data"]) + 4 * characters
    if upper_bound > PAYLOAD_BYTES_MAX and payload_bytes(message) > PAYLOAD_BYTES_MAX:
        raise Rejected("payload_too_big", "FCM takes at most 4,096 bytes")


# Google's page of error codes says that keys and values count. Measurements byte by byte found a limit 39 bytes lower, and 6 more
# bytes for each pair, for Google's own encoding. Fields for one platform are sent to that one only, so the largest counts.
ENVELOPE_BYTES, PAIR_BYTES = 39, 6


def payload_bytes(message: Mapping[str, Any]) -> int:
    """Return how many bytes of a message FCM counts towards its limit of 4,096."""
    android, apns, webpush = (message.get(platform, {}) for platform in ("android", "apns", "webpush"))
    platforms = (android.get("notification", {}), apns.get("payload", {}), webpush.get("notification", {}))
    common = _count_bytes(message.get("notification", {})) + _count_bytes(message.get("data", {}))
    return ENVELOPE_BYTES + common + max(map(_count_bytes, platforms))


def _count_bytes(fields: Mapping[str, Any]) -> int:
    return sum(
        len(name.encode()) + PAIR_BYTES + (_count_bytes(value) if isinstance(value, Mapping) else len(str(value).encode()))
        for name, value in fields.items()
    )


def _error(fields: Mapping[str, Any]) -> tuple[str, str]:
    """Return the error's code and, if there is an FcmError detail, Google's message, which must not be passed on.

    Without that detail the error is about the request (BadRequest), even if the message mentions tokens.
    """
    error = fields.get("error")
    error = error if isinstance(error, dict) else {}
    details = error.get("details")
    for detail in details if isinstance(details, list) else []:
        if isinstance(detail, dict) and detail.get("@type") == _FCM_ERROR:
            return str(detail.get("errorCode")), str(error.get("message")).lower()
    return str(error.get("status")), ""


# -- the plugin ----------------------------------------------------------------------------------------------------------

_KEY_FILE = "GOOGLE_APPLICATION_CREDENTIALS"


@dataclass(frozen=True, slots=True)
class FcmAccount:
    """Firebase Cloud Messaging; `credentials` is a service account's JSON file."""

    credentials: Path | None
    base_url: str


def _read_account(reader: VariableReader) -> FcmAccount:
    path = reader.file(_KEY_FILE, about="a service account's JSON key file")
    if path is not None and not _is_service_account(path):  # its content is checked and never shown
        reader.fault(f"{_KEY_FILE} is {str(path)!r}: that must be the JSON key file of a service account.")
    return FcmAccount(credentials=path, base_url=reader.url("FCM_BASE_URL", API, about="the base URL of the API"))


def _is_service_account(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        complete = all(content[key] for key in ("project_id", "client_email", "private_key", "token_uri"))
        return complete and content["type"] == "service_account"
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _make_adapter(account: FcmAccount, context: AdapterContext) -> Fcm:
    return Fcm(str(account.credentials), context.http, account.base_url)


PLUGIN = ProviderPlugin(
    name=Fcm.name,
    needs={Channel.PUSH: (_KEY_FILE,)},
    variable_prefixes=("FCM_", _KEY_FILE),
    read_account=_read_account,
    make_adapter=_make_adapter,
    preferred=True,
)

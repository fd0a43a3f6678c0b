"""Double of SendGrid's v3 mail API: `POST /v3/mail/send`, key checks, and the public key of the event webhook."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from pydantic_core import from_json

from channels.base import Channel
from channels.sandbox.arrivals import Arrival
from channels.sandbox.doubles import Double, RouteHandler, SandboxRoute, route_for
from channels.sandbox.events import MailEvents
from channels.sandbox.http import SandboxRequest, SandboxResponse, payload_too_large
from channels.sandbox.keys import SendGridSigner
from channels.sandbox.mails import read_mail
from channels.sandbox.sendgrid_rules import Problem, find_problems
from channels.sandbox.state import SandboxState, digest

MESSAGE_ID_NAMES = ("message", "message_id", "id")  # custom arguments that may hold the sender's message id

# Local parts of addresses (before any "+…") that cause these events after the mail is taken ...
MAIL_EVENTS: dict[str, tuple[str, ...]] = {
    "bounce": ("processed", "bounce"),
    "blocked": ("processed", "blocked"),
    "dropped": ("dropped",),
    "unsubscribed": ("dropped_unsubscribed",),
    "spamreported": ("dropped_spam",),
    "deferred": ("processed", "deferred", "delivered"),
    "spam": ("processed", "delivered", "spamreport"),
    "unsubscribe": ("processed", "delivered", "unsubscribe"),
    "open": ("processed", "delivered", "open"),
    "click": ("processed", "delivered", "open", "click"),
    "silent": (),
}
# ... or this refusal: status and SendGrid's message.
MAIL_REFUSALS: dict[str, tuple[int, str]] = {
    "badkey": (401, ""),
    "credits": (401, "Maximum credits exceeded"),
    "forbidden": (403, ""),
    "toolarge": (413, ""),
    "throttled": (429, ""),
    "broken": (500, ""),
    "unavailable": (503, ""),
}
LOST = "lost"  # taken, but the connection closes without an answer

_MESSAGES = {
    400: "Bad Request",
    401: "The provided authorization grant is invalid, expired, or revoked",
    403: "The from address does not match a verified Sender Identity.",
    404: "not found",
    405: "method not allowed",
    415: "unsupported media type",
    429: "too many requests",
    500: "internal server error",
}


def refusal(status: int, message: str = "", now: float = 0.0) -> SandboxResponse:
    """Return the documented answer for a status; `message` replaces its text, a rate limit ends 1 s after `now` (unix seconds)."""
    if status == 413:
        return payload_too_large()
    error = {"message": message or _MESSAGES.get(status, "service unavailable"), "field": None, "help": None}
    if status == 429:
        error = {"field": None, "message": error["message"]}
    body = json.dumps({"errors": [error]}).encode()
    return SandboxResponse(status, body, headers=_rate_headers(now) if status == 429 else ())


def _rate_headers(now: float) -> tuple[tuple[str, str], ...]:
    return ("X-RateLimit-Limit", "600"), ("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", str(int(now) + 1))


def send(state: SandboxState, request: SandboxRequest) -> SandboxResponse:
    """`POST /v3/mail/send`: 202 and one message id for all personalizations, or one refusal for all of them."""
    if refused := _check_key(state, request):
        return refused
    if not request.head.headers.get("content-type", "").startswith("application/json"):
        return refusal(415)
    try:
        mail = from_json(request.body, allow_inf_nan=False, cache_strings="keys")
    except ValueError:
        return refusal(400)
    if problems := find_problems(mail, state.clock()):
        return _refuse(problems)
    addresses = [part["to"][0]["email"] for part in mail["personalizations"]]
    names = [address.partition("@")[0].partition("+")[0].lower() for address in addresses]
    for name in names:
        if name in MAIL_REFUSALS:
            return refusal(*MAIL_REFUSALS[name], now=state.clock())
    if _is_sandbox_mode(mail):
        return SandboxResponse(200)
    receipt = _record(state, request.body, mail, names)
    return SandboxResponse(202, headers=(("X-Message-Id", receipt),), lost=LOST in names)


def _is_sandbox_mode(mail: dict[str, Any]) -> bool:
    """Tell whether SendGrid's own sandbox mode is on: the mail is checked, answered with 200, and not recorded."""
    mode = mail.get("mail_settings", {}).get("sandbox_mode")
    return isinstance(mode, dict) and mode.get("enable") is True


def _record(state: SandboxState, body: bytes, mail: dict[str, Any], names: list[str]) -> str:
    """Record each recipient of each personalization and queue their events. Returns the message id."""
    receipt = state.unique_id(state.log.next_seq)[8:]
    digested = digest(body)
    common = mail.get("custom_args") or {}
    arrivals, events = [], []
    for part, name in zip(mail["personalizations"], names, strict=True):
        part_arguments = part.get("custom_args")
        arguments = {**common, **part_arguments} if part_arguments else common
        message_id = next((arguments[key] for key in MESSAGE_ID_NAMES if key in arguments), "")
        for recipient in recipients(part):
            arrivals.append(Arrival("sendgrid", "email", recipient, message_id, receipt, digested))
            events.append((recipient, arguments, MAIL_EVENTS.get(name)))
    first = state.record(body, arrivals)
    if state.events.mail_wanted:
        categories = mail.get("categories", [])
        for seq, (recipient, arguments, kinds) in enumerate(events, first):
            state.events.add_mail(MailEvents(seq, recipient, receipt, arguments, categories, kinds))
    return receipt


def recipients(part: dict[str, Any]) -> list[str]:
    """Return all recipients of a personalization, in the order of the arrival log."""
    return [person["email"] for kind in ("to", "cc", "bcc") for person in part.get(kind) or ()]


def _refuse(problems: list[Problem]) -> SandboxResponse:
    errors = [{"message": message, "field": field, "help": None} for message, field in problems]
    return SandboxResponse(400, json.dumps({"errors": errors}).encode())


def _check_key(state: SandboxState, request: SandboxRequest) -> SandboxResponse | None:
    scheme, _, key = request.head.headers.get("authorization", "").partition(" ")
    if scheme != "Bearer" or not key.startswith("SG.") or key in state.refused_keys:
        return refusal(401)
    return None


def scopes(state: SandboxState, request: SandboxRequest) -> SandboxResponse:
    """`GET /v3/scopes`: what a key may do; clients use it to check a key."""
    allowed = b'{"scopes":["mail.send","mail.batch.create","user.webhooks.event.settings.read"]}'
    return _check_key(state, request) or SandboxResponse(200, allowed)


def signed_settings(state: SandboxState, request: SandboxRequest) -> SandboxResponse:
    """`GET /v3/user/webhooks/event/settings/signed`: the public key that verifies events."""
    return _check_key(state, request) or SandboxResponse(200, json.dumps({"public_key": state.signer.public_key}).encode())


# Which addresses are on which list: those that cause, or were told to have caused, the event.
LISTED: dict[str, tuple[str, ...]] = {
    "/v3/suppression/bounces": ("bounce", "dropped"),
    "/v3/suppression/spam_reports": ("spam", "spamreported"),
    "/v3/suppression/unsubscribes": ("unsubscribe", "unsubscribed"),
    "/v3/suppression/invalid_emails": (),
}
LIST_ROWS_MAX = 500


def suppressions(state: SandboxState, request: SandboxRequest) -> SandboxResponse:
    """`GET /v3/suppression/…?start_time=…&end_time=…&limit=…&offset=…`: newest first, from the arrival log."""
    if refused := _check_key(state, request):
        return refused
    query, names = dict(parse_qsl(request.head.query)), LISTED[request.head.path]
    try:
        start, end = int(query.get("start_time", 0)), int(query.get("end_time", 2**40))
        limit, offset = min(int(query.get("limit", LIST_ROWS_MAX)), LIST_ROWS_MAX), int(query.get("offset", 0))
    except ValueError:
        return refusal(400)
    rows: dict[str, int] = {}
    for line in (json.loads(line) for block in state.log.lines(provider="sendgrid") for line in block.splitlines()):
        if line["address"].partition("@")[0].partition("+")[0].lower() in names and start <= int(line["at"]) <= end:
            rows.setdefault(line["address"], int(line["at"]))
    listed = [{"email": address, "created": created} for address, created in rows.items()][::-1]
    return SandboxResponse(200, json.dumps(listed[offset : offset + limit]).encode())


_HANDLERS: Mapping[str, dict[str, RouteHandler]] = {
    "/v3/mail/send": {"POST": send},
    "/v3/scopes": {"GET": scopes},
    "/v3/user/webhooks/event/settings/signed": {"GET": signed_settings},
    **{path: {"GET": suppressions} for path in LISTED},
}


def _find_route(method: str, path: str) -> SandboxRoute | None:
    return route_for(method, _HANDLERS.get(path, {}), "sendgrid", refusal) if path.startswith("/v3/") else None


def _credentials(url: str, folder: Path) -> Mapping[str, Any]:
    public_key = SendGridSigner(folder / "event-key.pem").public_key
    return {"api_key": "SG.sandbox", "base_url": url, "webhook_public_key": public_key}


DOUBLE = Double("sendgrid", _find_route, read_mail, frozenset({Channel.EMAIL}), _credentials)

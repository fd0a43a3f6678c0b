"""Double of Telnyx's Messages API (v2): sending, key checks, and signed webhook calls.

Magic numbers work as with Twilio's double: after one of the prefixes come five digits, Telnyx's error code or a special case.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

from pydantic_core import from_json

from channels.sandbox.arrivals import Arrival
from channels.sandbox.doubles import Double, RouteHandler, SandboxRoute, route_for
from channels.sandbox.events import WebhookCalls
from channels.sandbox.http import SandboxRequest, SandboxResponse
from channels.sandbox.segments import count_segments, is_gsm
from channels.sandbox.state import SandboxState, StoredRequest, digest
from channels.sandbox.twilio_rules import DELIVERED_ONLY, LOST, SILENT, magic_code

SEGMENTS_MAX = 10
REFUSALS = range(10_000, 40_000)  # these codes refuse at once, as do the codes 40300 to 40399
STOP_CODE = 40300

_NUMBER = re.compile(r"\+[1-9]\d{6,14}")
_ERRORS: Mapping[int, tuple[int, str]] = {
    10004: (422, "Missing required parameter"),
    10005: (404, "Resource not found"),
    10007: (500, "Unexpected error"),
    10009: (401, "Authentication failed"),
    10010: (403, "Authorization failed"),
    10011: (429, "Too many requests"),
    10015: (400, "Bad Request"),
    20100: (403, "Insufficient funds"),
    40300: (403, "Blocked due to STOP message"),
    40302: (400, "Message too large"),
    40305: (400, "Invalid 'from' address"),
    40306: (400, "Alpha sender not configured"),
    40310: (400, "Invalid 'to' address"),
    40316: (400, "No content provided for message"),
    40318: (429, "Message queue full"),
}
_CODE_BY_STATUS = {400: 10015, 401: 10009, 403: 10010, 404: 10005, 405: 10005, 422: 10015, 429: 10011}


def refusal(status: int, error: str = "", _now: float = 0.0) -> SandboxResponse:
    """Return Telnyx's error answer, by its own code (`error`), by HTTP status, or both."""
    code = int(error) if error.isdecimal() else _CODE_BY_STATUS.get(status, 10007)
    default_status, title = _ERRORS.get(code, (400, "The request was refused"))
    fault = {
        "code": str(code),
        "title": title,
        "detail": title,
        "meta": {"url": f"https://developers.telnyx.com/docs/overview/errors/{code}"},
    }
    status = status or default_status
    return SandboxResponse(
        status, json.dumps({"errors": [fault]}).encode(), headers=(("Retry-After", "1"),) if status == 429 else ()
    )


def send(state: SandboxState, request: SandboxRequest) -> SandboxResponse:
    """`POST /v2/messages`: 200 with the message."""
    if refused := _check_key(state, request):
        return refused
    try:
        message = from_json(request.body)
    except ValueError:
        return refusal(400)
    if code := _refusal_code(message, state):
        return refusal(0, str(code))
    url = message.get("webhook_url") or ""
    seq = state.log.next_seq
    arrival = Arrival(
        provider="telnyx",
        channel="sms",
        address=message["to"],
        message_id=dict(parse_qsl(urlsplit(url).query)).get("message", ""),
        receipt=str(UUID(state.unique_id(seq))),
        digest=digest(request.body),
        sender=message.get("from") or message["messaging_profile_id"],
        text=message["text"],
    )
    state.record(request.body, (arrival,))
    magic = magic_code(arrival.address)
    if url and magic != SILENT:
        failure = None if magic == DELIVERED_ONLY else magic
        state.events.add_text(WebhookCalls(url, _reports(state, arrival, url, failure), _signed_headers(state)))
    body = json.dumps({"data": _resource(arrival, state.clock(), "queued")}).encode()
    return SandboxResponse(200, body, lost=magic == LOST)


def _check_key(state: SandboxState, request: SandboxRequest) -> SandboxResponse | None:
    scheme, _, key = request.head.headers.get("authorization", "").partition(" ")
    return refusal(401) if scheme != "Bearer" or not key or key in state.refused_keys else None


def _refusal_code(message: object, state: SandboxState) -> int | None:
    """Return the code of the first problem, or None."""
    if not isinstance(message, dict) or not isinstance(message.get("to"), str):
        return 10004
    sender, profile, text = (message.get(name) for name in ("from", "messaging_profile_id", "text"))
    if not sender and not profile:
        return 40305
    if sender and not _NUMBER.fullmatch(str(sender)) and not profile:
        return 40306
    if not _NUMBER.fullmatch(message["to"]):
        return 40310
    if not isinstance(text, str) or not text:
        return 40316
    if count_segments(text) > SEGMENTS_MAX:
        return 40302
    magic = magic_code(message["to"])
    if magic is not None and (magic in REFUSALS or STOP_CODE <= magic < STOP_CODE + 100):
        return magic
    return STOP_CODE if message["to"] in state.stopped else None


def _isoformat(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def _resource(arrival: Arrival, at: float, status: str, code: int | None = None) -> dict[str, Any]:
    """Return the message as Telnyx shows it."""
    number = _NUMBER.fullmatch(arrival.sender) is not None
    valid_until = datetime.fromtimestamp(at, UTC) + timedelta(hours=1)
    return {
        "record_type": "message",
        "direction": "outbound",
        "id": arrival.receipt,
        "type": "SMS",
        "from": {"phone_number": arrival.sender, "carrier": "Telnyx" if number else "", "line_type": "Wireless" if number else ""},
        "to": [{"phone_number": arrival.address, "status": status, "carrier": "Sandbox", "line_type": "Wireless"}],
        "text": arrival.text,
        "encoding": "GSM-7" if is_gsm(arrival.text) else "UCS-2",
        "parts": count_segments(arrival.text),
        "errors": [{"code": str(code), "title": _ERRORS.get(code, (0, "Delivery failed"))[1]}] if code else [],
        "received_at": _isoformat(at),
        "valid_until": valid_until.isoformat(timespec="milliseconds"),
        "tags": [],
        "media": [],
    }


def _reports(state: SandboxState, arrival: Arrival, url: str, code: int | None) -> list[bytes]:
    last = "delivery_failed" if code else "delivered"
    steps = (("message.sent", "sent", None), ("message.finalized", last, code))
    return [
        _event(state, f"{arrival.receipt}:{status}", kind, _resource(arrival, state.clock(), status, failure), url)
        for kind, status, failure in steps
    ]


def _event(state: SandboxState, identity: str, kind: str, payload: Mapping[str, Any], url: str) -> bytes:
    """Return the body of one call. Its id depends only on message and kind, so a repeated event has the same id."""
    moment = _isoformat(state.clock())
    data = {"record_type": "event", "id": identity, "event_type": kind, "occurred_at": moment, "payload": payload}
    return json.dumps({"data": data, "meta": {"attempt": 1, "delivered_to": url}}).encode()


def _signed_headers(state: SandboxState) -> Callable[[bytes, float], Mapping[str, str]]:
    signer = state.signer.telnyx

    def headers(body: bytes, at: float) -> Mapping[str, str]:
        stamp = str(int(at))
        return {
            "Content-Type": "application/json",
            "User-Agent": "telnyx-webhooks",
            "telnyx-signature-ed25519": signer.sign(stamp, body),
            "telnyx-timestamp": stamp,
        }

    return headers


def profiles(state: SandboxState, request: SandboxRequest) -> SandboxResponse:
    """`GET /v2/messaging_profiles[/{id}]`: clients use it to check a key."""
    profile = {"record_type": "messaging_profile", "id": request.head.path.split("/")[-1], "name": "Sandbox", "enabled": True}
    one = request.head.path.count("/") > 2
    return _check_key(state, request) or SandboxResponse(200, json.dumps({"data": profile if one else [profile]}).encode())


def _receive_reply(state: SandboxState, reply: Mapping[str, str]) -> None:
    """Queue an inbound webhook call."""
    url = state.events.settings.telnyx_inbound_url
    if not url:
        return
    state.replies += 1
    name = str(UUID(f"{state.nonce}{1 << 63 | state.replies:x}"))
    payload = {
        "record_type": "message",
        "direction": "inbound",
        "id": name,
        "type": "SMS",
        "from": {"phone_number": reply["from"], "carrier": "Sandbox", "line_type": "Wireless"},
        "to": [{"phone_number": reply["to"], "status": "webhook_delivered"}],
        "text": reply["text"],
        "autoresponse_type": reply.get("opt_out_type") or None,
        "errors": [],
    }
    body = _event(state, f"{name}:received", "message.received", payload, url)
    state.events.add_text(WebhookCalls(url, [body], _signed_headers(state), inbound=True))


def _find_route(method: str, path: str) -> SandboxRoute | None:
    if not path.startswith("/v2/"):
        return None
    handlers: dict[str, RouteHandler] = {"POST": send} if path == "/v2/messages" else {}
    if path.startswith("/v2/messaging_profiles"):
        handlers = {"GET": profiles}
    return route_for(method, handlers, "telnyx", refusal)


def _read_content(_state: SandboxState, request: StoredRequest, _seq: int) -> dict[str, Any]:
    message = json.loads(request.body)
    return {
        "from": message.get("from") or message["messaging_profile_id"],
        "to": message["to"],
        "text": message["text"],
        "segments": count_segments(message["text"]),
        "encoding": "GSM-7" if is_gsm(message["text"]) else "UCS-2",
        "content_sid": "",
        "variables": {},
        "status_callback": message.get("webhook_url", ""),
    }


DOUBLE = Double("telnyx", _find_route, _read_content, receive_reply=_receive_reply)

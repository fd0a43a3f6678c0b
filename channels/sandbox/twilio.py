"""Double of Twilio's Messages API (2010-04-01): sending. Queries are in `twilio_reads`."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_plus

from channels.sandbox.arrivals import Arrival
from channels.sandbox.contents import ContentStore, refusal_code
from channels.sandbox.events import TextEvents
from channels.sandbox.http import SandboxRequest, SandboxResponse
from channels.sandbox.segments import count_segments
from channels.sandbox.state import SandboxState, digest
from channels.sandbox.twilio_rules import LOST, WHATSAPP, MessageRefusal, check_message, statuses_of

_MESSAGE_ID = re.compile(r"[?&](?:message|message_id|id)=([^&#]*)")

_ERRORS = {
    20003: (401, "Authenticate"),
    20004: (405, "Method not allowed"),
    20404: (404, "The requested resource was not found"),
    20429: (429, "Too Many Requests"),
    20500: (500, "An internal server error has occurred"),
    20503: (503, "Service unavailable"),
    21211: (400, "Invalid 'To' Phone Number"),
    21212: (400, "Invalid 'From' Number"),
    21266: (400, "'To' and 'From' number cannot be the same"),
    21408: (400, "Permission to send to the region of the 'To' number has not been enabled"),
    21602: (400, "Message body is required"),
    21603: (400, "A 'From' phone number is required"),
    21604: (400, "A 'To' phone number is required"),
    21606: (400, "The 'From' number is not a number of this account that can send messages"),
    21609: (400, "Invalid 'StatusCallback' URL"),
    21610: (400, "Attempt to send to unsubscribed recipient"),
    21611: (400, "This 'From' number has exceeded the maximum number of queued messages"),
    21612: (400, "The 'To' number is not reachable from the 'From' number"),
    21614: (400, "'To' number is not a valid mobile number"),
    21617: (400, "The message body exceeds the 1600 character limit"),
    21655: (400, "The ContentSid is invalid"),
    21656: (400, "The ContentVariables parameter is invalid"),
    21703: (400, "The Messaging Service has no number available to send a message"),
    21705: (400, "The Messaging Service is invalid"),
    21910: (400, "Invalid 'From' and 'To' pair"),
    63007: (400, "No Channel was found with the specified From address"),
}
_CODE_BY_STATUS = {401: 20003, 404: 20404, 405: 20004, 429: 20429, 500: 20500, 503: 20503}


def refusal(status: int, error: str = "", _now: float = 0.0) -> SandboxResponse:
    """Return Twilio's error answer, by its own code (`error`), by HTTP status, or both."""
    code = int(error) if error.isdecimal() else _CODE_BY_STATUS.get(status, 20001)
    default_status, text = _ERRORS.get(code, (400, "The request was refused"))
    status = status or default_status
    more = f"https://www.twilio.com/docs/errors/{code}"
    headers = (("Retry-After", "1"), ("Twilio-Concurrent-Requests", "100")) if status == 429 else ()
    fault = {"code": code, "message": text, "more_info": more, "status": status}
    return SandboxResponse(status, json.dumps(fault).encode(), headers=headers)


def send(state: SandboxState, request: SandboxRequest) -> SandboxResponse:
    """`POST …/Messages.json`: 201 with the message resource."""
    account = account_of(request)
    if refused := check_key(state, request, account):
        return refused
    form = parse_form(request.body)
    try:
        message = check_message(form, state.stopped)
    except MessageRefusal as fault:
        return refusal(0, str(fault.code))
    callback, sender = form.get("StatusCallback", ""), form.get("From") or form["MessagingServiceSid"]
    seq = state.log.next_seq
    arrival = Arrival(
        provider="twilio",
        channel="whatsapp" if message.whatsapp else "sms",
        address=message.number,
        message_id=_message_id(callback),
        receipt="SM" + state.unique_id(seq),
        digest=digest(request.body),
        sender=sender,
        text=form.get("Body") or content_text(state.contents, form),
    )
    state.record(request.body, (arrival,))
    failure = refusal_code(state.contents.get(form["ContentSid"])) if form.get("ContentSid") and message.whatsapp else None
    if failure is not None:
        state.failed[arrival.receipt] = failure
    if callback:
        statuses, code = statuses_of(failure or message.magic, whatsapp=message.whatsapp)
        token = state.auth_tokens[account]
        state.events.add_text(TextEvents(arrival.receipt, account, form["To"], sender, callback, token, statuses, code))
    status = "accepted" if "MessagingServiceSid" in form else "queued"
    body = json.dumps(resource(account, arrival, state.clock(), status)).encode()
    return SandboxResponse(201, body, lost=message.magic == LOST)


def parse_form(body: bytes) -> dict[str, str]:
    """Parse a form; the last value of a repeated field counts."""
    pairs = (pair.partition("=") for pair in body.decode("latin-1").split("&") if pair)
    return {_unquote(name): _unquote(value) for name, _, value in pairs}


_cached_unquote = lru_cache(maxsize=4096)(unquote_plus)  # senders, callbacks and campaign texts repeat


def _unquote(text: str) -> str:
    return _cached_unquote(text) if "%" in text or "+" in text else text


def content_text(contents: ContentStore, form: Mapping[str, str]) -> str:
    """Return a WhatsApp template with its variables filled in; only the variables for an unknown template."""
    variables: dict[str, str] = json.loads(form.get("ContentVariables") or "{}")
    content = contents.get(form.get("ContentSid", ""))
    if content is None:
        return " · ".join(variables.values())
    text = content.text
    for name, value in variables.items():
        text = text.replace("{{" + name + "}}", value)
    return text


def account_of(request: SandboxRequest) -> str:
    """Return the account's SID, from the path."""
    return request.head.path.split("/")[3].removesuffix(".json")


def check_key(state: SandboxState, request: SandboxRequest, account: str) -> SandboxResponse | None:
    """Return Twilio's 401 for wrong credentials, else None. Stores the account's token, which signs callbacks."""
    user, token = _credentials(request.head.headers.get("authorization", ""))
    if not token or token in state.refused_keys or user in state.refused_keys:
        return refusal(401)
    if user == account:
        state.auth_tokens[account] = token
    elif user.startswith("SK"):
        state.auth_tokens.setdefault(account, token)
    else:
        return refusal(401)
    return None


def basic_user(request: SandboxRequest) -> str:
    """Return the user of the credentials: the account's SID, or an API key."""
    return _credentials(request.head.headers.get("authorization", ""))[0]


@lru_cache(maxsize=256)
def _credentials(header: str) -> tuple[str, str]:
    scheme, _, coded = header.partition(" ")
    try:
        user, _, token = base64.b64decode(coded, validate=True).decode().partition(":")
    except ValueError:
        return "", ""
    return (user, token) if scheme.lower() == "basic" else ("", "")


def _message_id(callback: str) -> str:
    """Return the sender's message id, from the query of the status callback."""
    match = _MESSAGE_ID.search(callback)
    return unquote_plus(match[1]) if match else ""


def resource(account: str, arrival: Arrival, at: float, status: str, code: int | None = None) -> dict[str, Any]:
    """Return the message as Twilio shows it."""
    moment = _rfc2822(int(at))
    service = arrival.sender if arrival.sender.startswith("MG") else None
    uri = f"/2010-04-01/Accounts/{account}/Messages/{arrival.receipt}"
    return {
        "account_sid": account,
        "api_version": "2010-04-01",
        "body": arrival.text,
        "date_created": moment,
        "date_sent": None if status in {"queued", "accepted"} else moment,
        "date_updated": moment,
        "direction": "outbound-api",
        "error_code": code,
        "error_message": None,
        "from": None if service else arrival.sender,
        "messaging_service_sid": service,
        "num_media": "0",
        "num_segments": "0" if status == "accepted" else str(count_segments(arrival.text)),
        "price": None,
        "price_unit": None,
        "sid": arrival.receipt,
        "status": status,
        "subresource_uris": {"media": f"{uri}/Media.json"},
        "to": (WHATSAPP if arrival.channel == "whatsapp" else "") + arrival.address,
        "uri": f"{uri}.json",
    }


@lru_cache(maxsize=8)
def _rfc2822(at: int) -> str:
    return format_datetime(datetime.fromtimestamp(at, UTC))

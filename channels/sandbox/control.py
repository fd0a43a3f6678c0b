"""The control API under `/_sandbox/`: the arrival log, faults, events, replies. JSON in and out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

from channels.sandbox.contents import STATUSES, Review
from channels.sandbox.doubles import doubles, fault_names
from channels.sandbox.events import EventSettings
from channels.sandbox.faults import RuleError, parse_rules
from channels.sandbox.http import SandboxRequest, SandboxResponse, is_cross_origin
from channels.sandbox.messages import read_message
from channels.sandbox.profiles import PROFILES
from channels.sandbox.state import SandboxState

# Default keywords of Twilio and Telnyx. They block the number at once, and the inbound webhook reports them.
STOP_WORDS = frozenset({"STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT"})
START_WORDS = frozenset({"START", "UNSTOP", "YES"})

Action: TypeAlias = Callable[[SandboxState, SandboxRequest, str], SandboxResponse]


class ControlError(ValueError):
    """An invalid control request; the text is in the 400 answer."""


def handle(state: SandboxState, request: SandboxRequest) -> SandboxResponse:
    """Answer one control request."""
    if is_cross_origin(request):
        return _json({"error": "cross-origin requests are refused"}, 403)
    name, _, rest = request.head.path.removeprefix("/_sandbox/").partition("/")
    action = _ACTIONS.get((request.head.method, name))
    if action is None:
        known = any(name == other for _, other in _ACTIONS)
        return _json({"error": "method not allowed" if known else "not found"}, 405 if known else 404)
    try:
        return action(state, request, rest)
    except (ControlError, RuleError) as fault:
        return _json({"error": str(fault)}, 400)


def _json(document: object, status: int = 200) -> SandboxResponse:
    return SandboxResponse(status, json.dumps(document).encode())


def _document(request: SandboxRequest) -> Any:
    try:
        return json.loads(request.body)
    except ValueError:
        raise ControlError("the body is not JSON") from None


def _object(request: SandboxRequest) -> dict[str, Any]:
    document = _document(request)
    if not isinstance(document, dict):
        raise ControlError("expected an object")
    return document


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ControlError(f"{text!r} is not a number") from None


def _log(state: SandboxState, request: SandboxRequest, _rest: str) -> SandboxResponse:
    query = dict(parse_qsl(request.head.query))
    lines = state.log.lines(_number(query.get("after", "0")), provider=query.get("provider", ""))
    return SandboxResponse(200, lines, "application/x-ndjson")


def _clear_log(state: SandboxState, _request: SandboxRequest, _rest: str) -> SandboxResponse:
    state.log.clear()
    state.requests.clear()
    state.stopped.clear()
    return SandboxResponse(204)


def counts(state: SandboxState) -> dict[str, Any]:
    """Return totals per channel and of events. Cheap to call."""
    channels = {name: state.log.counts[name] for name in ("push", "email", "sms", "whatsapp")}
    events = {name: state.events.counts[name] for name in ("posted", "retried", "failed", "dropped")}
    return {"total": sum(channels.values()), **channels, "events": events | {"pending": state.events.pending}}


def _message(state: SandboxState, _request: SandboxRequest, rest: str) -> SandboxResponse:
    message = read_message(state, _number(rest))
    return _json({"error": "no such message"}, 404) if message is None else _json(message)


def _set_faults(state: SandboxState, request: SandboxRequest, _rest: str) -> SandboxResponse:
    state.faults.set(parse_rules(_document(request), fault_names()))
    return SandboxResponse(204)


def set_profile(state: SandboxState, name: str) -> None:
    """Replace the fault rules by those of a profile. Raises ControlError."""
    if name not in PROFILES:
        raise ControlError(f"profile is one of {', '.join(PROFILES)}")
    state.faults.set(parse_rules(list(PROFILES[name][1]), fault_names()), name)


def _set_profile(state: SandboxState, _request: SandboxRequest, rest: str) -> SandboxResponse:
    set_profile(state, rest)
    return SandboxResponse(204)


def _clear_faults(state: SandboxState, _request: SandboxRequest, _rest: str) -> SandboxResponse:
    state.faults.set(())
    return SandboxResponse(204)


def _set_events(state: SandboxState, request: SandboxRequest, _rest: str) -> SandboxResponse:
    """Change some settings and keep the others."""
    changes, known = _object(request), asdict(EventSettings())
    for name, value in changes.items():
        if name not in known or (type(value) is not type(known[name]) and not _is_number_for(known[name], value)):
            raise ControlError(f"unknown or wrong setting: {name}")
    state.events.settings = replace(state.events.settings, **changes)
    return _json(asdict(state.events.settings))


def _is_number_for(default: object, value: object) -> bool:
    return type(default) is float and type(value) is int


def _set_refused_keys(state: SandboxState, request: SandboxRequest, _rest: str) -> SandboxResponse:
    keys = _document(request)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ControlError("expected a list of keys")
    state.refused_keys = set(keys)
    return SandboxResponse(204)


def _set_content(state: SandboxState, request: SandboxRequest, rest: str) -> SandboxResponse:
    """Set the text of a template, which is approved then, or the `status` and `reason` of one that was created."""
    document = _object(request)
    if isinstance(text := document.get("text"), str):
        state.contents.set_text(rest, text)
        return SandboxResponse(204)
    if document.get("status") not in STATUSES:
        raise ControlError(f"expected a text, or a status: {', '.join(STATUSES)}")
    if state.contents.get(rest) is None:
        return _json({"error": "no such template"}, 404)
    state.contents.change(rest, status=document["status"], reason=str(document.get("reason", "")))
    return SandboxResponse(204)


def _set_review(state: SandboxState, request: SandboxRequest, _rest: str) -> SandboxResponse:
    """Set what the review of WhatsApp answers to the next templates."""
    document = _object(request)
    if document.get("status") not in STATUSES:
        raise ControlError(f"status is one of {', '.join(STATUSES)}")
    state.contents.review = Review(document["status"], str(document.get("reason", "")))
    return SandboxResponse(204)


def _reply(state: SandboxState, request: SandboxRequest, _rest: str) -> SandboxResponse:
    reply = _object(request)
    if not all(isinstance(reply.get(name), str) for name in ("from", "to", "text")):
        raise ControlError("from, to and text are needed")
    send_reply(state, reply)
    return SandboxResponse(202)


def send_reply(state: SandboxState, reply: Mapping[str, str]) -> None:
    """Send a reply `from` a person's number `to` one of our senders, on the `channel` sms or whatsapp of a `provider`.

    An opt-out keyword blocks the number, as providers do by default: later messages to it are refused. With an `opt_out_type`
    (STOP, START or HELP) the webhook call also has the field of Twilio's Advanced Opt-Out.
    """
    number, keyword = reply["from"], reply["text"].strip().upper()
    if keyword in STOP_WORDS:
        state.stopped.add(number)
    elif keyword in START_WORDS:
        state.stopped.discard(number)
    double = doubles().get(reply.get("provider", "twilio"))
    if double is None or double.receive_reply is None:
        raise ControlError("this provider has no replies")
    double.receive_reply(state, reply)


def _sign_sendgrid(state: SandboxState, request: SandboxRequest, _rest: str) -> SandboxResponse:
    """Sign a call of SendGrid's event webhook that somebody else makes."""
    call = _object(request)
    if not all(isinstance(call.get(name), str) for name in ("timestamp", "body")):
        raise ControlError("timestamp and body are needed")
    return _json({"signature": state.signer.sign(call["timestamp"], call["body"].encode())})


_ACTIONS: Mapping[tuple[str, str], Action] = {
    ("GET", "log"): _log,
    ("DELETE", "log"): _clear_log,
    ("GET", "counts"): lambda state, _request, _rest: _json(counts(state)),
    ("GET", "messages"): _message,
    ("GET", "faults"): lambda state, _request, _rest: _json([asdict(rule) for rule in state.faults.rules]),
    ("PUT", "faults"): _set_faults,
    ("DELETE", "faults"): _clear_faults,
    ("PUT", "profile"): _set_profile,
    ("GET", "events"): lambda state, _request, _rest: _json(asdict(state.events.settings)),
    ("PUT", "events"): _set_events,
    ("GET", "keys"): lambda state, _request, _rest: _json(
        {"sendgrid_webhook": state.signer.public_key, "telnyx_webhook": state.signer.telnyx.public_key}
    ),
    ("PUT", "refused-keys"): _set_refused_keys,
    ("PUT", "contents"): _set_content,
    ("PUT", "review"): _set_review,
    ("POST", "reply"): _reply,
    ("POST", "sendgrid-signature"): _sign_sendgrid,
}

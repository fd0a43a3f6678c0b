"""Twilio's `DOUBLE`: its routes, readable messages, and people's replies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from channels.base import Channel
from channels.sandbox import twilio_contents, twilio_reads
from channels.sandbox.doubles import Double, RouteHandler, SandboxRoute, route_for
from channels.sandbox.events import InboundReply
from channels.sandbox.segments import count_segments, is_gsm
from channels.sandbox.state import SandboxState, StoredRequest
from channels.sandbox.twilio import content_text, parse_form, refusal, send

POOL_NUMBER = "+15005550006"  # the number of every messaging service in the sandbox


def _find_route(method: str, path: str) -> SandboxRoute | None:
    if not path.startswith("/2010-04-01/Accounts/"):
        return twilio_contents.find_route(method, path)
    parts = path.split("/")[4:]
    handlers: dict[str, RouteHandler] = {}
    if parts == [] and path.endswith(".json"):
        handlers = {"GET": twilio_reads.fetch_account}
    elif parts == ["Messages.json"]:
        handlers = {"POST": send, "GET": twilio_reads.list_messages}
    elif len(parts) == 2 and parts[0] == "Messages" and parts[1].endswith(".json"):
        handlers = {"GET": twilio_reads.fetch_message}
    return route_for(method, handlers, "twilio", refusal)


def _read_content(state: SandboxState, request: StoredRequest, _seq: int) -> dict[str, Any]:
    form = parse_form(request.body)
    text = form.get("Body") or content_text(state.contents, form)
    return {
        "from": form.get("From") or form.get("MessagingServiceSid", ""),
        "to": form["To"],
        "text": text,
        "segments": count_segments(text),
        "encoding": "GSM-7" if is_gsm(text) else "UCS-2",
        "content_sid": form.get("ContentSid", ""),
        "variables": json.loads(form.get("ContentVariables") or "{}"),
        "status_callback": form.get("StatusCallback", ""),
    }


def _receive_reply(state: SandboxState, reply: Mapping[str, str]) -> None:
    """Queue an inbound webhook call."""
    if url := state.events.settings.twilio_inbound_url:
        account, token = next(iter(state.auth_tokens.items()), ("AC" + "0" * 32, ""))
        state.replies += 1
        form = _inbound_form(reply, account, f"SM{state.nonce}{1 << 63 | state.replies:x}")
        state.events.add_text(InboundReply(url, token, form))


def _inbound_form(reply: Mapping[str, str], account: str, sid: str) -> dict[str, str]:
    whatsapp = reply.get("channel") == "whatsapp"
    prefix = "whatsapp:" if whatsapp else ""
    form = {
        "AccountSid": account,
        "ApiVersion": "2010-04-01",
        "Body": reply["text"],
        "From": prefix + reply["from"],
        "MessageSid": sid,
        "NumMedia": "0",
        "NumSegments": str(count_segments(reply["text"])),
        "SmsMessageSid": sid,
        "SmsSid": sid,
        "SmsStatus": "received",
        "To": prefix + reply["to"].removeprefix(prefix),
    }
    if whatsapp:
        form |= {"ProfileName": "Sandbox", "WaId": reply["from"].lstrip("+")}
    if reply["to"].startswith("MG"):
        form |= {"To": prefix + POOL_NUMBER, "MessagingServiceSid": reply["to"]}
    if kind := reply.get("opt_out_type"):
        form["OptOutType"] = kind
    return form


def _credentials(url: str, _folder: Path) -> Mapping[str, Any]:
    sender = "+32460000000"
    return {
        "account_sid": "AC" + "5" * 32,
        "auth_token": "sandbox",  # public on purpose
        "base_url": url,
        "content_base_url": url,
        "sms_sender": sender,
        "whatsapp_sender": sender,
    }


DOUBLE = Double(
    "twilio", _find_route, _read_content, frozenset({Channel.SMS, Channel.WHATSAPP}), _credentials, receive_reply=_receive_reply
)

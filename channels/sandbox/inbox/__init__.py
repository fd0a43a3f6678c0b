"""The inbox: pages that show messages as recipients would see them. No scripts, no external resources."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, fields
from datetime import UTC, datetime
from functools import lru_cache
from importlib import resources
from typing import Any
from urllib.parse import parse_qsl, urlencode

from jinja2 import Environment, PackageLoader

from channels.sandbox.control import ControlError, counts, send_reply, set_profile
from channels.sandbox.doubles import fault_names
from channels.sandbox.events import EventSettings
from channels.sandbox.faults import FaultRule
from channels.sandbox.fcm import MAGIC_TOKENS
from channels.sandbox.http import SandboxRequest, SandboxResponse, is_cross_origin
from channels.sandbox.messages import read_content, read_message
from channels.sandbox.profiles import PROFILES
from channels.sandbox.sendgrid import MAIL_EVENTS, MAIL_REFUSALS
from channels.sandbox.state import SandboxState
from channels.sandbox.twilio import parse_form
from channels.sandbox.twilio_rules import MAGIC_PREFIXES

CHANNELS = {"email": "E-mail", "sms": "SMS", "whatsapp": "WhatsApp", "push": "Push"}
PAGE_ROWS = 50
FOLLOW_SECONDS = 2
SEARCHED_LINES_MAX = 100_000  # how many arrivals a filter searches
_BLOCK_LINES = 1_000
_PICTURE = re.compile(r"<img\s(?:[^>]*\s)?src=\"https?:[^>]*>", re.IGNORECASE)

# A mail is shown inside the page: nothing in it may run scripts, load resources or submit forms.
_POLICY = (
    "default-src 'none'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = (("Content-Security-Policy", _POLICY), ("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store"))


def handle(state: SandboxState, request: SandboxRequest) -> SandboxResponse:
    """Answer a browser's request."""
    method, path = request.head.method, request.head.path
    if method in {"GET", "HEAD"}:
        if path == "/":
            return _list(state, dict(parse_qsl(request.head.query)))
        if path == "/faults":
            return _page("faults.html", state, rules=[_rule_as_json(rule) for rule in state.faults.rules], profiles=PROFILES)
        if path == "/guide":
            return _guide(state, request.head.headers.get("host", ""))
        if path == "/inbox.css":
            return SandboxResponse(200, _style(), "text/css; charset=utf-8", (("Cache-Control", "max-age=300"),))
        if path.startswith("/messages/"):
            return _message(state, path.removeprefix("/messages/"), dict(parse_qsl(request.head.query)))
    if method == "POST" and path == "/reply" and not is_cross_origin(request):
        return _reply(state, request)
    if method == "POST" and path == "/faults" and not is_cross_origin(request):
        return _set_profile(state, request)
    return _page("not_found.html", state, status=404)


def _guide(state: SandboxState, address: str) -> SandboxResponse:
    return _page(
        "guide.html",
        state,
        address=address,
        mail_events=MAIL_EVENTS,
        mail_refusals=MAIL_REFUSALS,
        number_prefixes=MAGIC_PREFIXES,
        push_tokens=MAGIC_TOKENS,
        provider_names=fault_names(),
        event_settings=[field.name for field in fields(EventSettings)],
    )


def _rule_as_json(rule: FaultRule) -> str:
    """Return a rule as JSON, without default values."""
    defaults = asdict(FaultRule())
    return (
        json.dumps({name: value for name, value in asdict(rule).items() if value != defaults[name]})
        if rule != FaultRule()
        else "{}"
    )


def _set_profile(state: SandboxState, request: SandboxRequest) -> SandboxResponse:
    try:
        set_profile(state, parse_form(request.body).get("profile", ""))
    except ControlError:
        return _page("not_found.html", state, status=404)
    return SandboxResponse(303, b"", headers=(("Location", "/faults"),))


def _list(state: SandboxState, query: dict[str, str]) -> SandboxResponse:
    channel, text = query.get("channel", ""), query.get("q", "").strip()
    before = int(query["before"]) if query.get("before", "").isdecimal() else state.log.next_seq
    rows = list(_newest(state, channel, text.lower(), before))
    rows, more = rows[:PAGE_ROWS], len(rows) > PAGE_ROWS
    older = urlencode({"channel": channel, "q": text, "before": rows[-1]["seq"]}) if more else ""
    rows = [row | {"when": _format_time(row["at"]), "preview": _preview(state, row)} for row in rows]
    newer, follow = before < state.log.next_seq, query.get("follow") == "1"
    response = _page("list.html", state, rows=rows, channel=channel, q=text, older=older, newer=newer, follow=follow)
    return response._replace(headers=(*response.headers, ("Refresh", str(FOLLOW_SECONDS)))) if follow else response


def _newest(state: SandboxState, channel: str, text: str, before: int) -> Iterator[dict[str, Any]]:
    """Yield a page of arrivals and one more, newest first. Their line contains the text (address, ids) and the channel."""
    needle, channel_field, remaining = json.dumps(text)[1:-1].encode(), f'"channel":"{channel}"'.encode(), PAGE_ROWS + 1
    for stop in range(before, max(before - SEARCHED_LINES_MAX, 1), -_BLOCK_LINES):
        lines = b"".join(state.log.lines(max(stop - _BLOCK_LINES - 1, 0), stop)).splitlines()
        for line in reversed(lines):
            if (not channel or channel_field in line) and (not text or needle in line.lower()):
                yield json.loads(line)
                remaining -= 1
                if not remaining:
                    return


def _preview(state: SandboxState, row: dict[str, Any]) -> str:
    """Return one line of a message, as a phone shows it in a list."""
    if "text" in row:
        return str(row["text"])
    content = read_content(state, row["seq"])
    if content is None:
        return ""
    if row["channel"] == "email":
        return str(content["subject"])
    return " — ".join(part for part in (content["title"], content["body"]) if part)


def _message(state: SandboxState, name: str, query: dict[str, str]) -> SandboxResponse:
    message = read_message(state, int(name)) if name.isdecimal() else None
    if message is None:
        return _page("not_found.html", state, status=404)
    facts: dict[str, Any] = {"when": _format_time(message["at"]), "stopped": message["address"] in state.stopped}
    facts["can_reply"] = _can_reply(message.get("sender", ""))
    neighbours = {"older": message["seq"] - 1, "newer": message["seq"] + 1}
    neighbours = {direction: seq for direction, seq in neighbours.items() if state.log.get(seq)}
    return _page("message.html", state, m=message | facts, **neighbours, replied=query.get("replied", ""))


def _can_reply(sender: str) -> bool:
    """Tell whether a sender can get replies: a number, short code or messaging service, but not a name."""
    return sender.removeprefix("whatsapp:").lstrip("+").isdecimal() or sender.startswith("MG")


def _reply(state: SandboxState, request: SandboxRequest) -> SandboxResponse:
    """Handle the reply buttons of a message: send a reply as the recipient."""
    form = parse_form(request.body)
    seq = form.get("seq", "")
    message = read_message(state, int(seq)) if seq.isdecimal() else None
    if message is None or "sender" not in message:
        return _page("not_found.html", state, status=404)
    text = form.get("text", "").strip()
    reply = {"from": message["address"], "to": message["sender"], "text": text} | {
        name: message[name] for name in ("channel", "provider")
    }
    if text:
        send_reply(state, reply)
    return SandboxResponse(303, b"", headers=(("Location", f"/messages/{seq}?{urlencode({'replied': text})}"),))


def _format_time(at: float) -> dict[str, str]:
    moment = datetime.fromtimestamp(at, UTC)
    return {
        "iso": moment.isoformat(),
        "day": f"{moment:%d %b %Y}",
        "time": f"{moment:%H:%M:%S}",
        "short": f"{moment:%H:%M}",
    }


def _page(name: str, state: SandboxState, status: int = 200, **values: object) -> SandboxResponse:
    totals = counts(state)
    html = _templates().get_template(name).render(channels=CHANNELS, counts=totals, profile=state.faults.profile, **values)
    return SandboxResponse(status, html.encode(), "text/html; charset=utf-8", _HEADERS)


@lru_cache(maxsize=1)
def _templates() -> Environment:
    env = Environment(loader=PackageLoader("channels.sandbox.inbox", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    env.filters["pictures_blocked"] = _pictures_blocked
    return env


def _pictures_blocked(html: str) -> str:
    """The HTML with the alt text of each picture in place of it."""
    return _PICTURE.sub(lambda tag: f'<span style="{_attribute(tag[0], "style")}">{_attribute(tag[0], "alt")}</span>', html)


def _attribute(tag: str, name: str) -> str:
    found = re.search(rf'\s{name}="([^"]*)"', tag)
    return found[1] if found else ""


@lru_cache(maxsize=1)
def _style() -> bytes:
    return resources.files(__name__).joinpath("inbox.css").read_bytes()

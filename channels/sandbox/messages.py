"""Turning what was kept into messages that a person or a test can read. Nothing here runs while messages arrive."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from channels.sandbox.segments import count_segments, is_gsm
from channels.sandbox.twilio import content_text, parse_form
from channels.sandbox.world import KeptRequest, World

_parsed = lru_cache(maxsize=4)(json.loads)  # a page of the inbox may show fifty mails of one request


def read_message(world: World, seq: int) -> dict[str, Any] | None:
    """One message with its `content` as its reader gets it (None when no longer kept); None for an unknown number."""
    line = world.log.get(seq)
    if line is None:
        return None
    return line | {"content": read_content(world, seq)}


def read_content(world: World, seq: int) -> dict[str, Any] | None:
    """The content of message `seq`; which keys it has depends on the provider."""
    kept = world.kept.find(seq)
    if kept is None:
        return None
    if kept.provider == "sendgrid":
        return _mail(kept, seq)
    if kept.provider == "twilio":
        return _text(world, kept)
    return _push(kept)


def _mail(kept: KeptRequest, seq: int) -> dict[str, Any]:
    mail = _parsed(kept.body)
    index, part = seq - kept.first, {}
    for part in mail["personalizations"]:
        count = sum(len(part.get(kind, ())) for kind in ("to", "cc", "bcc"))
        if index < count:
            break
        index -= count
    changes = _substitutions(part.get("substitutions", {}), mail.get("sections", {}))
    bodies = {item["type"].lower(): substituted(item["value"], changes) for item in mail.get("content", ())}
    headers = {**mail.get("headers", {}), **part.get("headers", {})}
    return {
        "from": part.get("from") or mail["from"],
        "to": part["to"],
        "cc": part.get("cc", []),
        "subject": substituted(part.get("subject") or mail.get("subject", ""), changes),
        "headers": headers,
        "text": bodies.get("text/plain", ""),
        "html": bodies.get("text/html", ""),
        "custom_args": {**mail.get("custom_args", {}), **part.get("custom_args", {})},
        "template_id": mail.get("template_id", ""),
    }


def _substitutions(own: Mapping[str, str], sections: Mapping[str, str]) -> dict[str, str]:
    """Values may name sections, which are filled in first."""
    return {tag: substituted(value, sections) for tag, value in own.items()}


def substituted(text: str, changes: Mapping[str, str]) -> str:
    """Replace every tag in one pass: what a value brings in is never taken for a tag itself."""
    if not changes:
        return text
    tags = "|".join(re.escape(tag) for tag in sorted(changes, key=len, reverse=True) if tag)
    return re.sub(tags, lambda found: changes[found[0]], text)


def _text(world: World, kept: KeptRequest) -> dict[str, Any]:
    form = parse_form(kept.body)
    text = form.get("Body") or content_text(world.contents, form)
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


def _push(kept: KeptRequest) -> dict[str, Any]:
    message = _parsed(kept.body)["message"]
    notification = message.get("notification", {})
    platforms = {name: message[name] for name in ("android", "apns", "webpush") if name in message}
    return {
        "title": notification.get("title", ""),
        "body": notification.get("body", ""),
        "image": notification.get("image", ""),
        "data": message.get("data", {}),
        **platforms,
    }

"""Read one mail from a stored request to SendGrid, as the recipient sees it, with substitutions applied."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from channels.sandbox.state import SandboxState, StoredRequest

_parse = lru_cache(maxsize=4)(json.loads)  # a page of the inbox can show fifty mails of one request


def read_mail(_state: SandboxState, request: StoredRequest, seq: int) -> dict[str, Any]:
    """Return the mail with number `seq`."""
    mail = _parse(request.body)
    index, part = seq - request.first, {}
    for part in mail["personalizations"]:
        count = sum(len(part.get(kind, ())) for kind in ("to", "cc", "bcc"))
        if index < count:
            break
        index -= count
    changes = _substitutions(part.get("substitutions", {}), mail.get("sections", {}))
    bodies = {item["type"].lower(): substitute(item["value"], changes) for item in mail.get("content", ())}
    headers = {**mail.get("headers", {}), **part.get("headers", {})}
    return {
        "from": part.get("from") or mail["from"],
        "to": part["to"],
        "cc": part.get("cc", []),
        "subject": substitute(part.get("subject") or mail.get("subject", ""), changes),
        "headers": headers,
        "text": bodies.get("text/plain", ""),
        "html": bodies.get("text/html", ""),
        "custom_args": {**mail.get("custom_args", {}), **part.get("custom_args", {})},
        "template_id": mail.get("template_id", ""),
    }


def _substitutions(values: Mapping[str, str], sections: Mapping[str, str]) -> dict[str, str]:
    """Values may refer to sections, which are filled in first."""
    return {tag: substitute(value, sections) for tag, value in values.items()}


def substitute(text: str, changes: Mapping[str, str]) -> str:
    """Replace all tags in one pass, so that tags inside values are not replaced."""
    if not changes:
        return text
    tags = "|".join(re.escape(tag) for tag in sorted(changes, key=len, reverse=True) if tag)
    return re.sub(tags, lambda match: changes[match[0]], text)

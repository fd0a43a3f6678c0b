"""Fields of provider events that no rule uses: kept for people to read, without anything that identifies the person. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping

FIELDS_MAX = 32
LENGTH_MAX = 300

# Names of fields that hold the person's address, name, device or link, in any provider's spelling.
_PERSONAL = re.compile(r"(?i)mail|phone|number|address|profile|waid|agent|url|link|body|text|name$|^(to|from|ip|smtp-id)$")
_ADDRESS = re.compile(r"[^\s<>]+@[^\s<>]+|(?<![\w-])\+?\d(?:[ ().-]?\d){8,14}(?![\w-])")
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")  # PostgreSQL can store neither
HIDDEN = "…"


def extra_fields(fields: Mapping[str, object], known: Collection[str]) -> dict[str, str]:
    """Return the fields that are not `known`, as short text. Drops personal fields, and hides addresses inside texts."""
    names = [name for name in fields if name not in known and not _PERSONAL.search(name)]
    return {_redact(name): _redact(_text(fields[name])) for name in names[:FIELDS_MAX]}


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _redact(text: str) -> str:
    return _UNSTORABLE.sub("\ufffd", _ADDRESS.sub(HIDDEN, text[: 4 * LENGTH_MAX]))[:LENGTH_MAX]

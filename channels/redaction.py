"""Fields of providers' news that no rule knows: kept for people to read, without what leads to the addressee. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping

FIELDS_MAX = 32
LENGTH_MAX = 300

# Names of fields that hold an address, a name, a device or a link of the person's, in whatever spelling a provider chooses.
_PERSONAL = re.compile(r"(?i)mail|phone|number|address|profile|waid|agent|url|link|body|text|name$|^(to|from|ip|smtp-id)$")
_ADDRESS = re.compile(r"[^\s<>]+@[^\s<>]+|(?<![\w-])\+?\d(?:[ ().-]?\d){8,14}(?![\w-])")
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")  # PostgreSQL keeps neither
HIDDEN = "…"


def extra_fields(fields: Mapping[str, object], known: Collection[str]) -> dict[str, str]:
    """The fields that are not `known`, as text, cut to a sane size: without personal ones, and addresses inside a text hidden."""
    kept = [name for name in fields if name not in known and not _PERSONAL.search(name)]
    return {_redact(name): _redact(_text(fields[name])) for name in kept[:FIELDS_MAX]}


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _redact(text: str) -> str:
    return _UNSTORABLE.sub("\ufffd", _ADDRESS.sub(HIDDEN, text[: 4 * LENGTH_MAX]))[:LENGTH_MAX]

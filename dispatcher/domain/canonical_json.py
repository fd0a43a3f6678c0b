"""One form for JSON that says the same: what the digests of submissions are computed over. Pure.

The order of keys does not count, 9000.0 is 9000, and an instant is the same in every zone.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

# RFC 3339 with a zone, as people and machines write it. Other texts count as they are.
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d([.,]\d{1,6})?)?([Zz]|[+-]\d\d:?\d\d)")
_INSTANT_LENGTH_MIN = len("2026-11-23T11:00Z")
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode  # made once: `json.dumps` makes one for each call


def canonical_json(value: Any) -> bytes:
    """The canonical JSON of a value; equal for values that say the same."""
    return _encode(canonical(value)).encode()


def canonical(value: Any) -> Any:
    """The value with numbers, instants and containers in one form."""
    kind = type(value)  # of parsed JSON; looked at first, because an audience has millions of values
    if kind is str:
        return _text(value) if len(value) >= _INSTANT_LENGTH_MIN and value[4] == "-" else value
    if kind is int or kind is bool or value is None:
        return value
    if isinstance(value, dict):
        return {str(key): canonical(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(each) for each in value]
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).isoformat()
    return str(value)  # an enumeration's value, or a date


def _text(text: str) -> str:
    if _INSTANT.fullmatch(text):
        try:
            return datetime.fromisoformat(text.upper().replace(",", ".")).astimezone(UTC).isoformat()
        except (ValueError, OverflowError):
            pass  # such as the 30th of February
    return text

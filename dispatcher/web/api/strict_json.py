"""JSON from outside, read strictly: everything accepted can be stored unchanged. Raises `BadInput`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from pydantic_core import from_json

from dispatcher.intake.errors import BadInput, InputError

INTEGER_MAX = 2**63 - 1


def read_object(body: bytes) -> dict[str, Any]:
    """A JSON object without NaN, lone surrogates, NUL (PostgreSQL stores none) or numbers that other programs read differently."""
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise BadInput(InputError("body", 0, "", f"is not JSON: {error}")) from None
    if not isinstance(value, dict):
        raise BadInput(InputError("body", 0, "", "should be a JSON object"))
    fault = next(_faults(value, ""), None)
    if fault is not None:
        raise BadInput(fault)
    return value


def _faults(value: Any, field: str) -> Iterator[InputError]:
    if isinstance(value, dict):
        for key, item in value.items():
            if "\0" in key:
                yield InputError("body", 0, field, "has a field with the character U+0000 in its name")
            yield from _faults(item, f"{field}.{key}" if field else key)
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _faults(item, f"{field}.{place}" if field else str(place))
    elif isinstance(value, str) and "\0" in value:
        yield InputError("body", 0, field, "contains the character U+0000")
    elif isinstance(value, int) and abs(value) > INTEGER_MAX:
        yield InputError("body", 0, field, "is a whole number of more than 64 bits")
    elif isinstance(value, float) and not math.isfinite(value):
        yield InputError("body", 0, field, "is a number too large to be stored")

"""JSON from outside, read strictly: everything accepted can be stored unchanged. Raises `BadInput`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from pydantic_core import from_json

from dispatcher.intake.errors import BadInput, InputError
from dispatcher.intake.json_limits import DEPTH_TEXT, VALUES_MAX, TooLarge, check_json_size, check_size
from dispatcher.intake.json_names import REPEATED, repeated_name

INTEGER_MAX = 2**63 - 1


def read_object(body: bytes, values_max: int = VALUES_MAX) -> dict[str, Any]:
    """A JSON object without NaN, lone surrogates, NUL (PostgreSQL stores none), names that occur twice in an object, or
    numbers that other programs read differently. Raises `TooLarge` for one of more values, or nested too deeply.
    """
    check_json_size(body, values_max)
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        if "recursion limit" in str(error):
            raise TooLarge(InputError("body", 0, "", DEPTH_TEXT)) from None
        raise BadInput(InputError("body", 0, "", f"is not JSON: {error}")) from None
    if not isinstance(value, dict):
        raise BadInput(InputError("body", 0, "", "should be a JSON object"))
    check_size(value, "body", values_max)
    fault = next(_faults(value, ""), None)
    if fault is None and (name := repeated_name(body)) is not None:
        fault = InputError("body", 0, name, REPEATED)
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

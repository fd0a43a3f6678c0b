"""Names that occur twice in one JSON object. RFC 8259 leaves open which value counts, so programs may read different orders."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from pydantic_core import from_json

REPEATED = "occurs twice in one object"
READINGS_MAX = 20
_BETWEEN = re.compile(r"[ \t,;]*")
_NAME_END = re.compile(r'"\s*:')


class _RepeatedName(Exception):
    """A name occurs twice in one object."""


def repeated_name(text: str | bytes) -> str | None:
    """The first name that occurs twice in one object of this JSON text; None where there is none."""
    try:
        json.loads(text, object_pairs_hook=_unique_names)
    except _RepeatedName as error:
        return str(error)
    return None


def may_repeat_names(text: str, value: Any) -> bool:
    """Whether a text that was read as `value` has more names than the value: cheap, and true for some texts that repeat none."""
    return len(_NAME_END.findall(text)) > _names(value)


def all_readings(text: str, strict: bool = True) -> tuple[Any, ...]:
    """The ways to read a text whose names occur several times: with the last value of each, the first, the second …

    Without `strict` control characters may stand in its strings.
    """
    most = 1

    def count(pairs: Sequence[tuple[str, Any]]) -> None:
        nonlocal most
        most = max(most, *Counter(name for name, _ in pairs).values(), 1)

    json.loads(text, object_pairs_hook=count, strict=strict)
    places = range(-1, min(most, READINGS_MAX) - 1)
    return tuple(json.loads(text, object_pairs_hook=partial(_with_values_at, place), strict=strict) for place in places)


def objects_in(text: str) -> tuple[tuple[dict[str, Any], ...], ...]:
    """The objects that can be read from a line that is not one JSON object: cut short, in a list, or with something after it. Each
    with its readings, as in `all_readings`.
    """
    text = text.replace("\0", "").strip(" \t\r\n,;\ufeff\u200b")
    text = re.sub(r",\s*(?=[}\]])", "", text)
    try:
        readings = all_readings(text)
    except (ValueError, RecursionError):
        return _leading_objects(text)
    lists = (value if isinstance(value, list) else [value] for value in readings)
    objects = (tuple(each for each in readings_of_one if isinstance(each, dict)) for readings_of_one in zip(*lists, strict=False))
    return tuple(filter(None, objects))


def _leading_objects(text: str) -> tuple[tuple[dict[str, Any], ...], ...]:
    """The objects with which a text begins, each with its readings, and of the last one as much as is there."""
    decoder, place = json.JSONDecoder(strict=False), 0
    found: list[tuple[Any, ...]] = []
    try:
        while place < len(text):
            _, end = decoder.raw_decode(text, place)
            found.append(all_readings(text[place:end], strict=False))
            place = _BETWEEN.match(text, end).end()  # type: ignore[union-attr]  # it always matches
    except (ValueError, RecursionError):
        with suppress(ValueError):
            found.append((from_json(text[place:].encode("utf-8", "replace"), allow_partial=True),))
    objects = (tuple(each for each in readings if isinstance(each, dict)) for readings in found)
    return tuple(filter(None, objects))


def _with_values_at(place: int, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, list[Any]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return {name: each[min(place, len(each) - 1)] for name, each in values.items()}


def _unique_names(pairs: Sequence[tuple[str, Any]]) -> None:
    names: set[str] = set()
    for name, _ in pairs:
        if name in names:
            raise _RepeatedName(name)
        names.add(name)


def _names(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(_names(each) for each in value.values() if isinstance(each, dict | list))
    if isinstance(value, list):
        return sum(_names(each) for each in value if isinstance(each, dict | list))
    return 0

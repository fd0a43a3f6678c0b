"""The opt-outs in a row that is refused: recorded wherever they and the row's id can be read.

Here values are read more widely than in rows that are taken: what is clearly a no counts in any spelling. What is neither clearly
a no nor a yes changes nothing; the row is refused and reported in any case.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dispatcher.domain.notation import FALSE, TRUE, trim
from dispatcher.domain.preferences import Change, changes
from dispatcher.domain.recipient import LANGUAGES
from dispatcher.intake.recipient import ChannelsBlock, Identifier, OffersBlock

_ID = TypeAdapter(Identifier)
_PERSONS = ("customer", "former", "platform_user", "prospect")
_NO_WORDS = """
    n f off uit aus out niet nicht pas not none geen aucun aucune kein keine never nooit jamais nie disabled opt-out optout
    unsubscribed
"""
_NO = FALSE.union(_NO_WORDS.split())
_YES = TRUE.union(["j", "y", "x", "×", "✓", "✔", "☑", "☒", "on", "aan", "ein", "an", "enabled"])
_AROUND = " \t\"'`.,;:!()[]{}<>«»„“”‘’\u200b\ufeff"
_ZERO_OR_ONE = re.compile(r"([01])(?:[.,]0*)?")


@dataclass(frozen=True, slots=True)
class RefusedOptOuts:
    """The opt-outs in a row that is refused otherwise. `person` and `language` are None where those of the row are not valid."""

    id: str
    changes: tuple[Change, ...]
    person: str | None = None
    language: str | None = None


def opt_outs_in(readings: Sequence[Mapping[str, Any]]) -> RefusedOptOuts | None:
    """The opt-outs in plain data of which other parts may be wrong; None where the id cannot be read, or there is none.

    Of several readings of one row each opt-out counts, because a message too few is the smaller harm.
    """
    cells = [_cells(data) for data in readings]
    ids = {recipient_id for each in cells for value in each["id"] if (recipient_id := _id(value))}
    if len(ids) != 1:
        return None
    refused = tuple(dict.fromkeys(change for each in cells for change in _opt_outs(each)))
    if not refused:
        return None
    person, language = ([value for value in cells[0][name] if value in valid] for name, valid in _KNOWN)
    return RefusedOptOuts(ids.pop(), refused, person[0] if person else None, language[0] if language else None)


_KNOWN = (("person", _PERSONS), ("language", LANGUAGES))


def _cells(data: Mapping[str, Any]) -> Mapping[str, list[Any]]:
    """The values by dotted name in small letters, whichever way they are nested. Names that differ in capitals are one."""
    cells: defaultdict[str, list[Any]] = defaultdict(list)
    for name, value in _flat(data, ""):
        cells[name].append(value)
    return cells


def _flat(data: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        name = prefix + re.sub(r"[\s-]+", "_", trim(str(key).replace("\0", "")).casefold())
        if isinstance(value, dict) and not prefix:
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _id(value: Any) -> str | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    try:
        return _ID.validate_python(trim(text.replace("\0", "")) if isinstance(text, str) else text, strict=True)
    except ValidationError:
        return None


def _opt_outs(cells: Mapping[str, list[Any]]) -> tuple[Change, ...]:
    def says(name: str, meaning: bool) -> bool:
        return any(_meaning(value) is meaning for value in cells[name])

    return changes(
        {name: "none" for name in OffersBlock.model_fields if says(f"offers.{name}", False) or says("offers", False)},
        {name: False for name in ChannelsBlock.model_fields if says(f"channels.{name}", False) or says("channels", False)},
        says("object_marketing", True) or None,
        says("object_profiling", True) or None,
    )


def _meaning(value: Any) -> bool | None:
    """Yes, no, or None for anything else."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool):
        return value
    if not isinstance(value, str | int | float):
        return None
    word = trim(str(value).replace("\0", "")).strip(_AROUND).casefold()
    number = _ZERO_OR_ONE.fullmatch(word)
    word = number[1] if number else word
    return True if word in _YES else False if word in _NO else None

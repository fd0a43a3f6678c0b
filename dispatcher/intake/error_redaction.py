"""Errors without values: what may be stored and logged about input that holds personal data.

An error's message may quote a value, and its field may be a key that the caller made up. So field names stay only where this
program knows them. Of a message, what is in quotes and what the input holds too is left out, unless it is a known word.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from dispatcher.domain.notation import READINGS
from dispatcher.domain.refused_job import JobError
from dispatcher.intake.errors import InputError

ERRORS_MAX = 10
LENGTH_MAX = 300  # of a message
LEFT_OUT = "…"
FORM_FILES = frozenset({"job", "campaign", "approval"})  # the `file` of errors in the arguments themselves
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")


def without_values(errors: Iterable[InputError], given: Any, known: Collection[str]) -> tuple[JobError, ...]:
    """The first errors without any value of `given`, the input. `known` are the words that may stay.

    An error in a file that the input names can quote any cell: only its line stays.
    """
    texts = {text for text in _texts(given) if len(text) > 1 and text not in known}
    safe = [
        JobError(_field(error.field, known), _message(error.message, texts, known)) if error.file in FORM_FILES else _in_file(error)
        for error in errors
    ]
    more = len(safe) - ERRORS_MAX
    return (*safe[:ERRORS_MAX], *((JobError("", f"and {more} more errors"),) if more > 0 else ()))


def _in_file(error: InputError) -> JobError:
    where = f"line {error.line} of the file" if error.line else "the file"
    return JobError("audience", f"{where} cannot be read; `dispatcher campaign submit FILE --dry-run` says why")


def _field(field: str, known: Collection[str]) -> str:
    return ".".join(part if part in known or part.isdecimal() else LEFT_OUT for part in field.split(".")) if field else ""


def _message(message: str, texts: Collection[str], known: Collection[str]) -> str:
    head, readings, _values = message.partition(READINGS)
    message = head + readings
    message = _QUOTED.sub(lambda quoted: quoted[0] if (quoted[1] or quoted[2]) in known else f"'{LEFT_OUT}'", message)
    lower = message.lower()
    for text in sorted((text for text in texts if text.lower() in lower), key=len, reverse=True):
        message = re.sub(rf"(?<!\w){re.escape(text)}(?!\w)", LEFT_OUT, message, flags=re.IGNORECASE)
    return message[:LENGTH_MAX]


def _texts(value: Any) -> Iterator[str]:
    """All keys and scalar values, as text. A stack, as input may be nested deeper than Python's calls."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            waiting.extend(each)
            waiting.extend(each.values())
        elif isinstance(each, list | tuple):
            waiting.extend(each)
        elif isinstance(each, str | int | float) and not isinstance(each, bool):
            yield str(each)

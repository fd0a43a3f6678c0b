"""Limits for JSON from outside, measured before anything is made of it: a body of 28 MB that says `[1,1,1,…]` takes ten times that
much memory once it is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import islice
from typing import Any

from dispatcher.intake.errors import BadInput, InputError

VALUES_MAX = 50_000  # of a body: values are numbers, texts, lists, objects …
CAMPAIGN_VALUES_MAX = 2_000_000  # 300,000 rows with three variables each; a larger audience comes as a file
DEPTH_MAX = 100

_TEXT_OR_SEPARATOR = re.compile(rb'"(?:[^"\\]|\\.)*+"|[,\[{]', re.DOTALL)
_SEPARATORS = (b",", b"[", b"{")  # each value but the first follows one of these


class TooLarge(BadInput):
    """Input that is not read, because it is larger than a limit. The message names the limit."""


def check_json_size(body: bytes, values_max: int = VALUES_MAX) -> None:
    """Raise `TooLarge` for a JSON text of more values than this."""
    if sum(map(body.count, _SEPARATORS)) < values_max:  # also counts those in texts; the count below is exact, and slow
        return
    outside_texts = (True for found in _TEXT_OR_SEPARATOR.finditer(body) if not found[0].startswith(b'"'))
    if next(islice(outside_texts, values_max - 1, None), False):
        raise TooLarge(InputError("body", 0, "", values_text(values_max)))


def check_size(value: Any, file: str, values_max: int = VALUES_MAX) -> None:
    """The same for JSON that somebody else has read, such as the arguments of a Celery task; also for what is nested too deeply."""
    level: Iterable[Any] = (value,)
    count = 0
    for _ in range(DEPTH_MAX + 1):
        below: list[Any] = []
        for each in level:
            count += 1
            if count > values_max:
                raise TooLarge(InputError(file, 0, "", values_text(values_max)))
            if isinstance(each, dict) and each:
                below.append(each.values())
            elif isinstance(each, list) and each:
                below.append(each)
        if not below:
            return
        level = (item for part in below for item in part)
    raise TooLarge(InputError(file, 0, "", DEPTH_TEXT))


def is_utf8(value: Any) -> bool:
    """Whether the texts of a JSON value can be written as UTF-8: `"\\ud800"` is valid JSON, and no Unicode character."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def values_text(values_max: int) -> str:
    """What is wrong with input of more values than this."""
    return f"holds more than {values_max:,} values, which is the limit here"


DEPTH_TEXT = f"is nested more than {DEPTH_MAX} levels deep, which is the limit"

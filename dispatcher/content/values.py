"""The types of template variables, and how values from outside are converted to them. Pure.

All functions raise ValueError with a message that does not repeat the value: it may be logged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from dispatcher.domain.notation import ambiguous_number

TEXT_CHARACTERS_MAX = 1_000
URL_CHARACTERS_MAX = 2_000
_NUMBER_MAX = Decimal(10) ** 12
_NUMERIC = (int, float, str, Decimal)
_CACHED = frozenset({int, float, str})
_TEXTUAL = (str, int)

# Line breaks would end a header or a WhatsApp variable, and bidirectional overrides reverse the text around them.
_CONTROLS = (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_UNPRINTABLE = dict.fromkeys(_CONTROLS, " ")


def one_line(text: str) -> str:
    """The same text without control characters, line breaks and direction overrides."""
    return text if text.isprintable() else text.translate(_UNPRINTABLE)


def read_text(value: Any) -> str:
    """A string of one line, at most TEXT_CHARACTERS_MAX long. Integers are accepted as text."""
    if isinstance(value, bool) or not isinstance(value, _TEXTUAL):
        raise ValueError("must be text")
    text = one_line(str(value)).strip()
    if len(text) > TEXT_CHARACTERS_MAX:
        raise ValueError(f"is longer than {TEXT_CHARACTERS_MAX} characters")
    return text


def read_number(value: Any) -> Decimal:
    """A finite number. Strings have a decimal point, as in JSON and CSV, in every language."""
    if type(value) in _CACHED:
        return _cached_number(value)
    if isinstance(value, bool) or not isinstance(value, _NUMERIC):
        raise ValueError("must be a number")
    return _parse_number(value)


def read_money(value: Any) -> Decimal:
    """An amount of euro: a number, but not a text with three decimals, which are thousands to many who write amounts."""
    if isinstance(value, str) and ambiguous_number(value):
        raise ValueError("has two readings: an amount in a text has two decimals or none")
    return read_number(value)


@lru_cache(maxsize=8_192, typed=True)  # amounts and rates repeat, and identify nobody
def _cached_number(value: float | str) -> Decimal:
    return _parse_number(value)


def _parse_number(value: float | str | Decimal) -> Decimal:
    text = str(value)
    if not text.isascii() or "_" in text:
        raise ValueError("must be a number written with ASCII digits")
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError("must be a number such as 12.50") from None
    if not number.is_finite() or abs(number) >= _NUMBER_MAX:
        raise ValueError("is out of range")
    return number or abs(number)  # "-0" becomes "0"


def read_date(value: Any) -> date:
    """A date, given as `date` or as YYYY-MM-DD."""
    if isinstance(value, datetime):
        raise ValueError("must be a day without a time")
    if isinstance(value, date):
        return value
    if not isinstance(value, str):
        raise ValueError("must be a day written YYYY-MM-DD")
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise ValueError("must be a day written YYYY-MM-DD") from None


def read_url(value: Any) -> str:
    """An https address in ASCII, without user name and password."""
    if not isinstance(value, str):
        raise ValueError("must be an https address")
    return _url(value)


@lru_cache(maxsize=1_024)  # a campaign sends the same few addresses to all recipients
def _url(value: str) -> str:
    if len(value) > URL_CHARACTERS_MAX or not value.isascii() or not value.isprintable() or set(value) & set(" \"'<>\\`{}|^"):
        raise ValueError("must be an https address of plain ASCII")
    try:
        parts = urlsplit(value)
    except ValueError:
        raise ValueError("must be an https address") from None
    if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc:
        raise ValueError("must be an https address")
    return value


READERS: Mapping[str, Callable[[Any], Any]] = {
    "text": read_text,
    "number": read_number,
    "money": read_money,
    "date": read_date,
    "url": read_url,
}

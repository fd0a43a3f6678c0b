"""How people and spreadsheets write numbers, dates, truth values and empty cells. Pure: standard library only.

What has two readings is refused with both, because a guess is a wrong amount in an offer.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from datetime import date
from decimal import Decimal
from enum import StrEnum

MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")
TRUE = frozenset({"true", "waar", "vrai", "wahr", "ja", "oui", "yes", "1"})
FALSE = frozenset({"false", "onwaar", "faux", "falsch", "nee", "non", "nein", "no", "0"})


READINGS = "has two readings"  # begins each message that shows readings, and so a value


class Notation(StrEnum):
    """By which rules the numbers and dates of a row are written."""

    JSON = "json"  # typed values; a number in a string has a decimal point
    POINT = "point"  # a comma-separated file: a decimal point
    LOCAL = "local"  # separated by semicolons or tabs, or a workbook: a spreadsheet's locale, which nobody names


# Blanks, and what copying from a web page, a document or a contact adds unseen: zero-width and soft characters, the byte order
# mark, bidirectional marks. All of them are categories Z and Cf, and the control characters that separate text.
_INVISIBLE = "".join(
    character
    for character in map(chr, (*range(0x3100), 0xFE00, 0xFE0F, 0xFEFF, *range(0xFFF9, 0xFFFC)))
    if character.isspace() or unicodedata.category(character) in {"Cf", "Zs", "Zl", "Zp"} or character in "\ufe00\ufe0f"
)


def trim(text: str) -> str:
    """The text without blanks and invisible characters around it."""
    return text.strip(_INVISIBLE)


# -- numbers -----------------------------------------------------------------------------------------------------------

_BLANKS = str.maketrans("", "", " \u00a0\u2009\u202f")
_PLAIN = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?", re.ASCII)
_CURRENCY = re.compile(r"^(?:€|EUR)|(?:€|EUR)$")
_GROUPS = re.compile(r"[+-]?[0-9]{1,3}(?:[ \u00a0\u2009\u202f][0-9]{3})*(?:[.,][0-9]+)?|[+-]?[0-9][0-9.,]*", re.ASCII)
# One separator before three digits, with or without blanks and zeros before it. A zero alone before it makes them decimals.
_THOUSANDS = re.compile(r"[+-]?0*[1-9][0-9]{0,2}(?:[ \u00a0\u2009\u202f][0-9]{3})*[.,][0-9]{3}", re.ASCII)


def number(text: str, notation: Notation, is_money: bool) -> str:
    """A number with a decimal point and nothing else, from the text of a cell. Raises ValueError.

    A single separator before exactly three digits groups thousands or begins decimals. In a file with a locale the point could be
    either; the comma is its decimal separator, but no amount of money has three decimals.
    """
    plain = _CURRENCY.sub("", trim(text)).strip(_INVISIBLE)
    if notation is Notation.JSON or not _GROUPS.fullmatch(plain):
        return plain
    if _THOUSANDS.fullmatch(plain) and _is_ambiguous(plain, notation, is_money):
        raise ValueError(_two_numbers(plain))
    plain = plain.translate(_BLANKS)
    points, commas = plain.count("."), plain.count(",")
    if points and commas:
        decimal = "." if plain.rindex(".") > plain.rindex(",") else ","
        return _ungrouped(plain, "," if decimal == "." else ".", decimal)
    if points > 1 or commas > 1:
        return _ungrouped(plain, "." if points else ",", "")
    return plain.replace(",", ".")


def ambiguous_number(text: str) -> str | None:
    """Why a text that is written like a number with a point has two readings, or None."""
    plain = _CURRENCY.sub("", trim(text)).strip(_INVISIBLE)
    return _two_numbers(plain) if "." in plain and _THOUSANDS.fullmatch(plain) else None


def _is_ambiguous(plain: str, notation: Notation, is_money: bool) -> bool:
    return is_money or ("," if notation is Notation.POINT else ".") in plain


def _ungrouped(plain: str, group: str, decimal: str) -> str:
    """The number without its groups of thousands. Raises ValueError where they are not groups of three."""
    whole, _, fraction = plain.partition(decimal) if decimal else (plain, "", "")
    head, *groups = whole.lstrip("+-").split(group)
    if (
        not 1 <= len(head) <= 3
        or any(len(part) != 3 or not part.isdigit() for part in groups)
        or (decimal and not fraction.isdigit())
    ):
        raise ValueError("must be a number such as 12.50 or 12,50")
    sign = "-" if plain.startswith("-") else ""
    return f"{sign}{head}{''.join(groups)}" + (f".{fraction}" if fraction else "")


def _two_numbers(plain: str) -> str:
    plain = plain.translate(_BLANKS)
    thousands, decimals = int(plain.replace(".", "").replace(",", "")), Decimal(plain.replace(",", ".")).normalize()
    spelled = f"{decimals:.2f}" if decimals == round(decimals, 2) else f"{decimals:.4f}"
    return f"{READINGS}, {thousands} and {decimals:f}: write {thousands} or {spelled}"


# -- dates -------------------------------------------------------------------------------------------------------------

_DATE = re.compile(r"([0-9]{1,2})([-/.])([0-9]{1,2})\2([0-9]{4})", re.ASCII)
_MIDNIGHT = re.compile(r"[T ]00?:00(?::00(?:\.0+)?)?$")


def day(text: str) -> str:
    """A date as YYYY-MM-DD, from the text of a cell; text in no known form as it is. Raises ValueError for two readings.

    Points between the numbers mean day first (nl, fr, de). Strokes and dashes are also written with the month first, as in the USA.
    """
    plain = _MIDNIGHT.sub("", trim(text))
    match = _DATE.fullmatch(plain)
    if match is None:
        return plain
    first, second, year = int(match[1]), int(match[3]), int(match[4])
    readings = _days(year, ((second, first),) if match[2] == "." else ((second, first), (first, second)))
    if len(readings) > 1:
        both = " and ".join(f"{reading.day} {MONTHS[reading.month - 1]} {reading.year}" for reading in readings)
        raise ValueError(f"{READINGS}, {both}: write {' or '.join(map(str, readings))}")
    return str(readings[0]) if readings else plain


def _days(year: int, months_and_days: Collection[tuple[int, int]]) -> list[date]:
    days = []
    for month, day_of_month in months_and_days:
        try:
            days.append(date(year, month, day_of_month))
        except ValueError:
            continue
    return list(dict.fromkeys(days))


# -- other cells -------------------------------------------------------------------------------------------------------


def truth(text: str) -> bool:
    """True or false, in the words of four languages. Raises ValueError."""
    word = trim(text).casefold()
    if word not in TRUE | FALSE:
        raise ValueError("should be true or false")
    return word in TRUE


# What programs write where a value is missing. By exact letters: Null and Nan are names of people.
_MISSING = frozenset({
    *("NULL", "null", "(null)", "<null>", "nan", "NaN", "NAN", "None", "NONE", "none", "nil", "NIL", "undefined", "Undefined"),
    *("N/A", "n/a", "#N/A", "#N/B", "#NV", "NaT", "<NA>", "#REF!", "#VALUE!", "#NAME?", "#DIV/0!", "#NUM!", "#NULL!", "#WAARDE!"),
    *("#NOM?", "#VALEUR!", "#NAAM?", "#VERW!", "#WERT!", "[object Object]"),
})  # fmt: skip
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{%|\$\{|<%|<<.*>>|\*\||\|\*|\[\[.*\]\]|%[A-Za-z_]+%")


def placeholder(value: object) -> str | None:
    """Why this is no value of a person but what a program wrote in its place, or None."""
    if not isinstance(value, str):
        return None
    text = trim(value)
    if text in _MISSING:
        return "is what a program writes for a missing value; leave the cell empty"
    return "holds the mark of a template that was not filled in" if _PLACEHOLDER.search(text) else None


_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # what `surrogateescape` makes of bytes that are not UTF-8


def as_windows_1252(text: str) -> str:
    """The text with bytes that are not UTF-8 read as Windows-1252: a no-break space after an opt-out does not hide it."""
    return text.encode("utf-8", "surrogateescape").decode("cp1252", "replace") if _NOT_UTF8.search(text) else text


_MISREAD = re.compile("[\u00c2-\u00f4][\u0080-\u00bf\u0152-\u2122]")


def is_misread(text: str) -> bool:
    """Whether this is UTF-8 that was read as Windows-1252 and saved again: each accented letter is now two or three others."""
    if not _MISREAD.search(text):
        return False
    for encoding in ("cp1252", "latin-1"):
        try:
            return text.encode(encoding).decode("utf-8") != text
        except UnicodeError:
            continue
    return False

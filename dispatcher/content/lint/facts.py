"""The amounts, percentages and days in a text, in one form for all languages. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from functools import lru_cache

from babel.dates import get_month_names

from dispatcher.content.declaration import TemplateVariable
from dispatcher.content.formats import LOCALES, day, money
from dispatcher.content.values import READERS
from dispatcher.domain.recipient import Language

_NUMBER = r"(?<![0-9])(?:[0-9]{1,3}(?:[.,\u00a0\u202f ][0-9]{3})+|[0-9]+)(?:[.,][0-9]{1,2})?(?![0-9])"
_AMOUNT = re.compile(
    rf"(?:€|EUR|euro)[\s\u00a0]?({_NUMBER})|({_NUMBER})[\s\u00a0\u202f]?(?:€|EUR\b|euros?\b|Euro\b|%)", re.IGNORECASE
)
# 31/03/2027, 31.3.2027, 31-03-27: Belgium writes the day first, in all its languages
_IN_DIGITS = re.compile(r"(?<![\w/.-])([0-9]{1,2})([/.-])([0-9]{1,2})\2((?:20)?[0-9]{2})(?![\w/-]|[.,][0-9])")
_ISO = re.compile(r"(?<![\w/.-])(20[0-9]{2})-([0-9]{2})-([0-9]{2})(?![\w/-])")
_FORMATS: Mapping[str, Callable[..., str]] = {"money": money, "date": day}
_DAYS_MAX, _MONTHS = 31, 12


def facts(text: str, language: Language) -> Mapping[str, str]:
    """What a text says, each as it is written there. A day is "day 2027-3-31", or "day 3-31" where no year stands beside it."""
    return {**amounts(text), **days(text, language)}


def example_facts(variable: TemplateVariable, language: Language) -> Mapping[str, str]:
    """What a text says with the example of a variable, formatted as its type is."""
    value = variable.example[language]
    show = _FORMATS.get(variable.type)
    return facts(show(language, READERS[variable.type](value)) if show else str(value), language)


def days(text: str, language: Language) -> Mapping[str, str]:
    """The days in a text, in words or in digits."""
    found: dict[str, str] = {}
    pattern, months = _in_words(language)
    for match in pattern.finditer(text):
        day, month, year = (
            (match["day"], match["month"], match["year"]) if match["day"] else (match["day_2"], match["month_2"], match["year_2"])
        )
        found.setdefault(_key(year, months[month.lower()], day), match[0])
    for match in _IN_DIGITS.finditer(text):
        if int(match[1]) <= _DAYS_MAX and int(match[3]) <= _MONTHS:
            found.setdefault(_key(match[4], int(match[3]), match[1]), match[0])
    for match in _ISO.finditer(text):
        found.setdefault(_key(match[1], int(match[2]), match[3]), match[0])
    return found


def without_years(said: Iterable[Mapping[str, str]]) -> frozenset[str]:
    """The days that one of the texts writes without a year: compared with the others, their years do not count."""
    return frozenset(key for each in said for key in each if key.startswith("day ") and key.count("-") == 1)


def comparable(said: Mapping[str, str], yearless: frozenset[str]) -> Mapping[str, str]:
    """The facts of a text, without the years of these days."""
    return {short if (short := _without_year(key)) in yearless else key: shown for key, shown in said.items()}


def _without_year(key: str) -> str:
    return f"day {key.partition('-')[2]}" if key.startswith("day ") and key.count("-") > 1 else key


def _key(year: str | None, month: int, day: str) -> str:
    return f"day {2000 + int(year) % 100}-{month}-{int(day)}" if year else f"day {month}-{int(day)}"


@lru_cache(maxsize=4)
def _in_words(language: Language) -> tuple[re.Pattern[str], Mapping[str, int]]:
    """A pattern of days such as "31 augustus 2026", "1er mars" or "March 31, 2027", and the numbers of the months."""
    months = {
        name.lower().removesuffix("."): number
        for width in ("abbreviated", "wide")
        for number, name in get_month_names(width, locale=LOCALES[language]).items()
    }
    names = "|".join(sorted(map(re.escape, months), key=len, reverse=True))
    blank = r"[\s\u00a0\u202f]"
    return re.compile(
        rf"(?<![\w.,/-])(?P<day>[0-9]{{1,2}})(?:\.|er|st|nd|rd|th)?{blank}(?P<month>{names})\b\.?(?:,?{blank}(?P<year>20[0-9]{{2}})\b)?"
        rf"|\b(?P<month_2>{names})\.?{blank}(?P<day_2>[0-9]{{1,2}})(?:st|nd|rd|th)?\b(?:,?{blank}(?P<year_2>20[0-9]{{2}})\b)?",
        re.IGNORECASE,
    ), months


def amounts(text: str) -> Mapping[str, str]:
    """The amounts of money and the percentages in a text, as plain numbers, each as it is written there."""
    found: dict[str, str] = {}
    for match in _AMOUNT.finditer(text):
        number = match[1] or match[2]
        found.setdefault(_plain(number) + ("%" if match[0].rstrip().endswith("%") else ""), match[0])
    return found


def _plain(number: str) -> str:
    """A number as written in any of the four languages, in one form: "1.500,50" and "1,500.50" are "1500.5"."""
    whole, mark, cents = number, "", ""
    if found := re.search(r"([.,])([0-9]{1,2})\Z", number):
        whole, mark, cents = number[: found.start()], ".", found[2]
    digits = re.sub(r"[^0-9]", "", whole)
    return f"{Decimal(f'{digits}{mark}{cents}').normalize():f}"

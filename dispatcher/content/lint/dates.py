"""Days that no calendar has, and days of the week that do not go with their date."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from functools import lru_cache

from babel.dates import get_day_names

from dispatcher.content.formats import LOCALES
from dispatcher.content.lint.facts import days
from dispatcher.content.lint.findings import LintFinding
from dispatcher.content.lint.samples import LintSample
from dispatcher.domain.recipient import Language

LEAP_YEAR = 2028  # for a day without a year: 29 February is one
_MONTH_FIRST = re.compile(r"(?<![\w/.-])[0-9]{1,2}/(?:1[3-9]|2[0-9]|3[01])/(?:20)?[0-9]{2}(?![\w/-])")


def dates(sample: LintSample) -> Iterator[LintFinding]:
    """The findings in one message."""
    language = sample.request.language
    for part, text in sample.texts:
        for found in _MONTH_FIRST.findall(text):
            message = "has its month first: Belgium writes the day first, in all its languages"
            yield sample.finding("T513", sample.place_of(part, found), part, message, found)
        for key, shown in days(text, language).items():
            if fault := _fault(key, shown, text, language):
                yield sample.finding("T513", sample.place_of(part, shown), part, fault, shown)


def _fault(key: str, shown: str, text: str, language: Language) -> str:
    *year, month, number = (int(each) for each in key.removeprefix("day ").split("-"))
    try:
        day = date(year[0] if year else LEAP_YEAR, month, number)
    except ValueError:
        return "is a day that no calendar has"
    names = _day_names(language)
    before = re.search(rf"\b({'|'.join(names)}),?\s+(?:\w+\s)?{re.escape(shown)}", text, re.IGNORECASE) if year else None
    if before and names[before[1].lower()] != day.weekday():
        return f"is no {before[1]}"
    return ""


@lru_cache(maxsize=4)
def _day_names(language: Language) -> dict[str, int]:
    return {name.lower(): number for number, name in get_day_names("wide", locale=LOCALES[language]).items()}

"""Format amounts, numbers, plurals and dates for a language, with Babel's CLDR data. Pure functions, cached.

The cache holds formatted numbers and dates, and nothing that identifies a person.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from functools import lru_cache

from babel import Locale
from babel.dates import format_date
from babel.numbers import format_currency, format_decimal, format_percent

from dispatcher.domain.recipient import Language

# There is no established Belgian convention for English; Belgian banks write British English.
LOCALES: Mapping[Language, Locale] = {
    "nl": Locale("nl", "BE"),
    "fr": Locale("fr", "BE"),
    "de": Locale("de", "BE"),
    "en": Locale("en", "GB"),
}
_CENT = Decimal("0.01")
_CACHED = 8_192


@lru_cache(maxsize=_CACHED)
def money(language: Language, amount: Decimal | int, currency: str = "EUR") -> str:
    """An amount; whole amounts without cents: "€ 1.500", "1 500 €", "€1,500.50"."""
    cents = Decimal(amount).quantize(_CENT) + 0  # no minus zero
    locale = LOCALES[language]
    whole = cents == cents.to_integral_value()
    pattern = locale.currency_formats["standard"].pattern
    return format_currency(
        cents, currency, format=pattern.replace(".00", "") if whole else pattern, locale=locale, currency_digits=False
    )


@lru_cache(maxsize=_CACHED)
def number(language: Language, value: Decimal | int) -> str:
    """A number with the language's separators and at most three decimals."""
    return format_decimal(_no_minus_zero(Decimal(value), 3), locale=LOCALES[language])


@lru_cache(maxsize=_CACHED)
def percent(language: Language, value: Decimal | int) -> str:
    """A percentage given as such (3.75 -> "3,75 %"), with at most two decimals."""
    locale = LOCALES[language]
    whole, _, sign = locale.percent_formats[None].pattern.partition("0")
    return format_percent(_no_minus_zero(Decimal(value), 2) / 100, format=f"{whole}0.##{sign}", locale=locale)


@lru_cache(maxsize=_CACHED)
def day(language: Language, value: date) -> str:
    """A day in words: "31 augustus 2026"."""
    return format_date(value, format="long", locale=LOCALES[language])


@lru_cache(maxsize=_CACHED)
def plural(language: Language, value: Decimal | int, one: str, other: str) -> str:
    """The word that goes with a number, as `number` writes it: "1 coin", "2 coins". French has 0 in the singular, too."""
    shown = round(Decimal(value), 3).normalize()
    return one if LOCALES[language].plural_form(abs(shown)) == "one" else other


def _no_minus_zero(value: Decimal, decimals: int) -> Decimal:
    """Zero for a value that is written as zero: "-0" is no number that a customer understands."""
    return value if round(value, decimals) else Decimal(0)

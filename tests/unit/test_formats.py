"""Amounts, numbers and dates follow the conventions of the language."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal

import pytest

from dispatcher.content.formats import day, money, number, percent, plural
from dispatcher.domain.recipient import Language


@pytest.mark.parametrize(
    ("language", "amount", "cents", "rate", "when", "many"),
    [
        ("nl", "€ 15.000", "€ 1.234,50", "5,49%", "1 maart 2027", "12.345,5"),
        ("fr", "15 000 €", "1 234,50 €", "5,49 %", "1 mars 2027", "12 345,5"),
        ("de", "15.000 €", "1.234,50 €", "5,49 %", "1. März 2027", "12.345,5"),
        ("en", "€15,000", "€1,234.50", "5.49%", "1 March 2027", "12,345.5"),
    ],
)
def test_amounts_and_dates_follow_the_reader_s_language(
    language: str, amount: str, cents: str, rate: str, when: str, many: str
) -> None:
    def spaced(text: str) -> str:
        return text.replace("\u00a0", " ").replace("\u202f", " ")

    format_value: Callable[..., str]
    for format_value, value, expected in (
        (money, Decimal(15_000), amount),
        (money, Decimal("1234.5"), cents),
        (percent, Decimal("5.49"), rate),
        (day, date(2027, 3, 1), when),
        (number, Decimal("12345.5"), many),
    ):
        assert spaced(format_value(language, value)) == expected


@pytest.mark.parametrize("value", ["0", "1", "1.0", "0.9999", "1.5", "2", "21", "1500", "-1"])
@pytest.mark.parametrize("language", ["nl", "fr", "de", "en"])
def test_a_word_goes_with_its_number(language: Language, value: str) -> None:
    # CLDR: Dutch, German and English have the singular for exactly 1, French for everything from 0 to below 2.
    shown = abs(round(Decimal(value), 3))
    singular = shown < 2 if language == "fr" else shown == 1
    assert plural(language, Decimal(value), "coin", "coins") == ("coin" if singular else "coins")


@pytest.mark.parametrize("value", ["-0", "-0.001", "-0.0004", "-0.00"])
@pytest.mark.parametrize("format_value", [money, percent, number])
def test_nothing_is_written_as_minus_zero(format_value: Callable[..., str], value: str) -> None:
    if format_value is number and value == "-0.001":
        assert "-" in format_value("nl", Decimal(value))  # it has three decimals
    else:
        assert "-" not in format_value("nl", Decimal(value))
    assert "-" in format_value("nl", Decimal("-0.01"))

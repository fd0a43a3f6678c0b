"""Amounts and days in texts of four languages, in one form."""

from __future__ import annotations

import pytest

from dispatcher.content.lint.facts import comparable, days, facts, without_years
from dispatcher.domain.recipient import Language


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("nl", "tot 31 maart 2027."),
        ("nl", "tot 31/03/2027."),
        ("nl", "tot 31-3-27"),
        ("nl", "2027-03-31"),
        ("fr", "jusqu’au 31\u00a0mars 2027"),
        ("fr", "le 31.03.2027"),
        ("de", "bis 31. März 2027"),
        ("de", "bis 31.3.2027"),
        ("en", "by March 31, 2027"),
        ("en", "31st Mar 2027"),
    ],
)
def test_a_day_has_one_form_in_all_spellings(language: Language, text: str) -> None:
    assert list(days(text, language)) == ["day 2027-3-31"]


@pytest.mark.parametrize("text", ["24/7", "1/3 van", "op 02/303.31.12", "versie 1.2", "99/99/2027", "BE68 5390 0754 7034"])
def test_what_only_looks_like_a_day_is_none(text: str) -> None:
    assert not days(text, "nl")


def test_a_day_without_a_year_is_compared_without() -> None:
    one, other = facts("tot 31 maart", "nl"), facts("jusqu’au 31 mars 2027", "fr")
    yearless = without_years((one, other))
    assert comparable(one, yearless).keys() == comparable(other, yearless).keys() == {"day 3-31"}
    assert comparable(facts("30 mars 2027", "fr"), yearless).keys() == {"day 2027-3-30"}


def test_a_year_before_an_amount_is_not_part_of_it() -> None:
    assert facts("31 mars 2027 100 % ou 1 500 €", "fr").keys() == {"day 2027-3-31", "100%", "1500"}

"""Errors that are stored or logged hold no value of the input, quoted or not."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher.domain.refused_job import JobError
from dispatcher.intake.error_redaction import ERRORS_MAX, without_values
from dispatcher.intake.errors import InputError

KNOWN = {"data", "amount", "loan_offer", "entity", "first_name"}


def redacted(message: str, given: Any = None, field: str = "", file: str = "job") -> str:
    (error,) = without_values([InputError(file, 3, field, message)], given, KNOWN)
    return str(error)


@pytest.mark.parametrize(
    ("message", "given", "shown"),
    [
        ("unknown entity 'Zoë'", {"entity": "Zoë"}, "unknown entity '…'"),
        (f"unknown entity {'Jan' + chr(10) + 'Peeters'!r}", {"entity": "Jan\nPeeters"}, "unknown entity '…'"),
        (f"unknown entity {chr(34)}Jan's{chr(34)}", {"entity": "Jan's"}, "unknown entity '…'"),
        ("Jan Peeters is no number", {"data": {"amount": "jan peeters"}}, "… is no number"),
        ("12.5 is too much", {"data": [{"amount": 12.5}]}, "… is too much"),
        ("the key Jan is unknown", {"data": {"Jan": 1}}, "the key … is unknown"),
        (
            "unknown template 'lone'; did you mean loan_offer?",
            {"a": "loan_offer"},
            "unknown template '…'; did you mean loan_offer?",
        ),
        ("has two readings, 12000 and 12: write 12000 or 12.00", {"data": {"amount": "12.000"}}, "has two readings"),
        ("missing", {"data": {"amount": "is"}}, "missing"),
    ],
)
def test_no_value_stays_in_a_message(message: str, given: Any, shown: str) -> None:
    assert redacted(message, given) == shown


def test_only_known_names_stay_in_a_field() -> None:
    assert redacted("wrong", field="data.amount") == "data.amount: wrong"
    assert redacted("wrong", field="data.Jan.3") == "data.….3: wrong"


def test_of_an_error_in_a_file_the_line_stays() -> None:
    assert redacted("column Jan", field="Jan", file="/x/jan.csv").startswith("audience: line 3 of the file cannot be read")


def test_many_errors_are_cut_short() -> None:
    errors = without_values([InputError("job", 0, "data", "wrong")] * (ERRORS_MAX + 7), {}, KNOWN)
    assert (len(errors), errors[-1]) == (ERRORS_MAX + 1, JobError("", "and 7 more errors"))


def test_deeply_nested_input_is_no_error() -> None:
    given: Any = "Jan"
    for _ in range(100_000):
        given = [given]
    assert redacted("Jan", given) == "…"

"""Campaign files in YAML: what reads as another value than it looks is refused, with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from dispatcher.intake.errors import BadInput
from dispatcher.intake.yaml_file import read_yaml


def fault(folder: Path, text: str) -> tuple[int, str, str]:
    path = folder / "c.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        read_yaml(path)
    (error,) = caught.value.faults
    return error.line, error.field, error.message


@pytest.mark.parametrize("value", ["010", "1:30", "0x1F", "0b11", "1_000", "01.5", "1:30.5", ".inf", ".nan", "-017"])
def test_a_number_that_is_not_decimal_is_refused_with_its_place(tmp_path: Path, value: str) -> None:
    line, field, message = fault(tmp_path, f"id: a\naudience:\n- data:\n    amount: {value}\n")
    assert (line, field) == (4, "audience.data.amount")
    assert "not decimal" in message


@pytest.mark.parametrize("value", ["2026-02-30", "2026-13-01", "2026-11-23T25:00:00Z", "0000-01-01"])
def test_a_date_that_does_not_exist_is_refused_with_its_place(tmp_path: Path, value: str) -> None:
    line, field, message = fault(tmp_path, f"id: a\nsend_at: {value}\n")
    assert (line, field) == (2, "send_at")
    assert message.startswith("is no date or time that exists; write it as 2026-11-23")


@pytest.mark.parametrize("value", ["12.000", "1.250", "-999.999"])
def test_a_number_with_two_readings_is_refused_with_both(tmp_path: Path, value: str) -> None:
    line, field, message = fault(tmp_path, f"id: a\naudience:\n- data:\n    amount: {value}\n")
    assert (line, field) == (4, "audience.data.amount")
    assert message.startswith("has two readings")


@pytest.mark.parametrize(
    "value", ["!!int '010'", "!!timestamp abc", "!!bool abc", "!!binary aGVs", "!!set {a, b}", "!x y", "! 010"]
)
def test_a_tag_is_refused_with_its_line(tmp_path: Path, value: str) -> None:
    line, _, message = fault(tmp_path, f"id: a\nx: {value}\n")
    assert line == 2
    assert message.startswith("uses the tag !")


def test_decimal_numbers_and_quoted_texts_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("a: 10\nb: -0.5\nc: '010'\nd: \"1:30\"\ne: 1.5e+3\nf: 0\ng: yes\nh: 0470 12 34 56\n", encoding="utf-8")
    assert read_yaml(path)[0] == {"a": 10, "b": -0.5, "c": "010", "d": "1:30", "e": 1500.0, "f": 0, "g": True, "h": "0470 12 34 56"}


def test_what_is_too_deep_or_too_long_is_refused_with_its_line(tmp_path: Path) -> None:
    assert fault(tmp_path, "id: a\nx: " + "[" * 3_000 + "]" * 3_000) == (2, "", "is nested more than 100 levels deep")
    assert fault(tmp_path, "id: a\nx: " + "9" * 5_000) == (2, "x", "is a number of more than 100 digits")
    assert fault(tmp_path, "id: a\nx: a\0b") == (2, "", "is not YAML: it has a character that is not allowed there")
    assert fault(tmp_path, "id: a\nx: &a 1\ny: *a\n") == (3, "", "uses the alias *a; write the value out")
    assert fault(tmp_path, "id: a\nid: b\n") == (2, "id", "is given twice")
    assert fault(tmp_path, "id: a\naudience:\n- data: {a: 1,\n    a: 2}\n") == (3, "audience.data.a", "is given twice")

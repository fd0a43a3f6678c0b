"""Tables of the command line: values are shown in words."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher.cli.output import readable


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "yes"),
        (0, "0"),
        ("2026-11-28T17:11:06.089102+00:00", "2026-11-28 17:11:06 UTC"),
        (["kbc-bank", "cbc-banque"], "kbc-bank, cbc-banque"),
        ({"own": "tailored", "kate": None}, "own: tailored, kate: "),
        ([{"token": "t-1", "permission": False}, {"token": "t-2"}], "token: t-1, permission: no; token: t-2"),
    ],
)
def test_values_are_shown_without_brackets_and_quotes(value: Any, text: str) -> None:
    assert readable(value) == text

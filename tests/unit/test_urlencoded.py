"""Values of a form: the same bytes as the standard library's."""

from __future__ import annotations

from urllib.parse import quote_plus, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from channels.urlencoded import encode_value

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXTS)
@example("100 % + 1 = %2B, % 20")
@example("\U0001f600 € é\r\n\0~_.-*")
def test_values_are_encoded_as_by_the_standard_library(text: str) -> None:
    assert encode_value(text) == quote_plus(text).encode()


def test_each_character_of_one_byte_is_encoded_as_by_urlencode() -> None:
    for character in map(chr, range(256)):
        text = f"a{character} b{character}"
        assert b"name=" + encode_value(text) == urlencode({"name": text}).encode()


@given(TEXTS, TEXTS, st.characters(categories=["Cs"]))
def test_a_lone_surrogate_is_refused(before: str, after: str, surrogate: str) -> None:
    with pytest.raises(UnicodeEncodeError):
        encode_value(before + surrogate + after)

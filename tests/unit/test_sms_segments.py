"""SMS segments are counted as the standard defines them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.sms_segments import GSM_BASIC, GSM_EXTENSION
from dispatcher.content import (
    count_segments,
)


def reference_segments(text: str) -> tuple[str, int]:
    """An independent implementation: cut off pieces at the front, each as long as a segment."""

    def length(piece: str) -> int:
        return sum(2 if c in "^{}\\[~]|€\f" else 1 for c in piece) if gsm else len(piece.encode("utf-16-be")) // 2

    gsm = all(c in GSM_BASIC | GSM_EXTENSION for c in text)
    single, multiple = (160, 153) if gsm else (70, 67)
    pieces: list[str] = [text] if text else []
    while pieces and length(pieces[-1]) > (multiple if len(pieces) > 1 else single):
        rest = pieces.pop()
        end = max(cut for cut in range(len(rest) + 1) if length(rest[:cut]) <= multiple)
        pieces += [rest[:end], rest[end:]]
    return "GSM-7" if gsm else "UCS-2", len(pieces)


alphabets = st.sampled_from(["a", "a€", "aé^{}", "aç", "a😀", "€", "😀"])


@given(alphabets.flatmap(lambda alphabet: st.text(alphabet=alphabet, max_size=330)))
def test_segments_are_counted_as_the_standard_defines_them(text: str) -> None:
    result = count_segments(text)
    assert (result.encoding, result.count) == reference_segments(text)


@pytest.mark.parametrize(
    ("text", "encoding", "count", "units"),
    [
        ("", "GSM-7", 0, 0),
        ("a" * 160, "GSM-7", 1, 160),
        ("a" * 161, "GSM-7", 2, 161),
        ("€" * 80, "GSM-7", 1, 160),
        ("a" * 152 + "€" + "a" * 153, "GSM-7", 3, 307),  # the escape pair moves to the next segment, so one unit stays empty
        ("é" * 160, "GSM-7", 1, 160),
        ("ç" * 70, "UCS-2", 1, 70),
        ("ç" * 71, "UCS-2", 2, 71),
        ("😀" * 34, "UCS-2", 1, 68),
        ("ç" * 66 + "😀" + "ç" * 66, "UCS-2", 3, 134),
    ],
)
def test_segments_of_known_texts(text: str, encoding: str, count: int, units: int) -> None:
    result = count_segments(text)
    assert (result.encoding, result.count, result.units) == (encoding, count, units)


def test_the_character_that_forces_the_short_alphabet_is_named() -> None:
    assert str(count_segments("Prêt à payer, ça va")) == '1 segment, UCS-2 because of "ê" (U+00EA)'
    assert str(count_segments("a" * 161)) == "2 segments, GSM-7"

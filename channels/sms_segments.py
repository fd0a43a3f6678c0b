"""Count the SMS segments of a text. Carriers charge per segment. Pure.

GSM 03.38: a text within the GSM-7 alphabet has 160 septets in one segment or 153 in each of several; any other text is
UCS-2, with 70 or 67 sixteen-bit units. An extension character takes two septets and a character outside the Basic
Multilingual Plane two units. Neither pair may be split between segments, so the last place of a segment can stay empty.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

GSM_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
GSM_EXTENSION = frozenset("\f^{}\\[~]|€")
_GSM = GSM_BASIC | GSM_EXTENSION


@dataclass(frozen=True, slots=True)
class Segments:
    """`encoding` is "GSM-7" or "UCS-2"; `count` is the number of segments (0 for an empty text); `units` is the number of
    septets or 16-bit units of the text. `forced_by` is the first character that GSM-7 lacks; "" if it has all."""

    encoding: str
    count: int
    units: int
    forced_by: str = ""

    def __str__(self) -> str:
        """For people: `2 segments, UCS-2 because of "ç" (U+00E7)`."""
        because = f' because of "{self.forced_by}" (U+{ord(self.forced_by):04X})' if self.forced_by else ""
        return f"{self.count} segment{'' if self.count == 1 else 's'}, {self.encoding}{because}"


def is_gsm(character: str) -> bool:
    """Whether the GSM-7 alphabet has a character. A single one that it lacks makes the whole text UCS-2."""
    return character in _GSM


def count_segments(text: str) -> Segments:
    """Count the segments of `text`."""
    if _GSM.issuperset(text):
        return _count("GSM-7", [2 if character in GSM_EXTENSION else 1 for character in text], 160, 153)
    forced_by = next(character for character in text if character not in _GSM)
    return replace(_count("UCS-2", [2 if character > "\uffff" else 1 for character in text], 70, 67), forced_by=forced_by)


def _count(encoding: str, widths: list[int], single: int, multiple: int) -> Segments:
    units = sum(widths)
    if units <= single:
        return Segments(encoding, 1 if widths else 0, units)
    count, filled = 1, 0
    for width in widths:
        if filled + width > multiple:
            count, filled = count + 1, 0
        filled += width
    return Segments(encoding, count, units)

"""How many SMS segments a text takes: GSM 03.38 with its extension table, else UCS-2."""

from __future__ import annotations

_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENDED = frozenset("^{}\\[~]|€\f")


def is_gsm(text: str) -> bool:
    """Whether every character has a place in the GSM alphabet or its extension."""
    return not (set(text) - _BASIC - _EXTENDED)


def count_segments(text: str) -> int:
    """Segments of one message; a pair (escape + character, or two surrogates) is never split between two."""
    if is_gsm(text):
        return _count([2 if character in _EXTENDED else 1 for character in text], single=160, joined=153)
    return _count([2 if ord(character) > 0xFFFF else 1 for character in text], single=70, joined=67)


def _count(widths: list[int], *, single: int, joined: int) -> int:
    if sum(widths) <= single:
        return 1
    segments, used = 1, 0
    for width in widths:
        if used + width > joined:
            segments, used = segments + 1, 0
        used += width
    return segments

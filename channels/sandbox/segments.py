"""How many SMS segments a text takes: GSM 03.38 with its extension table, else UCS-2."""

from __future__ import annotations

from collections.abc import Set

_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION = frozenset("^{}\\[~]|€\f")
_GSM = _BASIC | _EXTENSION


def is_gsm(text: str) -> bool:
    """Whether every character has a place in the GSM alphabet or its extension."""
    return set(text) <= _GSM


def count_segments(text: str) -> int:
    """Segments of one message; a pair (escape + character, or two surrogates) is never split between two."""
    signs = set(text)
    if signs <= _GSM:
        return _count(text, signs & _EXTENSION, single=160, joined=153)
    return _count(text, {sign for sign in signs if ord(sign) > 0xFFFF}, single=70, joined=67)


def _count(text: str, wide: Set[str], *, single: int, joined: int) -> int:
    """Segments of at most `joined` places, where the characters in `wide` take two; one of `single` places if that is
    enough."""
    places = len(text) + sum(map(text.count, wide))
    if places <= single:
        return 1
    if not wide:
        return -(-places // joined)
    segments, used = 1, 0
    for sign in text:
        width = 2 if sign in wide else 1
        if used + width > joined:
            segments, used = segments + 1, 0
        used += width
    return segments

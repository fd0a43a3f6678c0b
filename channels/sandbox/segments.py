"""SMS segments of a text: GSM 03.38 with its extension table, else UCS-2. Independent of `channels.sms_segments`, to test it."""

from __future__ import annotations

from collections.abc import Set

_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION = frozenset("^{}\\[~]|€\f")
_GSM = _BASIC | _EXTENSION


def is_gsm(text: str) -> bool:
    """Tell whether every character is in the GSM alphabet or its extension."""
    return set(text) <= _GSM


def count_segments(text: str) -> int:
    """Count the segments of a message. A pair (escape + character, or two surrogates) is never split."""
    characters = set(text)
    if characters <= _GSM:
        return _count(text, characters & _EXTENSION, single=160, joined=153)
    return _count(text, {character for character in characters if ord(character) > 0xFFFF}, single=70, joined=67)


def _count(text: str, wide: Set[str], *, single: int, joined: int) -> int:
    """Count segments of `joined` places, or one of `single` places if that is enough. Characters in `wide` take two places."""
    places = len(text) + sum(map(text.count, wide))
    if places <= single:
        return 1
    if not wide:
        return -(-places // joined)
    segments, used = 1, 0
    for character in text:
        width = 2 if character in wide else 1
        if used + width > joined:
            segments, used = segments + 1, 0
        used += width
    return segments

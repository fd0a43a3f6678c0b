"""Bad input, said clearly: which file, line and field, what is there, and what would be right."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint to append to "unknown …": the nearest known word, or all of them where they are few."""
    words = sorted(known)
    near = get_close_matches(word, words, n=1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known: {', '.join(words)}" if len(words) <= 12 else ""

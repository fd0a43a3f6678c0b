"""Suggestions for misspelt words. Pure: standard library only."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A suggestion to append to an error message: the nearest known word, or all of them if they are few."""
    words = sorted(known)
    if near := nearest(word, words):
        return f"; did you mean {near}?"
    return f"; known: {', '.join(words)}" if 0 < len(words) <= 12 else ""


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that is probably meant, or ""."""
    return next(iter(get_close_matches(word, list(known), n=1)), "")

"""What a person means who answers by SMS or WhatsApp with a word. Pure: standard library only.

A keyword counts when it is all that the text says, but for politeness: "Stop svp!" is one, "stopcontact" and "don't stop" are not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from enum import StrEnum


class ReplyMeaning(StrEnum):
    """What a text asks for. UNCLEAR is for a person to read."""

    STOP = "stop"
    START = "start"
    HELP = "help"
    UNCLEAR = "unclear"


_KEYWORDS: Mapping[ReplyMeaning, str] = {
    ReplyMeaning.STOP: "stop unsubscribe end quit stopall revoke optout cancel arret afmelden uitschrijven stopp abmelden",
    ReplyMeaning.START: "start unstop",
    ReplyMeaning.HELP: "help info aide",
}
_MEANING_OF = {word: meaning for meaning, words in _KEYWORDS.items() for word in words.split()}

# What may stand around a keyword and change nothing. "please stop", "stop svp", "arrêt s'il vous plaît", "bitte abmelden, danke".
_POLITE_WORDS = """
    please pls plz thanks thank you thx aub alstublieft alsjeblieft bedankt dankjewel
    dank u je wel svp stp s v p il vous te plait merci bitte danke hello hi hallo dag bonjour salut
"""
_POLITE = frozenset(_POLITE_WORDS.split())
_WORD = re.compile(r"[^\W_]+")


def classify(text: str) -> ReplyMeaning:
    """What a text asks for. Texts with keywords of two meanings, or with any other word, are unclear."""
    words = [word for word in _WORD.findall(_normalise(text)) if word not in _POLITE]
    if _MEANING_OF.get("".join(words)) is ReplyMeaning.STOP:  # "stop all", "opt-out"; a "un stop" starts nothing
        return ReplyMeaning.STOP
    meanings = {_MEANING_OF.get(word, ReplyMeaning.UNCLEAR) for word in words}
    return meanings.pop() if len(meanings) == 1 else ReplyMeaning.UNCLEAR


def _normalise(text: str) -> str:
    """Small letters without accents; what looks like another spelling of a letter becomes that letter."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter) and unicodedata.category(letter) != "Cf")

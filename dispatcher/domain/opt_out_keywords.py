"""Keywords in customers' replies by SMS or WhatsApp. Pure: standard library only.

A keyword counts only if the text contains nothing else but polite words: "Stop svp!" counts, "stopcontact" and "don't stop" do not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from enum import StrEnum


class ReplyMeaning(StrEnum):
    """What a reply asks for. An operator reads UNCLEAR ones."""

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

# Words around a keyword that change nothing: "please stop", "stop svp", "arrêt s'il vous plaît", "bitte abmelden, danke".
_POLITE_WORDS = """
    please pls plz thanks thank you thx aub alstublieft alsjeblieft bedankt dankjewel
    dank u je wel svp stp s v p il vous te plait merci bitte danke hello hi hallo dag bonjour salut
"""
_POLITE = frozenset(_POLITE_WORDS.split())
_WORD_PATTERN = re.compile(r"[^\W_]+")


def classify(text: str) -> ReplyMeaning:
    """What a reply asks for. Replies with keywords of two meanings, or with any other word, are unclear."""
    words = [word for word in _WORD_PATTERN.findall(_normalise(text)) if word not in _POLITE]
    if _MEANING_OF.get("".join(words)) is ReplyMeaning.STOP:  # "stop all", "opt-out"; but "un stop" does not mean START
        return ReplyMeaning.STOP
    meanings = {_MEANING_OF.get(word, ReplyMeaning.UNCLEAR) for word in words}
    return meanings.pop() if len(meanings) == 1 else ReplyMeaning.UNCLEAR


def _normalise(text: str) -> str:
    """Lower case without accents; compatibility forms of a letter (NFKD) become that letter."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter) and unicodedata.category(letter) != "Cf")

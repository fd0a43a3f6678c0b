"""Keywords in customers' replies by SMS or WhatsApp, in Dutch, French, German and English. Pure: standard library only.

A text is a STOP where it holds a stop word, or a "no more" with what it is about, and otherwise only words that change nothing:
politeness, the channel, "advertising", the sender's own name. So "Stop svp!", "S.T.O.P" and "stop met sms sturen" count, and
"stopcontact", "ik stop bij de bakker" and "don't stop" do not. An employee reads what is unclear.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum


class ReplyMeaning(StrEnum):
    """What a reply asks for. An operator reads UNCLEAR ones."""

    STOP = "stop"
    START = "start"
    HELP = "help"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class ReplyReading:
    """How a reply is understood. `may_be_opt_out` is about an unclear one."""

    meaning: ReplyMeaning
    may_be_opt_out: bool = False


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Without accents and capitals. The first line of STOP is what providers read themselves; the others are the same in our customers'
# words, with the spelling mistakes that telephones make.
_KEYWORDS: Mapping[ReplyMeaning, str] = {
    ReplyMeaning.STOP: """
        stop stopall unsubscribe end quit revoke optout cancel remove unsub
        stoppen stopzetten afmelden uitschrijven schrappen stopper
        arret arrets arrete arreter arretez arrett arretter desabonner desabonne desabonnez desabonnement
        desinscrire desinscription desinscrivez resilier
        stopp stoppt abmelden abmeldung abbestellen abbestellung austragen
    """,
    ReplyMeaning.START: "start unstop",
    ReplyMeaning.HELP: "help info aide hilfe hulp",
}
_MEANING_OF = {word: meaning for meaning, words in _KEYWORDS.items() for word in words.split()}

# These end other things, too: "the end", "cancel all". They count only alone.
_ONLY_ALONE = frozenset({"end", "quit", "cancel", "revoke", "remove"})

# "Geen reclame meer", "plus de pub", "keine Werbung", "no more sms": one of these and a word of `_SUBJECTS` are a STOP, too.
_NO_MORE = _words("geen plus pas kein keine keinen no")

# What a person wants no more of.
_SUBJECTS = _words("""
    sms smsen smsje smsjes smses mms whatsapp whatsapps bericht berichten berichtje berichtjes message messages msg
    nachricht nachrichten text texts texto textos
    pub pubs publicite publicites reclame reclames werbung werbungen advertising advertisement advertisements ads promo promos
    promotions aanbieding aanbiedingen offre offres offers angebote commercial commerciele commerciaux commerciales
    """)

# Words that change nothing beside a keyword: politeness and greetings.
_POLITE = _words("""
    please pls plz thanks thank you thx aub alstublieft alsjeblieft bedankt dankjewel graag
    dank u je wel svp stp s v p il vous te plait merci bitte danke hello hi hallo dag bonjour salut
    """)

# Words that only join a stop word to what it is about: "stop met sms sturen", "arrêtez de m'envoyer des sms".
_JOINING = _words("""
    met de het deze die jullie uw van alle al all meer sturen zenden naar mij me
    d les le la des du au vos votre ces m moi envoyer envois envoi recevoir tous toutes toute par via
    mit der die das den ihre ihren alle senden schicken an mich von mehr
    with the these your to any more sending send from by
    """)
_WORD_PATTERN = re.compile(r"[^\W_]+")


def classify(text: str, own_names: Collection[str] = ()) -> ReplyMeaning:
    """What a reply asks for. Replies with keywords of two meanings, or with any other word, are unclear.

    `own_names` are names of the sender, such as "KBC Bank": "Stop KBC" is a STOP.
    """
    words = words_of(text)
    if _MEANING_OF.get("".join(words)) is ReplyMeaning.STOP:  # "stop all", "opt-out", "S.T.O.P"; "un stop" does not mean START
        return ReplyMeaning.STOP
    essential = [word for word in words if word not in _POLITE]
    if _is_stop(essential, frozenset(word for name in own_names for word in words_of(name))):
        return ReplyMeaning.STOP
    meanings = {_MEANING_OF.get(word, ReplyMeaning.UNCLEAR) for word in essential}
    return meanings.pop() if len(meanings) == 1 else ReplyMeaning.UNCLEAR


def may_be_opt_out(text: str) -> bool:
    """Whether an unclear text may be an opt-out: unless it holds nothing but politeness, as "Merci!" does.

    No list knows all ways to say no. In doubt nothing is sent until an employee has read the text.
    """
    return any(word not in _POLITE for word in words_of(text)) or not words_of(text)


def words_of(text: str) -> list[str]:
    """The words in lower case and without accents. Styled letters (𝐒𝐓𝐎𝐏, ＳＴＯＰ) become plain ones before the case is folded."""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    letters = (letter for letter in plain if not unicodedata.combining(letter) and unicodedata.category(letter) != "Cf")
    return _WORD_PATTERN.findall("".join(letters))


def _is_stop(words: Collection[str], own: Collection[str]) -> bool:
    """Whether these words ask for an end, and say nothing else."""
    stops = {word for word in words if _MEANING_OF.get(word) is ReplyMeaning.STOP}
    others = set(words) - stops
    has_stop = bool(stops - _ONLY_ALONE if others else stops)
    if not has_stop and not (others & _SUBJECTS and others & _NO_MORE):
        return False
    return all(_changes_nothing(word, own, has_stop) for word in others)


def _changes_nothing(word: str, own: Collection[str], has_stop: bool) -> bool:
    """Beside a stop word, a "no" turns the meaning round ("no stop", "pas d'arrêt"), so it counts only where there is none."""
    joins = word in _SUBJECTS or word in _JOINING or word in own or word.isdecimal()
    return joins or (word in _NO_MORE and not has_stop)

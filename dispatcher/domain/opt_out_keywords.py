"""Keywords in customers' replies by SMS or WhatsApp, in Dutch, French, German and English. Pure: standard library only.

A text is a STOP where it holds a stop word, or a "no more" with what it is about, and otherwise only words that change nothing:
politeness, the channel, "advertising", the sender's own name. So "Stop svp!", "S.T.O.P" and "stop met sms sturen" count, and
"stopcontact", "ik stop bij de bakker" and "don't stop" do not. An employee reads what is unclear.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
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
        st0p 5top unsubcribe unsuscribe unsubscibe unsubscribed annulez annuler annuleren annuleer
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
_ONLY_ALONE = _words("end quit cancel revoke remove annulez annuler annuleren annuleer")


def _phrases(lines: str) -> list[tuple[str, ...]]:
    return [tuple(phrase.split()) for line in lines.split("\n") for phrase in line.split("|") if phrase.strip()]


# Several words that are a stop word together, and several that change nothing.
_STOP_PHRASES = """
    opt out|schrijf mij uit|schrijf me uit|meld mij af|meld me af|haal mij eraf|remove me|take me off|take me off your list
    desabonnez moi|desinscrivez moi|melde mich ab|melden sie mich ab|trage mich aus|tragen sie mich aus
"""
_EMPTY_PHRASES = "a u b|ik wil|je veux|je ne veux|ich will|ich mochte|i want to|i want"
_PHRASES: Mapping[tuple[str, ...], tuple[str, ...]] = {
    **dict.fromkeys(_phrases(_STOP_PHRASES), ("stop",)),
    **dict.fromkeys(_phrases(_EMPTY_PHRASES), ()),
}

# What mail programs add below a text, up to its end.
_SIGNATURES = _phrases("""
    verzonden vanaf|verstuurd vanaf|verzonden met|envoye de mon|envoye depuis mon|envoye a partir de|von meinem|gesendet von
    sent from my|sent from outlook|get outlook for|outlook voor|outlook pour
""")
_SIGNATURE_WORDS_MAX = 8

# "Geen reclame meer", "plus de pub", "keine Werbung", "no more sms": one of these and a word of `_SUBJECTS` are a STOP, too.
_NO_MORE = _words("geen plus pas kein keine keinen no")
_MORE = _words("meer mehr more")

# "Plus d'offres" also asks for more. Only of these nobody wants more; of others, "ne" has to say it.
_UNWANTED = _words("pub pubs publicite publicites reclame reclames sms spam")
# "No message", "geen bericht" also tell that none has come.
_SINGLE = _words("message msg bericht berichtje nachricht text texto")
_IMPERATIVES = _words("de d le la les des sturen zenden senden schicken")

# What a person wants no more of.
_SUBJECTS = _words("""
    sms smsen smsje smsjes smses mms whatsapp whatsapps bericht berichten berichtje berichtjes message messages msg
    nachricht nachrichten text texts texto textos
    pub pubs publicite publicites reclame reclames werbung werbungen advertising advertisement advertisements ads promo promos
    spam spams promotions aanbieding aanbiedingen offre offres offers angebote commercial commerciele commerciaux commerciales
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
    with the these your to any more sending send from by texting messaging it this for
    alles tout ermee daarmee nu now sofort direct jetzt immediately immediatement onmiddellijk voor pour fur ook
    """)
# After these a text goes on: one that ends so was cut off.
_OPEN_END = _words("d de het l le la les du des der die das den the met mit with van von from to au aux en voor pour fur for by")
_NEGATIONS = _words("niet nicht ne n not dont nooit jamais nie never geen pas kein keine keinen no plus")

# Letters of other alphabets that look or sound like those of a stop word, small capitals, and letters in boxes and flags.
_SMALL_CAPITALS = dict(zip("ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ", "abcdefghijklmnoprstuvwyz", strict=True))
_LETTERS = str.maketrans(
    dict(zip("аеорстпѕкміну", "aeopstpskminu", strict=True))
    | dict(zip("οστπραεινκμ", "ostppaeinkm", strict=True))
    | _SMALL_CAPITALS
    | {chr(first + place): chr(ord("a") + place) for first in (0x1F150, 0x1F170) for place in range(26)}
)
_FLAGS = re.compile("[\U0001f1e6-\U0001f1ff]{3,}")  # two are a country's flag
_GLUED_LENGTH_MIN = 3  # "stopte" is no "stop te"
_WORD_PATTERN = re.compile(r"[^\W_]+")


def classify(text: str, own_names: Collection[str] = ()) -> ReplyMeaning:
    """What a reply asks for. Replies with keywords of two meanings, or with any other word, are unclear.

    `own_names` are names of the sender, such as "KBC Bank": "Stop KBC" is a STOP.
    """
    words = words_of(text)
    if _MEANING_OF.get("".join(words)) is ReplyMeaning.STOP:  # "stop all", "opt-out", "S.T.O.P"; "un stop" does not mean START
        return ReplyMeaning.STOP
    words = _with_phrases(_joined(_without_signature(words)))
    essential = [word for word in words if word not in _POLITE or word in _OPEN_END]
    if _is_stop(essential, frozenset(word for name in own_names for word in words_of(name))):
        return ReplyMeaning.STOP
    meanings = {_MEANING_OF.get(word, ReplyMeaning.UNCLEAR) for word in essential}
    return meanings.pop() if len(meanings) == 1 else ReplyMeaning.UNCLEAR


def holds_no(text: str) -> bool:
    """Whether a text has a stop word or a negation, whatever else it says."""
    words = _with_phrases(_joined(words_of(text)))
    return any(word in _NEGATIONS or _MEANING_OF.get(word) is ReplyMeaning.STOP for word in words)


def may_be_opt_out(text: str) -> bool:
    """Whether an unclear text may be an opt-out: unless it holds nothing but politeness, as "Merci!" does.

    No list knows all ways to say no. In doubt nothing is sent until an employee has read the text.
    """
    return any(word not in _POLITE for word in words_of(text)) or not words_of(text)


def words_of(text: str) -> list[str]:
    """The words in lower case and without accents. Styled letters (𝐒𝐓𝐎𝐏, ＳＴＯＰ) become plain ones before the case is folded."""
    text = _FLAGS.sub(lambda flags: "".join(chr(ord(flag) - 0x1F1E6 + ord("a")) for flag in flags[0]), text)
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    letters = (letter for letter in plain if unicodedata.category(letter) not in ("Mn", "Me", "Cf"))
    return _WORD_PATTERN.findall("".join(letters).translate(_LETTERS))


# -- the words of a text as the words that are listed ------------------------------------------------------------------


def _without_signature(words: Sequence[str]) -> Sequence[str]:
    for place in range(max(1, len(words) - _SIGNATURE_WORDS_MAX), len(words)):
        if any(tuple(words[place : place + len(signature)]) == signature for signature in _SIGNATURES):
            return words[:place]
    return words


def _joined(words: Sequence[str]) -> list[str]:
    """Letters that stand apart, "s t o p", as a word; and two words that are written as one, "stopsms", as two."""
    result: list[str] = []
    place = 0
    while place < len(words):
        end = place
        while end < len(words) and len(words[end]) == 1:
            end += 1
        run = "".join(words[place:end])
        parts = _parts(run) if end - place >= _GLUED_LENGTH_MIN else []
        if parts:
            result += parts
            place = end
        else:
            result += _parts(words[place]) or [words[place]]
            place += 1
    return result


def _parts(word: str) -> list[str]:
    """A stop word, and what is glued to it; [] for any other word."""
    if word in _MEANING_OF:
        return [word]
    for length in range(_GLUED_LENGTH_MIN, len(word) - _GLUED_LENGTH_MIN + 1):
        for stop, rest in ((word[:length], word[length:]), (word[length:], word[:length])):
            if _MEANING_OF.get(stop) is ReplyMeaning.STOP and (rest in _SUBJECTS or rest in _POLITE or rest.isdecimal()):
                return [stop, rest]
    return []


def _with_phrases(words: Sequence[str]) -> list[str]:
    """The words, with "stop" in place of each phrase that means it, and nothing in place of one that changes nothing."""
    result: list[str] = []
    place = 0
    while place < len(words):
        fitting = [phrase for phrase in _PHRASES if tuple(words[place : place + len(phrase)]) == phrase]
        phrase = max(fitting, key=len, default=(words[place],))
        result += _PHRASES.get(phrase, phrase)
        place += len(phrase)
    return result


# -- the rules ---------------------------------------------------------------------------------------------------------


def _is_stop(words: Sequence[str], own: Collection[str]) -> bool:
    """Whether these words ask for an end, and say nothing else."""
    if not words or (len(words) > 1 and words[-1] in _OPEN_END):
        return False
    stops = {word for word in words if _MEANING_OF.get(word) is ReplyMeaning.STOP}
    others = [word for word in words if word not in stops]
    if not (stops - _ONLY_ALONE if others else stops):
        return not stops and _is_no_more(others, own)
    # Beside a stop word, a "no" turns the meaning round ("no stop", "pas d'arrêt"), unless it has a subject of its own.
    return all(_joins(word, own) for word in _without_no_more(words) if word not in stops)


def _joins(word: str, own: Collection[str]) -> bool:
    return word in _SUBJECTS or word in _JOINING or word in own or word.isdecimal()


def _without_no_more(words: Sequence[str]) -> list[str]:
    """The words without a no and its subject, "keine Werbung". "Pas" stays: "arrête pas les sms" asks to go on."""
    pairs = zip(words, (*words[1:], ""), strict=True)
    return [word for word, following in pairs if not (word in _NO_MORE - {"pas", "plus"} and following in _SUBJECTS)]


def _is_no_more(words: Sequence[str], own: Collection[str]) -> bool:
    """Whether words without a stop word say "no more": "geen reclame meer", "plus de pub", "no ads"."""
    subjects = _SUBJECTS.intersection(words)
    if not subjects or not _NO_MORE.intersection(words) or any(word.isdecimal() for word in words):
        return False
    if "plus" in words:
        following = words[words.index("plus") + 1 :]
        if following[:1] not in (["de"], ["d"]) or not ("ne" in words or subjects <= _UNWANTED):
            return False
    others = [word for word in words if word not in _NO_MORE and word not in subjects and word not in own]
    if _MORE.intersection(words) or "plus" in words:
        return all(word in _JOINING for word in others)
    return not subjects & _SINGLE and all(word in _IMPERATIVES for word in others)

"""The words of the sources: whether they are in the language of their folder, and whether they go with the numbers before them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache

from dispatcher.content.lint.findings import LintFinding
from dispatcher.content.lint.samples import LintSample, first_by_language
from dispatcher.content.lint.word_lists import word_lists
from dispatcher.content.source_files import SourceFile
from dispatcher.content.translation_units import PieceKind, pieces
from dispatcher.domain.recipient import Language

_CODE = re.compile(r"\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\}|<style.*?</style>|<[^>]*>|https?://\S+", re.DOTALL | re.IGNORECASE)
_CUT = "\x1f"
_SENTENCE = re.compile(rf"{_CUT}|(?<=[.!?:–])\s+")
_WORD = re.compile(r"[^\W\d_]+")
_OTHER_MIN = 4  # words of another language, in a part that has at most a third as many of its own
_SHORT_MIN = 2  # in a subject or a push text, which have few words
_OTHER_SHARE = 3
_SENTENCE_SHARE = 0.4  # of the words of a short sentence
_COUNTED = (  # a number that a word of the text follows
    re.compile(r"\{\{-?\s*(\w+)\s*(?:\|\s*number\s*)?-?\}\}(?: |&nbsp;|\u00a0)([^\W\d_]{2,})"),
    re.compile(r"\(?\b(\w+)\s*(?:\|\s*number)?\s*\)?\s*~\s*[\"'] ([^\W\d_]{2,})"),
)
_ONE_FORM = re.compile(r"""\bplural\(\s*(["'])(?P<form>[^"']+)\1\s*,\s*(["'])(?P=form)\3""")
_INVISIBLE = re.compile("[\\u200b\\u2060\\u202a-\\u202e\\u2066-\\u2069]")  # not the joiners of emoji
_BESIDE_A_LINK = re.compile(r"\{\{-?\s*([\w.]+)\s*-?\}\}(?:\w|\{\{)|[^\W_]\{\{-?\s*([\w.]+)\s*-?\}\}")
_DIGIT_BESIDE = re.compile(r"\{\{-?\s*(\w+)[^{}]*\}\}[.,]?[0-9]|(?<![\w/])[0-9]+[.,]?\{\{-?\s*(\w+)")


def wording(samples: Iterable[LintSample]) -> Iterator[LintFinding]:
    """The findings in the sources of one template."""
    for sample in first_by_language(samples):
        language = sample.request.language
        for part, source in sample.sources.parts[language].items():
            for finding in (found for check in _CHECKS for found in check(sample, part, source)):
                yield replace(finding, channels=(part.partition(".")[0],), modes=())
        yield from _approved(sample)


def _approved(sample: LintSample) -> Iterator[LintFinding]:
    """A text that WhatsApp has to approve, in another language than its folder."""
    language = sample.request.language
    for mode, text in sample.template.languages[language].whatsapp.items():
        part = f"whatsapp.{mode}.approved"
        if other := _other_in(text.text, language, _OTHER_MIN):
            finding = sample.finding("T508", sample.place(part), part, f"is in another language, {other}")
            yield replace(finding, channels=("whatsapp",), modes=(mode.value,))


def _language(sample: LintSample, part: str, source: SourceFile) -> Iterator[LintFinding]:
    language = sample.request.language
    if sample.sources.is_generated(language, part):
        return
    least = _OTHER_MIN if part in ("email.html", "email.text") else _SHORT_MIN
    text = _CODE.sub(_separated, source.source)
    for number, line in enumerate(text.split("\n"), 1):
        if other := _other_in(line, language, least):
            message = f"is in another language, {other}"
            yield sample.finding("T508", source.place(number), part, message, line.replace(_CUT, " ").strip())
            return
    for number, words in _in_code(source.source):
        if other := _other_in(words, language, _OTHER_MIN) or _other_picture(words, language):
            yield sample.finding("T508", source.place(number), part, f"is in another language, {other}", words)
            return
    if other := _other_language(text.replace(_CUT, " "), language, least):
        yield sample.finding("T508", sample.place(part), part, f"is in another language, {other}")


def _separated(code: re.Match[str]) -> str:
    """In place of code: its line breaks, and a mark where a statement parts two texts."""
    return "\n" * code[0].count("\n") + (_CUT if code[0].startswith("{%") else "")


def _other_in(line: str, language: Language, least: int) -> str:
    """The language of a line, or of one of its sentences or branches, if it is another; else ""."""
    sentences = _SENTENCE.split(line)
    found = (_other_language(each, language, least) for each in (line.replace(_CUT, " "), *sentences))
    return next(filter(None, found), "") or next(filter(None, (_other_sentence(each, language) for each in sentences)), "")


@lru_cache(maxsize=1_024)
def _in_code(source: str) -> tuple[tuple[int, str], ...]:
    """Line and text of each alt text, and of each text that a macro is called with."""
    spans = [found.span() for found in _CODE.finditer(source)]
    texts = [each for each in pieces(source) if each.kind is PieceKind.TEXT]
    inside = (each for each in texts if any(start < each.start and each.end < end for start, end in spans))
    return tuple((source.count("\n", 0, each.start) + 1, source[each.start : each.end]) for each in inside)


@lru_cache(maxsize=4_096)
def _other_sentence(sentence: str, language: Language) -> str:
    """The language of a sentence that has no function word of its own language, and mostly those of another; else ""."""
    words = _WORD.findall(sentence.lower())
    counts = {each: sum(word in known for word in words) for each, known in word_lists().function_words.items()}
    other = max(counts, key=lambda each: counts[each])
    is_other = not counts[language] and counts[other] >= _SHORT_MIN and counts[other] >= _SENTENCE_SHARE * len(words)
    return other if is_other else ""


@lru_cache(maxsize=1_024)
def _other_picture(text: str, language: Language) -> str:
    """The language of a short text without a word of its own language, and with two of another; else ""."""
    words, lists = set(_WORD.findall(text.lower())), word_lists()
    counts = {each: len(words & (known | lists.function_words[each])) for each, known in lists.picture_words.items()}
    other = max(counts, key=lambda each: counts[each])
    return other if not counts[language] and counts[other] >= _SHORT_MIN and counts[other] >= _SENTENCE_SHARE * len(words) else ""


@lru_cache(maxsize=1_024)
def _other_language(text: str, language: Language, least: int = _OTHER_MIN) -> str:
    """The language in which a text clearly is, if it is another; else ""."""
    words = Counter(word for word in _WORD.findall(text.lower()))
    counts = {each: sum(words[word] for word in known) for each, known in word_lists().function_words.items()}
    own = counts.pop(language, 0)
    other = max(counts, key=lambda each: counts[each])
    return other if counts[other] >= least and counts[other] > _OTHER_SHARE * own else ""


def _digits(sample: LintSample, part: str, source: SourceFile) -> Iterator[LintFinding]:
    """A digit beside a number or an amount, which makes another of it."""
    for number, line in enumerate(source.source.split("\n"), 1):
        for found in _DIGIT_BESIDE.finditer(line):
            variable = sample.template.variables.get(found[1] or found[2])
            if variable is not None and variable.type in ("number", "money"):
                message = "a digit stands beside the value, and makes another number of it"
                yield sample.finding("T502", source.place(number), f"{part}: {variable.name}", message, found[0])


def _counted(sample: LintSample, part: str, source: SourceFile) -> Iterator[LintFinding]:
    """Words after a number that stay the same when the number is 1."""
    lists = word_lists()
    for number, line in enumerate(source.source.split("\n"), 1):
        for same in _ONE_FORM.finditer(line):
            last = same["form"].split()[-1].casefold()
            if last not in lists.invariable:
                message = "has the same form for 1 and for many"
                yield sample.finding("T605", source.place(number), f"{part}: plural", message, same["form"])
        for found in (each for pattern in _COUNTED for each in pattern.finditer(line)):
            variable, word = sample.template.variables.get(found[1]), found[2].casefold()
            if variable is None or variable.type != "number" or word in lists.invariable:
                continue
            if any(word in words for words in lists.function_words.values()):
                continue
            values = (*variable.example.values(), *variable.samples)
            if all(value == int(value) for value in values):
                message = "stays the same for 1 and for many: write its forms with the filter plural"
                yield sample.finding("T605", source.place(number), f"{part}: {variable.name}", message, found[2])


def _invisible(sample: LintSample, part: str, source: SourceFile) -> Iterator[LintFinding]:
    """A character that nobody sees: spam hides words with them, and filters know that."""
    for number, line in enumerate(source.source.split("\n"), 1) if not source.is_generated else ():
        if found := _INVISIBLE.search(line):
            yield sample.finding("T206", source.place(number), part, f"holds U+{ord(found[0]):04X}, which nobody sees: delete it")


def _glued(sample: LintSample, part: str, source: SourceFile) -> Iterator[LintFinding]:
    """A letter or a digit beside a link in a text, where no tag ends the address."""
    if part == "email.html" or source.is_generated:
        return
    for number, line in enumerate(source.source.split("\n"), 1):
        for found in _BESIDE_A_LINK.finditer(line):
            name = found[1] or found[2]
            variable = sample.template.variables.get(name)
            if name.startswith("links.") or (variable is not None and variable.type == "url"):
                message = "stands beside the link, and becomes a part of it"
                yield sample.finding("T312", source.place(number), f"{part}: {name}", message, found[0])


_CHECKS = (_language, _counted, _digits, _invisible, _glued)

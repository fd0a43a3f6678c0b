"""Units of translation: the texts of a template in one language, cut so that a translator sees sentences and no layout. Pure.

A unit is a piece of one file, with its place. An import replaces just these places, so everything else keeps its bytes. What a
translator must not change (Jinja expressions and statements, tags within a sentence) is a *code* of the unit. Tags and statements
between sentences belong to no unit.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import takewhile
from typing import NamedTuple

from dispatcher.content.draft_marks import JINJA_MARK, MARK
from dispatcher.domain.recipient import Language

_JINJA = r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}"
_TOKEN = re.compile(rf"{_JINJA}|<!--.*?-->|<style\b.*?</style\s*>|</?[a-zA-Z](?:{_JINJA}|[^>])*>|\n", re.DOTALL)
_EXPRESSION = re.compile(_JINJA, re.DOTALL)
# Attributes whose values are read: by screen readers, in place of pictures, or on a pointer
_READ = re.compile(
    rf"""\s(?:alt|title|aria-label)\s*=\s*(?:"(?P<double>(?:{_JINJA}|[^"])*)"|'(?P<single>(?:{_JINJA}|[^'])*)')""", re.DOTALL
)
_STRING = re.compile(r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'""")
_WORD = re.compile(r"\{%-?\s*(\w+)")
_MACRO_CALL = re.compile(r"\{\{-?\s*\w+\(")
_ELEMENT = re.compile(r"</?([a-zA-Z][a-zA-Z0-9]*)")
_CUT = re.compile(r"</?[a-zA-Z][a-zA-Z0-9]*|\{%-?\s*\w+|\{\{-?\s*\w+")  # what a piece between units begins with
_WORDS = re.compile(r"[^\W\d_]{2,}")
_LETTER = re.compile(r"[^\W\d_]")
_COMPARED = re.compile(r"(?:[=!<>]=|\bin|\bis)\s*\Z")  # before a string that is compared, and so is no text
_WITHIN_A_SENTENCE = frozenset({"if", "elif", "else", "endif", "set"})  # statements
_INLINE = frozenset({"a", "abbr", "b", "br", "em", "i", "small", "span", "strong", "sub", "sup", "u"})  # HTML elements
_TOML = re.compile(
    r"^[ \t]*\[(?P<table>[^\[\]\n]+)\][ \t]*(?:#.*)?$"
    r"|^[ \t]*(?P<key>[\w-]+)[ \t]*=[ \t]*(?P<raw>'''.*?'''|\"\"\".*?\"\"\"|'[^'\n]*'|\"(?:[^\"\\\n]|\\.)*\")",
    re.MULTILINE | re.DOTALL,
)
_OPENED = re.compile(r"""\s(?:alt|title|aria-label)\s*=\s*["']\Z""")
DIGEST_CHARACTERS = 16


class PieceKind(Enum):
    """What a piece of a source is."""

    TEXT = "text"
    CODE = "code"
    BREAK = "break"  # between units


class Piece(NamedTuple):
    """A piece of a source, from `start` to `end`."""

    kind: PieceKind
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class SourcePart:
    """A text of a file, such as "push.title" or "email.html". `raw` is how the file has it: quoted, in TOML."""

    name: str
    file: str
    start: int  # of `raw` in the file
    raw: str
    text: str


@dataclass(frozen=True, slots=True)
class TranslationUnit:
    """A text to translate. `start` and `end` are its place in the text of `part`; `line` is that in the file."""

    id: str
    part: SourcePart
    line: int
    start: int
    end: int
    is_marked: bool = False  # its text is still to be written, see `draft_marks`

    @property
    def text(self) -> str:
        """Its text with its codes, without the marks of a draft."""
        return self.part.text[self.start : self.end].replace(JINJA_MARK, "")

    @property
    def digest(self) -> str:
        """A short SHA-256 of its text."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:DIGEST_CHARACTERS]


def pieces(source: str) -> Iterator[Piece]:
    """The pieces of a source, in order and without a gap."""
    position = 0
    for token in _TOKEN.finditer(source):
        if token.start() > position:
            yield Piece(PieceKind.TEXT, position, token.start())
        position = token.end()
        yield from _of_token(source, token)
    if position < len(source):
        yield Piece(PieceKind.TEXT, position, len(source))


def _of_token(source: str, token: re.Match[str]) -> Iterator[Piece]:
    text, word, element = token[0], _WORD.match(token[0]), _ELEMENT.match(token[0])
    if text.startswith("{{"):  # the strings of a macro call are units of their own, those of a filter stand in a sentence
        yield from _with_strings(source, token, PieceKind.BREAK if _MACRO_CALL.match(text) else PieceKind.CODE)
    elif word and word[1] == "call":
        yield from _with_strings(source, token, PieceKind.BREAK)
    else:
        is_code = (word and word[1] in _WITHIN_A_SENTENCE) or (element and element[1].lower() in _INLINE)
        kind = PieceKind.CODE if is_code else PieceKind.BREAK
        if element and not text.startswith("</"):
            yield from _with_attributes(source, token, kind)
        else:
            yield Piece(kind, token.start(), token.end())


def _with_attributes(source: str, token: re.Match[str], kind: PieceKind) -> Iterator[Piece]:
    """A tag as pieces of this kind, with the attributes that are read as texts."""
    position = token.start()
    for found in _READ.finditer(source, token.start(), token.end()):
        start, end = found.span("double" if found["double"] is not None else "single")
        if not _LETTER.search(_EXPRESSION.sub("", source[start:end])):
            continue
        yield Piece(kind, position, start)
        for expression in _EXPRESSION.finditer(source, start, end):
            if expression.start() > start:
                yield Piece(PieceKind.TEXT, start, expression.start())
            yield Piece(PieceKind.CODE, expression.start(), expression.end())
            start = expression.end()
        if end > start:
            yield Piece(PieceKind.TEXT, start, end)
        position = end
    yield Piece(kind, position, token.end())


def _with_strings(source: str, token: re.Match[str], kind: PieceKind) -> Iterator[Piece]:
    """An expression as pieces of this kind, with its strings as texts; not those that are compared."""
    position = token.start()
    for string in _STRING.finditer(source, token.start(), token.end()):
        if _COMPARED.search(source, token.start(), string.start()) or len(string[0]) == 2:
            continue
        yield Piece(kind, position, string.start() + 1)
        yield Piece(PieceKind.TEXT, string.start() + 1, string.end() - 1)
        position = string.end() - 1
    yield Piece(kind, position, token.end())


def codes(text: str) -> list[str]:
    """What a translation of this text must have too, sorted: a translator may move it."""
    return sorted(text[piece.start : piece.end] for piece in pieces(text) if piece.kind is not PieceKind.TEXT)


def is_same_sentence(text: str, other: str) -> bool:
    """Whether two texts are the same words, and so one is no translation of the other. Names, which are the same in all languages,
    do not count: their words begin with capitals."""
    words = _WORDS.findall(" ".join(text[piece.start : piece.end] for piece in pieces(text) if piece.kind is PieceKind.TEXT))
    return text == other and len(words) > 1 and any(word[0].islower() for word in words)


def _runs(source: str) -> Iterator[tuple[int, int, bool]]:
    """The places of the units of a source: between breaks, without codes and blanks at the edges; whether each is an attribute."""
    run: list[Piece] = []
    in_attribute = False
    for piece in (*pieces(source), Piece(PieceKind.BREAK, len(source), len(source))):
        if piece.kind is not PieceKind.BREAK:
            run.append(piece)
            continue
        if texts := [each for each in run if each.kind is PieceKind.TEXT and source[each.start : each.end].strip()]:
            first, last = _with_whole_expressions(source, run, run.index(texts[0]), run.index(texts[-1]))
            inner = _with_whole_conditions(source, run, first, last)
            if any(_LETTER.search(source, each.start, each.end) for each in texts):
                yield inner[0].start, inner[-1].end, in_attribute
        run, in_attribute = [], _OPENED.search(source, piece.start, piece.end) is not None


def _with_whole_expressions(source: str, run: list[Piece], first: int, last: int) -> tuple[int, int]:
    """The pieces from `first` to `last`, and the rest of an expression whose string is the first or the last text: a filter such as
    `plural("coin", "coins")` at the end of a sentence."""
    spans = [each.span() for each in _EXPRESSION.finditer(source)]

    def is_cut(place: int) -> bool:
        return any(start < place < end for start, end in spans)

    while first > 0 and is_cut(run[first].start):
        first -= 1
    while last + 1 < len(run) and is_cut(run[last].end):
        last += 1
    return first, last


def _with_whole_conditions(source: str, run: list[Piece], first: int, last: int) -> list[Piece]:
    """The pieces from `first` to `last`, and before and after them what belongs to a condition that they begin or end within: a
    translation with other conditions, in the place of a part of one, would be no template."""
    while first > 0 and _depths(source, run[first : last + 1])[0] < 0:
        first -= 1
    while last + 1 < len(run) and _depths(source, run[first : last + 1])[1] > 0:
        last += 1
    return run[first : last + 1]


def _depths(source: str, inner: list[Piece]) -> tuple[int, int]:
    """The lowest nesting of conditions within these pieces (below 0 where one began before them), and that at their end."""
    depth = lowest = 0
    for piece in inner:
        word = _WORD.match(source, piece.start, piece.end) if piece.kind is PieceKind.CODE else None
        name = word[1] if word else ""
        lowest = min(lowest, depth - 1 if name in ("elif", "else", "endif") else depth)
        depth += (name == "if") - (name == "endif")
    return lowest, depth


def read_parts(files: Mapping[str, str], template: str, language: Language) -> dict[str, SourcePart]:
    """The texts of a template in one language, by name."""
    folder = f"{template}/{language}"
    parts = {}
    for name in ("email.html", "email.txt"):
        file = f"{folder}/{name}"
        if file in files:
            parts[name] = SourcePart(name, file, 0, files[file], files[file])
    file = f"{folder}/texts.toml"
    for part in _toml_parts(file, files.get(file, "")):
        parts[part.name] = part
    return parts


def _toml_parts(file: str, source: str) -> Iterator[SourcePart]:
    table = ""
    for match in _TOML.finditer(source):
        if match["table"]:
            table = match["table"].strip()
        elif table and match["key"] != "content_sid":
            text = tomllib.loads(f"x = {match['raw']}")["x"]
            yield SourcePart(f"{table}.{match['key']}", file, match.start("raw"), match["raw"], text)


def units(parts: Mapping[str, SourcePart], files: Mapping[str, str], whole: frozenset[str] = frozenset()) -> list[TranslationUnit]:
    """The units of these parts; a part of `whole` is one unit."""
    found = []
    for name, part in parts.items():
        runs = list(_runs(part.text))
        if name in whole and runs:
            runs = [(runs[0][0], runs[-1][1], False)]
        offset = part.raw.find(part.text) if part.raw != part.text else 0
        counts = {False: 0, True: 0}  # apart, so that an alt text changes no other id
        for start, end, in_attribute in runs:
            counts[in_attribute] += 1
            number = f"{'alt-' if in_attribute else ''}{counts[in_attribute]}"
            line = files[part.file].count("\n", 0, part.start + max(offset, 0) + start) + 1
            marked = (
                _mark_before(part, start) is not None or JINJA_MARK in part.text[start:end] or _line_above(part, files[part.file])
            )
            found.append(TranslationUnit(f"{name}/{number}", part, line, start, end, bool(marked)))
    return found


def _mark_before(part: SourcePart, start: int) -> int | None:
    """Where the mark of a unit is: before it on its line, or on that of the macro call that holds it."""
    tokens = takewhile(lambda token: token.end() <= start, _TOKEN.finditer(part.text))  # a tag may have several lines
    begin = max((token.end() for token in tokens if token[0] == "\n"), default=0)
    place = part.text.find(JINJA_MARK, begin, start)
    return place if place >= 0 else None


def _line_above(part: SourcePart, source: str) -> tuple[int, int] | None:
    """The line above a WhatsApp text that marks it: that text is no Jinja source."""
    if not part.name.endswith(".approved"):
        return None
    end = source.rfind("\n", 0, part.start) + 1
    start = source.rfind("\n", 0, max(end - 1, 0)) + 1
    return (start, end) if source[start:end].startswith(MARK) else None


def pair_units(
    files: Mapping[str, str], template: str, source: Language, target: Language
) -> list[tuple[TranslationUnit, TranslationUnit]]:
    """The units of two languages, in pairs. A part that is cut differently in the two is one unit. A part of one only has none.

    As many units do not make pairs: a heading in one language must not meet a paragraph of another.
    """
    here, there = (read_parts(files, template, language) for language in (source, target))
    both = [name for name in here if name in there]
    here, there = ({name: parts[name] for name in both} for parts in (here, there))
    different = frozenset(name for name in both if _structure(here[name].text) != _structure(there[name].text))
    theirs = {unit.id: unit for unit in units(there, files, different)}
    return [(unit, theirs[unit.id]) for unit in units(here, files, different) if unit.id in theirs]


def _structure(source: str) -> tuple[int, list[str]]:
    """How a source is cut: the number of its units, and the elements, statements and macros between them."""
    tokens = [source[piece.start : piece.end] for piece in pieces(source) if piece.kind is PieceKind.BREAK]
    return len(list(_runs(source))), [found[0] for token in tokens if (found := _CUT.match(token))]


def replaced(files: Mapping[str, str], changes: Mapping[str, tuple[TranslationUnit, str]]) -> dict[str, str]:
    """The files with other texts at the places of these units, and without the marks of these."""
    by_part: dict[SourcePart, list[tuple[TranslationUnit, str]]] = {}
    for unit, text in changes.values():
        by_part.setdefault(unit.part, []).append((unit, text))
    result = dict(files)
    for part in sorted(by_part, key=lambda each: each.start, reverse=True):
        edits = {(unit.start, unit.end, new) for unit, new in by_part[part]}
        marks = {_mark_before(part, unit.start) for unit, _ in by_part[part]}
        edits |= {(mark, mark + len(JINJA_MARK), "") for mark in marks if mark is not None}
        text = part.text
        for start, end, new in sorted(edits, reverse=True):
            text = text[:start] + new + text[end:]
        raw = text if part.raw == part.text else _quoted(text, part.raw)
        content = result[part.file]
        above = _line_above(part, content)
        before = content[: above[0]] + content[above[1] : part.start] if above else content[: part.start]
        result[part.file] = before + raw + content[part.start + len(part.raw) :]
    return result


def _quoted(text: str, before: str) -> str:
    """A text as a TOML string: quoted as before where it can be."""
    if before.startswith("'''") and "'''" not in text and not text.endswith("'"):
        return f"'''{before[3:4] if before[3:4] == chr(10) else ''}{text}'''"
    if before.startswith("'") and "'" not in text and "\n" not in text:
        return f"'{text}'"
    if not before.startswith('"') and "'''" not in text and not text.endswith("'"):
        return f"'''{text}'''"
    return json.dumps(text, ensure_ascii=False)

"""Words that address the reader in another form than the bank does, such as the Dutch "u" where its texts say "je"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache

from dispatcher.content.lint.findings import LintFinding
from dispatcher.content.lint.samples import LintSample, first_by_language
from dispatcher.content.source_files import SourceFile
from dispatcher.content.translation_units import PieceKind, pieces
from dispatcher.domain.recipient import Language

_NEVER = re.compile(r"(?!)")


def avoided_address(samples: Iterable[LintSample], words: Mapping[Language, tuple[str, ...]]) -> Iterator[LintFinding]:
    """The findings in the sources of one template: in texts, alt texts, arguments of macros, and what WhatsApp approves."""
    for sample in first_by_language(samples):
        language = sample.request.language
        pattern = _pattern(words.get(language, ()))
        for part, source in sample.sources.parts[language].items():
            for line, word in _found(source.source, pattern) if not source.is_generated else ():
                yield _finding(sample, part, source.place(line), word)
        for mode, approved in sample.template.languages[language].whatsapp.items():
            part = f"whatsapp.{mode}.approved"
            file, first = sample.place(part)
            found = [((file, first + line - 1), word) for line, word in _found(approved.text, pattern)]
            titles = "\n".join(button.title for button in approved.buttons)
            found += [(sample.sources.buttons_at(language, mode.value), word) for _, word in _found(titles, pattern)]
            for place, word in found:
                yield replace(_finding(sample, part, place, word), modes=(mode.value,))
        for file, text in _shared(sample.template.source, language):
            for line, word in _found(text, pattern):
                yield _finding(
                    sample, "email.html" if file.endswith(".html") else "email.text", SourceFile("", file).place(line), word
                )


def _shared(files: Mapping[str, str], language: Language) -> Iterator[tuple[str, str]]:
    """The shared files with the words of a language."""
    for file, text in files.items():
        if file.startswith(f"_shared/{language}/") and not file.endswith(".toml"):
            yield file, text


def _finding(sample: LintSample, part: str, place: tuple[str, int], word: str) -> LintFinding:
    message = "addresses the reader in another form than the bank's texts (avoided_address of the policy)"
    return replace(sample.finding("T512", place, part, message, word), channels=(part.partition(".")[0],), modes=())


@lru_cache(maxsize=4)
def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    """A pattern of whole words: not "u" in "24 u" or "a.u.b.", and "t'" with either apostrophe."""
    if not words:
        return _NEVER
    forms = [re.escape(word.removesuffix("*")).replace("'", "['’]") + _end(word) for word in sorted(words, key=len, reverse=True)]
    return re.compile(rf"(?<![\w.'’/@-])(?<![0-9][ \u00a0\u202f])(?:{'|'.join(forms)})", re.IGNORECASE)


def _end(word: str) -> str:
    """What must follow a word."""
    if word.endswith("*"):
        return r"\w*"
    return "" if word.endswith("'") else r"(?![\w'’/@-]|\.\w)"


@lru_cache(maxsize=1_024)
def _found(source: str, pattern: re.Pattern[str]) -> tuple[tuple[int, str], ...]:
    """Line and word of each."""
    return tuple(
        (source.count("\n", 0, found.start()) + 1, found[0])
        for piece in pieces(source)
        if piece.kind is PieceKind.TEXT
        for found in pattern.finditer(source, piece.start, piece.end)
    )

"""`translations.toml` of a template: from which source text each translation was made. Pure.

It changes no message, so it is no part of the template's digest. A template without it was written in each language by hand.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from dispatcher.content import toml
from dispatcher.content.errors import TemplateError
from dispatcher.content.translation_units import pair_units
from dispatcher.domain.recipient import LANGUAGES, Language

FILE = "translations.toml"
_HEADER = "# Written by `dispatcher templates import-translations`: the source text that each translation was made from.\n"


@dataclass(frozen=True, slots=True)
class TranslationState:
    """`source` is the language that was translated; `made_from` has for each language and unit the digest of the source text, ""
    where there is no translation yet."""

    source: Language | None = None
    made_from: Mapping[Language, Mapping[str, str]] = field(default_factory=dict)

    def with_language(self, source: Language, language: Language, made_from: Mapping[str, str]) -> TranslationState:
        """The same with the units of one language."""
        return TranslationState(source, {**self.made_from, language: made_from})

    def to_toml(self) -> str:
        """The file's content."""
        lines = [_HEADER, f"source = {json.dumps(self.source)}\n"]
        for language, digests in sorted(self.made_from.items()):
            lines.append(f"\n[{language}]\n")
            lines += [f"{json.dumps(unit)} = {json.dumps(digest)}\n" for unit, digest in digests.items()]
        return "".join(lines)


def read_state(template: str, text: str) -> TranslationState | TemplateError:
    """Read the file of a template; an error if it has another form."""
    document = toml.read(f"{template}/{FILE}", text)
    if isinstance(document, TemplateError):
        return document
    source, rest = document.data.get("source"), {key: value for key, value in document.data.items() if key != "source"}
    if text and source not in LANGUAGES:
        return document.fault(("source",), source or "", f"must be one of {', '.join(LANGUAGES)}")
    for language, digests in rest.items():
        if language not in LANGUAGES or not isinstance(digests, Mapping) or not all(isinstance(d, str) for d in digests.values()):
            return document.fault((language,), "", "must be a table of a language: unit -> digest of its source text")
    return TranslationState(source, rest)


def translation_faults(template: str, text: str, files: Mapping[str, str]) -> Iterator[TemplateError]:
    """A fault for each text that is not translated, or whose source text has changed since. They block approval."""
    state = read_state(template, text)
    if isinstance(state, TemplateError):
        yield state
        return
    for language, made_from in state.made_from.items() if state.source else ():
        pairs = {source.id: (source, target) for source, target in pair_units(files, template, state.source or "en", language)}
        for source, target in pairs.values():
            digest = made_from.get(source.id, "")
            if not digest:
                yield TemplateError(target.part.file, target.line, source.id, "", "is not translated")
            elif digest != source.digest:
                message = f"is stale: the text in {state.source} has changed since it was translated"
                yield TemplateError(target.part.file, target.line, source.id, "", message)

"""`_shared/legal.toml`: the sentences and words that the law requires, per language. It is data, so that a lawyer can read
and sign it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dispatcher.content import toml
from dispatcher.content.errors import TemplateError
from dispatcher.domain.recipient import LANGUAGES, Language
from dispatcher.domain.spelling import did_you_mean


@dataclass(frozen=True, slots=True)
class Legal:
    """`topics`: regulated topic -> language -> its sentence; `advertising`: the word that marks it; `not_in_push`: data
    categories."""

    topics: Mapping[str, Mapping[Language, str]] = field(default_factory=dict)
    advertising: Mapping[Language, str] = field(default_factory=dict)
    not_in_push: frozenset[str] = frozenset()


def read_legal(file: str, files: Mapping[str, str]) -> tuple[Legal, list[TemplateError]]:
    """Read the file out of `files`, with its faults."""
    if file not in files:
        return Legal(), [TemplateError(file, 1, "file", "", "is missing")]
    document = toml.read(file, files[file])
    if isinstance(document, TemplateError):
        return Legal(), [document]
    keys = ("advertising", "topics", "push")
    faults = [document.fault((key,), "", f"unknown key{did_you_mean(key, keys)}") for key in document.data if key not in keys]
    topics = document.data.get("topics", {})
    for path, words in (
        (("advertising",), document.data.get("advertising")),
        *((("topics", key), topics[key]) for key in topics),
    ):
        if (
            not isinstance(words, Mapping)
            or set(words) != set(LANGUAGES)
            or not all(isinstance(w, str) and w for w in words.values())
        ):
            faults.append(document.fault(path, "", f"needs a text for each of {', '.join(LANGUAGES)} and no others"))
    withheld = document.data.get("push", {}).get("withheld_categories", [])
    if faults:
        return Legal(topics), faults
    return Legal(topics, document.data["advertising"], frozenset(withheld)), faults

"""The words that the linter looks for: see `words.toml`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from dispatcher.domain.recipient import Language


@dataclass(frozen=True, slots=True)
class SecretWords:
    """Words of a sentence that asks for a secret: it has one of `names` and one of `verbs`, and none of `warnings`."""

    names: re.Pattern[str]
    verbs: re.Pattern[str]
    warnings: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class WordLists:
    """`vague_links` are texts of links and `vague_alts` alt texts, of all languages; `shorteners` are hosts.

    `function_words` are those that only one language has. `invariable` are words that stay the same after any number. `unsubscribe`
    finds the words that say so.

    `advertising` are phrases that a service text must not have, `picture_words` what alt texts and buttons are full of, in one
    language only. `spam` is a pattern per language, with the English words in all. `representative_example` is language -> part of
    the example -> pattern of its name and a number."""

    vague_links: frozenset[str]
    vague_alts: frozenset[str]
    spam: Mapping[Language, re.Pattern[str]]
    shorteners: frozenset[str]
    representative_example: Mapping[Language, Mapping[str, re.Pattern[str]]]
    function_words: Mapping[Language, frozenset[str]]
    invariable: frozenset[str]
    unsubscribe: Mapping[Language, re.Pattern[str]]
    advertising: Mapping[Language, re.Pattern[str]]
    picture_words: Mapping[Language, frozenset[str]]
    credit_claims: Mapping[Language, re.Pattern[str]]
    secrets: Mapping[Language, SecretWords]


@lru_cache(maxsize=1)
def word_lists() -> WordLists:
    """The lists, read once."""
    data = tomllib.loads(resources.files("dispatcher.content.lint").joinpath("words.toml").read_text(encoding="utf-8"))
    return WordLists(
        vague_links=frozenset(word.casefold() for words in data["vague_links"].values() for word in words),
        vague_alts=frozenset(word.casefold() for word in data["vague_alts"]["words"]),
        spam={
            language: re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, (*words, *data['spam']['en'])))})(?!\w)", re.IGNORECASE)
            for language, words in data["spam"].items()
        },
        shorteners=frozenset(data["shorteners"]["hosts"]),
        representative_example={
            language: {
                part: re.compile(rf"(?:{'|'.join(map(re.escape, words))})[^.!?]{{0,40}}?[0-9]", re.IGNORECASE)
                for part, words in parts.items()
            }
            for language, parts in data["representative_example"].items()
        },
        function_words={language: frozenset(words) for language, words in data["function_words"].items()},
        invariable=frozenset(word.casefold() for word in data["invariable"]["words"]),
        advertising={
            language: re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)", re.IGNORECASE)
            for language, words in data["advertising"].items()
        },
        picture_words={language: frozenset(words) for language, words in data["picture_words"].items()},
        credit_claims={language: _any_of(patterns) for language, patterns in data["credit_claims"].items()},
        secrets={
            language: SecretWords(*(_any_of(data["secrets"][part][language]) for part in ("names", "verbs", "warnings")))
            for language in data["secrets"]["names"]
        },
        unsubscribe={
            language: re.compile("|".join(map(re.escape, words)), re.IGNORECASE) for language, words in data["unsubscribe"].items()
        },
    )


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(rf"(?<!\w)(?:{each})" for each in patterns), re.IGNORECASE)

"""Phrases that a bank must not write: what the law forbids in advertising for credit, and requests for secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dispatcher.content.lint.findings import LintFinding
from dispatcher.content.lint.samples import LintSample
from dispatcher.content.lint.word_lists import word_lists
from dispatcher.domain.recipient import Language

_SENTENCE = re.compile(r"[^.!?\n]+")


def phrases(sample: LintSample) -> Iterator[LintFinding]:
    """The findings in one message: the first of each kind in each part."""
    language, lists = sample.request.language, word_lists()
    for part, text in sample.texts:
        if sample.requirements.warning and (found := lists.credit_claims[language].search(text)):
            message = "is a claim that advertising for credit may not make"
            yield sample.finding("T410", sample.place_of(part, found[0]), part, message, found[0])
        if asked := _request(text, language):
            message = "asks for a secret: a reader cannot tell it from phishing"
            yield sample.finding("T212", sample.place_of(part, asked), part, message, asked)


def _request(text: str, language: Language) -> str:
    """A sentence that asks for a password or a code; not one that warns of doing so."""
    secrets = word_lists().secrets[language]
    for sentence in _SENTENCE.findall(text):
        if secrets.names.search(sentence) and secrets.verbs.search(sentence) and not secrets.warnings.search(sentence):
            return str(sentence).strip()
    return ""

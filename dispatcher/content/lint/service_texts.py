"""Advertising in a text that is sent as a service: it needs the permission of an advertisement, which a service has not."""

from __future__ import annotations

from collections.abc import Iterator

from dispatcher.content.lint.findings import LintFinding
from dispatcher.content.lint.samples import LintSample
from dispatcher.content.lint.word_lists import word_lists
from dispatcher.domain.message import Kind


def service_texts(sample: LintSample) -> Iterator[LintFinding]:
    """The findings in one message: the first phrase of advertising in each part."""
    if sample.template.info.kind is not Kind.SERVICE:
        return
    for part, text in sample.texts:
        if found := word_lists().advertising[sample.request.language].search(text):
            message = "advertises: people who chose no advertising get this text, too"
            yield sample.finding("T408", sample.place_of(part, found[0]), part, message, found[0])

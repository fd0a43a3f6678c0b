"""SMS that take more segments than their template declares, with the sender that the policy names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dispatcher.content.lint.findings import LintFinding
from dispatcher.content.lint.samples import LintSample
from dispatcher.content.preview import too_many_segments


def segments(samples: Iterable[LintSample]) -> Iterator[LintFinding]:
    """The findings in the SMS of one template: with the examples, and with each set of other values."""
    for sample in samples:
        if message := too_many_segments(sample.template, sample.request, sample.content):
            yield sample.finding("T005", sample.place("sms.text"), "sms.text", f"{message}, from the examples{sample.data_set}")

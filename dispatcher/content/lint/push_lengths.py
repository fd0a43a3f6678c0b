"""Pushes that phones cut: with the examples, and with values such as long names and huge amounts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from channels.base import Push
from dispatcher.content.edge_cases import STRESS_TEST, edge_cases
from dispatcher.content.lint.findings import LintFinding
from dispatcher.content.lint.samples import LintContext, LintSample, rendered, with_all_values


def push_lengths(samples: Iterable[LintSample], context: LintContext) -> Iterator[LintFinding]:
    """The findings in the pushes of one template: for each part, the longest text that it has."""
    limits = (("push.title", context.push_title_max), ("push.body", context.push_body_max))
    for sample in with_all_values(samples):
        if not isinstance(sample.content, Push):
            continue
        pushes = list(_with_edge_cases(sample))
        for part, limit in limits:
            lengths = [(len(push.title if part == "push.title" else push.body), title) for title, push in pushes]
            longest, case = max(lengths, key=lambda each: each[0])
            if 0 < limit < longest:
                with_case = "" if lengths[0][0] > limit else f", with the case “{case}”"
                length = lengths[0][0] if lengths[0][0] > limit else longest
                message = f"has {length} characters{with_case}: phones show about {limit}"
                yield sample.finding("T211", sample.place(part), part, message)
        yield from _cut_warning(sample, pushes, context.push_body_max)


def _cut_warning(sample: LintSample, pushes: Iterable[tuple[str, Push]], limit: int) -> Iterator[LintFinding]:
    warning = sample.requirements.warning
    for case, push in pushes if warning and limit else ():
        end = push.body.find(warning) + len(warning)
        if warning in push.body and end > limit:
            message = f"ends at character {end}, with the case “{case}”: phones show about {limit}"
            yield sample.finding("T409", sample.place("push.body"), "warning", message)
            return


def _with_edge_cases(sample: LintSample) -> Iterator[tuple[str, Push]]:
    """The push of a sample, then the same with the values of each edge case."""
    for case in edge_cases(sample.template):
        push = rendered(sample.template, sample.request, **case.data) if case.key != STRESS_TEST else None
        if isinstance(push, Push):
            yield case.title, push

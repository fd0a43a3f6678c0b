"""What the law requires of a message: sender, advertising mark, unsubscribe link, credit warning, representative example.

The content guard refuses a message without them. The linter says where the fault is, and whether a reader sees what is there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from channels.base import Channel, Email
from dispatcher.content.lint.accessibility import concealed_by
from dispatcher.content.lint.concealment import parts_of
from dispatcher.content.lint.css import condition, font_pixels
from dispatcher.content.lint.findings import LintFinding
from dispatcher.content.lint.links import text_unsubscribe
from dispatcher.content.lint.mail_page import MailPage, full_text, one_line
from dispatcher.content.lint.samples import LintSample
from dispatcher.content.lint.word_lists import word_lists

_RATE = re.compile(  # not "100 % online"
    r"(?<![0-9.,])[0-9]{1,2}(?:[.,][0-9]+)?\s?(?:%|(?:procent|pour cent|Prozent|per ?cent)\b)", re.IGNORECASE
)
# A cost: an amount for each month.
_COST = re.compile(
    r"[0-9](?:\s?(?:€|EUR|euros?))?\s?(?:/|per|par|pro|im|in|a|each|chaque|elke)\s?(?:maand|mois|Monat|month|mnd)\b"
    r"|[0-9](?:\s?(?:€|EUR|euros?))?\s(?:monatlich|maandelijks|monthly|mensuels?)\b",
    re.IGNORECASE,
)
CREDIT = "consumer_credit"


def law(sample: LintSample) -> Iterator[LintFinding]:
    """The findings in one message."""
    yield from _named(sample)
    yield from text_unsubscribe(sample)
    if sample.requirements.warning:
        yield from _warning(sample)
    if sample.template.info.topic == CREDIT:
        yield from _example(sample)


def _named(sample: LintSample) -> Iterator[LintFinding]:
    """Sender and advertising mark. Push is exempt: the app shows its sender."""
    required = sample.requirements
    if not required.commercial or sample.request.channel is Channel.PUSH:
        return
    for part, text in sample.sent_texts:
        if part in ("email.subject", "email.preheader"):
            continue
        if required.sender not in text:
            yield sample.finding("T401", sample.place(part), "sender.name", "this text does not name its sender")
        if sample.request.channel is Channel.EMAIL and required.mark not in text:
            yield sample.finding(
                "T402", sample.line_in(part, "block advertising"), "advertising", f"this text does not show {required.mark!r}"
            )


def _warning(sample: LintSample) -> Iterator[LintFinding]:
    warning, page = one_line(sample.requirements.warning), sample.page
    for part, text in sample.sent_texts:
        if part in ("email.subject", "email.preheader", "push.title", "email.html"):
            continue
        if warning not in one_line(text):
            yield sample.finding("T404", sample.place(part), "warning", "this text lacks the sentence of its regulated topic")
    if page is not None:
        yield from _warning_in_html(sample, page, warning)


def _warning_in_html(sample: LintSample, page: MailPage, warning: str) -> Iterator[LintFinding]:
    holders = [each for each in page.elements() if warning in full_text(each)]
    if not holders:
        yield sample.finding("T404", sample.place("email.html"), "warning", "the HTML lacks the sentence of its regulated topic")
        return
    holder = holders[-1]  # the innermost of the last
    innermost = [each for each in holders if not any(each is other.getparent() for other in holders)]
    for variant in (*page.styles.variants, *page.styles.in_programs):
        shown = condition(variant)
        reasons = {each: _concealed(page, each, warning, variant) for each in innermost}
        seen = [each for each in innermost if not reasons[each]]
        if not seen:
            reason = reasons[holder]
            place = sample.declared_in_mail(reason) or page.place(holder)
            yield sample.finding("T405", place, "warning", f"is hidden by {reason}{shown}")
            return  # the first variant says enough
        smallest = min(seen, key=lambda each: font_pixels(page.styles.of(each, variant)))
        pixels, body = font_pixels(page.styles.of(smallest, variant)), _body_pixels(page, variant)
        if pixels < body:
            yield sample.finding(
                "T406", page.place(smallest), "warning", f"is set in {pixels:g}px, the text of the mail in {body:g}px{shown}"
            )
            return


def _concealed(page: MailPage, holder: Any, warning: str, variant: str) -> str:
    """What conceals the sentence, or a part of it."""
    return next(filter(None, (concealed_by(page, each, variant) for each in parts_of(holder, warning))), "")


def _body_pixels(page: MailPage, variant: str) -> float:
    """The size in which most of the text is set."""
    counts: dict[float, int] = {}
    for element, text in page.texts(variant):
        pixels = font_pixels(page.styles.of(element, variant))
        counts[pixels] = counts.get(pixels, 0) + len(text)
    return max(counts, key=lambda pixels: counts[pixels], default=0.0)


def _example(sample: LintSample) -> Iterator[LintFinding]:
    """A text that shows a rate or a cost and not the whole representative example."""
    for part, text in sample.texts:
        shown = one_line(text)
        if not (rate := _RATE.search(shown) or _COST.search(shown)):
            continue
        names = word_lists().representative_example[sample.request.language]
        missing = [name for name, pattern in names.items() if not pattern.search(shown)]
        if missing:
            place = (
                sample.place_of(part, rate[0]) if part != "email.html" or not isinstance(sample.content, Email) else _place(sample)
            )
            yield sample.finding("T407", place, "representative example", f"shows a rate or a cost and lacks: {', '.join(missing)}")


def _place(sample: LintSample) -> tuple[str, int]:
    """The line of the first rate in the HTML."""
    page = sample.page
    for element, text in page.texts() if page else ():
        if _RATE.search(text) or _COST.search(text):
            return page.own_place(element) if page else sample.place("email.html")
    return sample.place("email.html")

"""Deliverability: what makes mail providers cut a mail, mark it as spam, or show it badly."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from channels.base import Email
from dispatcher.content.lint.css import hides
from dispatcher.content.lint.findings import LintFinding
from dispatcher.content.lint.mail_page import MailPage, full_text
from dispatcher.content.lint.samples import LintSample
from dispatcher.content.lint.word_lists import word_lists

GMAIL_BYTES_MAX = 102 * 1_024
SUBJECT_DESKTOP, SUBJECT_PHONE = 70, 41  # characters that Gmail on a desktop and Mail on an iPhone show
TEXT_PER_IMAGE_MIN = 400  # characters
_PIXEL_MAX = 4
_CAPITALS_MIN = 12  # letters in a row of words; shorter ones are names
_MARKS_MAX = 1

_REPEATED = re.compile(r"!(?:\s?!)+|€€|\$\$")
_CAPITALS = "A-ZÀ-ÖØ-Þ"
_SHOUTED = re.compile(rf"(?<![\w.])(?:[{_CAPITALS}]{{2,}}(?![\w.])[\s,!:–-]*){{5,}}")  # five words; fewer are names
_WORDS, _CAPITAL_WORDS = re.compile(r"[^\W\d_]{2,}"), 5
_NOT_SHOWN = re.compile(r"\.(svg|webp|avif)(?:[?#]|\Z)", re.IGNORECASE)
_REPLY = re.compile(r"\s*(?:re|fwd?|aw|wg|tr|antw|rép)\s*:", re.IGNORECASE)


def deliverability(sample: LintSample) -> Iterator[LintFinding]:
    """The findings in one message."""
    for part, text in sample.texts:
        yield from _words(sample, part, text)
    if not isinstance(sample.content, Email):
        return
    if not sample.data_set:
        yield from _subject(sample, sample.content.subject)
    size = len(sample.content.html.encode())
    if size > GMAIL_BYTES_MAX:
        message = f"is larger than {GMAIL_BYTES_MAX // 1_024} kB: Gmail cuts the rest, with the unsubscribe link"
        yield sample.finding("T201", sample.place("email.html"), "size", message)
    if sample.page:
        yield from _page(sample, sample.page)


def _words(sample: LintSample, part: str, text: str) -> Iterator[LintFinding]:
    for found in word_lists().spam[sample.request.language].finditer(text):
        yield sample.finding(
            "T206", sample.place_of(part, found[0]), part, "is a phrase of advertising that filters know", found[0]
        )
    for mark in _REPEATED.finditer(text):
        yield sample.finding("T206", sample.place_of(part, mark[0]), part, "repeats a sign, as spam does", mark[0])
        break
    for shouted in _SHOUTED.finditer(text):
        words = shouted[0].strip()
        yield sample.finding("T206", sample.place_of(part, words), part, "is in capitals, as spam is", words)
    if part in ("email.subject", "push.title") and text.isupper() and sum(map(str.isalpha, text)) >= _CAPITALS_MIN:
        yield sample.finding("T206", sample.place(part), part, "is in capitals, as spam is", text)


def _subject(sample: LintSample, subject: str) -> Iterator[LintFinding]:
    if found := _REPLY.match(subject):
        yield sample.finding("T206", sample.place("email.subject"), "email.subject", "looks like a reply, as spam does", found[0])
    if len(subject) > SUBJECT_DESKTOP:
        message = f"has {len(subject)} characters: Gmail on a desktop shows about {SUBJECT_DESKTOP}"
        yield sample.finding("T208", sample.place("email.subject"), "email.subject", message)
    elif len(subject) > SUBJECT_PHONE:
        message = f"has {len(subject)} characters: an iPhone shows about {SUBJECT_PHONE}, so the first words must say what matters"
        yield sample.finding("T209", sample.place("email.subject"), "email.subject", message)


def _page(sample: LintSample, page: MailPage) -> Iterator[LintFinding]:
    images = [each for each in page.elements() if each.tag == "img"]
    for image in images:
        if _is_pixel(image, page) or all(hides(page.styles.of(image, variant)) for variant in page.styles.variants):
            yield sample.finding(
                "T210", page.own_place(image), "img", "is an invisible picture, as used for tracking", image.get("src", "")
            )
        if found := _NOT_SHOWN.search(image.get("src", "")):
            message = f"is of the format {found[1]}, which Gmail or Outlook does not show"
            yield sample.finding("T213", page.own_place(image), "img src", message, image.get("src"))
    for element in page.elements():
        styles = page.styles.of(element)
        loads = element.get("background") or any("url(" in styles.get(name, "") for name in ("background", "background-image"))
        if loads and _is_pixel(element, page):
            yield sample.finding("T210", page.own_place(element), element.tag, "loads an invisible picture, as used for tracking")
    text = page.visible_text()
    if images and not sample.data_set and len(text) < TEXT_PER_IMAGE_MIN * len(images):
        message = f"has fewer than {TEXT_PER_IMAGE_MIN} characters for each of its pictures ({len(images)})"
        yield sample.finding("T202", sample.place("email.html"), "text", message)
    yield from _capitals_of_styles(sample, page)
    yield from _hidden(sample, page)
    yield from _preheader(sample, page)


def _capitals_of_styles(sample: LintSample, page: MailPage) -> Iterator[LintFinding]:
    """A sentence that a style writes in capitals; a label of some words may be."""
    for element in page.elements():
        above = element.getparent()
        if _is_capital(page, element) and not (above is not None and _is_capital(page, above)) and not page.hidden_by(element):
            words = full_text(element)
            if len(_WORDS.findall(words)) >= _CAPITAL_WORDS:
                message = "is in capitals by text-transform, as spam is"
                yield sample.finding("T206", page.own_place(element), element.tag, message, words)


def _hidden(sample: LintSample, page: MailPage) -> Iterator[LintFinding]:
    """Text that no scheme and no width shows, other than the preheader and the blanks after it."""
    for element in page.elements():
        text = full_text(element)
        if not _WORDS.search(text) or (sample.preheader and text.startswith(sample.preheader)):
            continue
        if all(hides(page.styles.of(element, variant)) for variant in page.styles.variants) and not _is_required(sample, element):
            yield sample.finding("T214", page.own_place(element), element.tag, "is shown nowhere", text)


def _is_required(sample: LintSample, element: Any) -> bool:
    """Whether the text is one whose hiding T305 or T405 reports."""
    required = sample.requirements
    holds_link = any(each.get("href") == required.links.unsubscribe for each in element.iter("a"))
    return holds_link or bool(required.warning and required.warning in full_text(element))


def _is_capital(page: MailPage, element: Any) -> bool:
    return page.styles.of(element).get("text-transform") == "uppercase"


def _bare(text: str) -> str:
    """A text without case and punctuation."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def _is_pixel(element: Any, page: MailPage) -> bool:
    return all(_pixels(element, page, side) <= _PIXEL_MAX for side in ("width", "height"))


def _pixels(image: Any, page: MailPage, name: str) -> float:
    """A side of a picture; a large number where it is not given."""
    value = page.styles.of(image).get(name) or image.get(name) or ""
    digits = value.removesuffix("px").strip()
    return float(digits) if digits.replace(".", "", 1).isdigit() else 1_000.0


def _preheader(sample: LintSample, page: MailPage) -> Iterator[LintFinding]:
    """What a mailbox shows after the subject: the first words of the mail."""
    preheader = sample.preheader
    if not preheader:
        return
    if not page.first_words().startswith(preheader):
        body = page.root.find("body")
        place = page.place(page.root if body is None else body)
        yield sample.finding("T207", place, "email.preheader", "is not at the beginning of the mail", preheader)
    elif isinstance(sample.content, Email) and _bare(preheader) == _bare(sample.content.subject):
        yield sample.finding("T207", sample.place("email.preheader"), "email.preheader", "says the same as the subject", preheader)

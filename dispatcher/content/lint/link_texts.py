"""Links that a reader cannot tell apart: from the text around them, or from each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dispatcher.content.lint.css import Styles
from dispatcher.content.lint.findings import LintFinding
from dispatcher.content.lint.mail_page import MailPage, full_text
from dispatcher.content.lint.samples import LintSample

_BLOCKS = frozenset({"p", "td", "th", "div", "li", "h1", "h2", "h3", "h4", "h5", "h6", "body", "caption", "blockquote"})
_CUES = ("background-color", "background", "border", "border-bottom", "font-style")
_WORDS_AROUND = 2  # a single word beside a link, such as a separator, is no running text
_BOLD = frozenset({"bold", "bolder", "600", "700", "800", "900"})


def link_texts(sample: LintSample) -> Iterator[LintFinding]:
    """The findings in the HTML of one mail."""
    page = sample.page
    if page is None:
        return
    links = [each for each in page.elements() if each.tag == "a" and each.get("href") and not page.hidden_by(each)]
    for link in links:
        if _is_in_running_text(link) and not _has_cue(page, link):
            message = "differs from the text around it by its colour only: keep the underline"
            yield sample.finding("T112", page.own_place(link), "a", message, full_text(link))
    first: dict[str, str] = {}
    for link in links:
        text, address = (link.get("aria-label") or full_text(link)).strip().casefold(), link.get("href").strip()
        if text and first.setdefault(text, address) != address:
            message = f"has the text of a link that leads elsewhere: {first[text]}"
            yield sample.finding("T113", page.own_place(link), "a", message, full_text(link))


def _is_in_running_text(link: Any) -> bool:
    block = next((each for each in link.iterancestors() if each.tag in _BLOCKS), None)
    if block is None or not full_text(link) or link.find(".//img") is not None:
        return False
    inside = sum(len(full_text(each).split()) for each in block.iter("a"))
    return len(full_text(block).split()) - inside >= _WORDS_AROUND


def _has_cue(page: MailPage, link: Any) -> bool:
    """Whether something besides the colour marks a link: an underline, a border, a background, or bold in plain text."""
    around = page.styles.of(link.getparent())
    return any(_is_marked(page.styles.of(each), around, is_link=each is link) for each in link.iter("*"))


def _is_marked(styles: Styles, around: Styles, *, is_link: bool) -> bool:
    decoration = styles.get("text-decoration-line") or styles.get("text-decoration") or ("underline" if is_link else "none")
    is_bold = str(styles.get("font-weight", "")) in _BOLD and str(around.get("font-weight", "")) not in _BOLD
    return "underline" in decoration or is_bold or any(styles.get(each, "none") not in ("none", "0", "normal") for each in _CUES)

"""Accessibility of the HTML of mails, as far as a program sees it: WCAG 2.2 AA, which EN 301 549 takes over."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from dispatcher.content.links import as_read
from dispatcher.content.lint.concealment import concealing
from dispatcher.content.lint.css import Colour, colour, condition, font_pixels, hexadecimal, on, pixels
from dispatcher.content.lint.findings import LintFinding
from dispatcher.content.lint.mail_page import MailPage, full_text
from dispatcher.content.lint.samples import LintSample
from dispatcher.content.lint.word_lists import word_lists
from dispatcher.content.themes import contrast

TEXT_PIXELS_MIN = 12
_LARGE, _LARGE_BOLD = 24.0, 18.66  # pixels: 18 pt, and 14 pt in bold (WCAG 2.2, "large scale")
_WHITE: Colour = (1.0, 1.0, 1.0, 1.0)
_BLACK: Colour = (0.0, 0.0, 0.0, 1.0)
_LINK: Colour = (0.0, 0.0, 0xEE / 255, 1.0)  # of links without a colour of their own, in most programs
INVISIBLE_BELOW = 2.0  # a contrast: light grey on white
_OWN_COLOUR = re.compile(r"(?<!-)\bcolor\s*:", re.IGNORECASE)
_FILE = re.compile(r"\S+\.(?:png|jpe?g|gif|svg|webp|bmp|avif)|(?:img|dsc|dscn|pxl|dcim)[_ -]?[0-9]\S*", re.IGNORECASE)
_NO_WORD = re.compile(r"[^\w]+")


def accessibility(sample: LintSample) -> Iterator[LintFinding]:
    """The findings in the HTML of one mail."""
    page = sample.page
    if page is None:
        return
    yield from _document(sample, page)
    for element in page.elements():
        if element.tag == "img":
            yield from _picture(sample, page, element)
        elif element.tag == "a" and element.get("href") is not None:
            yield from _link(sample, page, element)
        elif element.tag == "table":
            yield from _table(sample, page, element)
    yield from _headings(sample, page)
    seen: set[tuple[Any, ...]] = set()
    for variant in page.styles.variants:
        yield from _texts(sample, page, variant, seen)


def _document(sample: LintSample, page: MailPage) -> Iterator[LintFinding]:
    language = (page.root.get("lang") or "").partition("-")[0].lower()
    if language != sample.request.language:
        message = f"must be {sample.request.language!r}, the language of the text: a screen reader chooses its voice by it"
        yield sample.finding("T106", page.place(page.root), "html lang", message, language)
    yield from _language_of_parts(sample, page)
    if not (page.root.findtext("head/title") or "").strip():
        yield sample.finding("T110", page.place(page.root), "title", "is missing or empty")


def _language_of_parts(sample: LintSample, page: MailPage) -> Iterator[LintFinding]:
    """An element that holds most of the text and says another language. A quotation may do so."""
    half = len(page.visible_text()) / 2
    for element in page.elements():
        language = (element.get("lang") or "").partition("-")[0].lower()
        if language and language != sample.request.language and len(full_text(element)) > half:
            message = f"must be {sample.request.language!r}, the language of the text in it"
            yield sample.finding("T106", page.place(element), f"{element.tag} lang", message, language)


def _picture(sample: LintSample, page: MailPage, image: Any) -> Iterator[LintFinding]:
    if image.get("alt") is None:
        yield sample.finding("T101", page.own_place(image), "img alt", "is missing", image.get("src", ""))
    elif _FILE.fullmatch(image.get("alt").strip()):
        yield sample.finding("T101", page.own_place(image), "img alt", "is the name of a file", image.get("alt"))
    elif image.get("alt").strip().casefold() in word_lists().vague_alts:
        yield sample.finding("T101", page.own_place(image), "img alt", "does not say what the picture shows", image.get("alt"))


def _link(sample: LintSample, page: MailPage, link: Any) -> Iterator[LintFinding]:
    text = full_text(link) or link.get("aria-label", "").strip()
    if not as_read(text).strip():  # without the characters that nobody sees
        yield sample.finding(
            "T103", page.own_place(link), "a", "has no text, and no picture with an alt text", link.get("href", "")
        )
        return
    if any(each.get("aria-hidden") == "true" for each in (link, *link.iterancestors())):
        yield sample.finding("T103", page.own_place(link), "a", "is hidden from screen readers, and can be reached by key", text)
    words = " ".join(_NO_WORD.split(text.casefold())).strip()
    if words in word_lists().vague_links or not words:
        yield sample.finding("T102", page.own_place(link), "a", "does not say where the link leads", text)


def _table(sample: LintSample, page: MailPage, table: Any) -> Iterator[LintFinding]:
    role = table.get("role", "")
    has_headers = any(next(each.iterancestors("table")) is table for each in table.iter("th"))  # not those of tables inside it
    if role in ("presentation", "none"):
        if has_headers or table.find("caption") is not None:
            yield sample.finding(
                "T109", page.place(table), "table role", "hides the headers of this table from screen readers", role
            )
    elif not has_headers:
        what = (
            "a table of data needs header cells"
            if table.find("caption") is not None
            else 'a table for layout needs role="presentation"'
        )
        yield sample.finding("T109" if table.find("caption") is not None else "T107", page.place(table), "table", what)


def _headings(sample: LintSample, page: MailPage) -> Iterator[LintFinding]:
    last = 0
    for element in page.elements():
        if not (re.fullmatch("h[1-6]", element.tag) and not page.hidden_by(element)):
            continue
        level = int(element.tag[1])
        if not full_text(element):
            yield sample.finding("T105", page.own_place(element), element.tag, "is an empty heading")
        elif level > last + 1:
            message = "must be h1, the first heading" if not last else f"follows h{last}: a level is left out"
            yield sample.finding("T105", page.own_place(element), element.tag, message, full_text(element))
        elif level == 1 and last:
            yield sample.finding(
                "T105", page.own_place(element), "h1", "is a second h1: the mail has one subject", full_text(element)
            )
        last = level


def _texts(sample: LintSample, page: MailPage, variant: str, seen: set[tuple[Any, ...]]) -> Iterator[LintFinding]:
    """Sizes and colours in one variant. `seen` are those that were reported for another."""
    shown = condition(variant)
    for element, text in page.texts(variant):
        if not any(character.isalnum() for character in text):
            continue
        styles = page.styles.of(element, variant)
        size = font_pixels(styles)
        if size < TEXT_PIXELS_MIN and (element, size) not in seen:
            seen.add((element, size))
            message = f"is smaller than {TEXT_PIXELS_MIN}px{shown}"
            yield sample.finding("T108", page.place(element), "font-size", message, f"{size:g}px")
        least = 3.0 if size >= _LARGE or (size >= _LARGE_BOLD and _is_bold(styles.get("font-weight", ""), element)) else 4.5
        if (colours := text_colours(page, element, variant)) is not None:
            ink, ground = colours
            ratio = contrast(ink, ground)
            if ratio < least and (element, ink, ground) not in seen:
                seen.add((element, ink, ground))
                message = f"has a contrast of {ratio:.2f} on {ground}; {least:g} is needed{shown}"
                place = page.place(element) if _OWN_COLOUR.search(element.get("style", "")) else page.text_place(element)
                yield sample.finding("T104", place, "color", message, ink)


def text_colours(page: MailPage, element: Any, variant: str) -> tuple[str, str] | None:
    """The colours of an element's text and of what is behind it; None behind a picture."""
    back = _background(page, element, variant)
    front = colour(page.styles.of(element, variant).get("color", "")) or (_LINK if element.tag == "a" else _BLACK)
    if back is None:
        return None
    while element is not None:  # what is translucent makes all in it so
        share = pixels(page.styles.of(element, variant).get("opacity", "1"), 0.01)
        front = (*front[:3], front[3] * (1.0 if share is None else max(0.0, min(1.0, share))))
        element = element.getparent()
    return hexadecimal(on(front, back)), hexadecimal(back)


def concealed_by(page: MailPage, element: Any, variant: str) -> str:
    """What conceals an element from a reader: the declaration that hides it, or a colour like that of its background; "" if it is
    shown."""
    if hidden := page.hidden_by(element, variant) or concealing(page, element, variant):
        return hidden
    if variant in page.styles.in_programs:  # which change colours in ways of their own
        return ""
    colours = text_colours(page, element, variant)
    return f"color: {colours[0]} on {colours[1]}" if colours and contrast(*colours) < INVISIBLE_BELOW else ""


def _is_bold(weight: str, element: Any) -> bool:
    return weight in ("bold", "bolder", "600", "700", "800", "900") or element.tag in ("b", "strong", "th", "h1", "h2", "h3")


def _background(page: MailPage, element: Any, variant: str) -> Colour | None:
    """The colour behind a text: that of the elements around it, the nearest on top; None behind a picture."""
    layers: list[Colour] = []
    while element is not None:
        styles = page.styles.of(element, variant)
        if "url(" in styles.get("background-image", "") or "url(" in styles.get("background", "") or element.get("background"):
            return None
        layer = colour(styles.get("background-color", ""))
        if layer is not None and layer[3] > 0:
            layers.append(layer)
            if layer[3] == 1:
                break
        element = element.getparent()
    ground = _WHITE
    for layer in reversed(layers):
        ground = on(layer, ground)
    return ground

"""What makes a text that is there hard to see: for the sentences and links that the law requires.

A list of what may be set on such a text, and on the elements around it, is safer than a list of what hides: CSS has dozens of
properties that move, shrink, clip or cover a text.
"""

from __future__ import annotations

import re
from typing import Any

from dispatcher.content.lint.css import Styles, font_pixels, pixels
from dispatcher.content.lint.mail_page import MailPage, own_text

_HARMLESS = re.compile(
    r"(?:font|padding|margin|border|background|list-style|text-align|text-decoration|text-underline|mso|-ms|outline)(?:-.+)?"
    r"|(?:min-|max-)?(?:width|height)|color|line-height|letter-spacing|word-(?:break|spacing|wrap)|overflow(?:-wrap|-[xy])?|opacity"
    r"|display|visibility|vertical-align|box-sizing|box-shadow|table-layout|caption-side|white-space|hyphens|float|clear|cursor"
    r"|text-transform|text-rendering|text-size-adjust|-webkit-(?:text-size-adjust|font-smoothing)|-moz-osx-font-smoothing"
    r"|direction|unicode-bidi|text-indent|(?:supported-)?color-schemes?|quotes|-premailer-.+"
)
_NEUTRAL = frozenset({"none", "auto", "normal", "initial", "inherit", "unset", "static", "relative", "visible", "0", "0px", "1"})
_LINE_MIN = 0.8  # of the size of the text: below it, lines cover each other
_SPACING_MIN = -0.1  # of the size of the text: below it, letters cover each other
_BOX_MIN = 20  # pixels of a box that cuts what is larger


def concealing(page: MailPage, element: Any, variant: str) -> str:
    """The declaration or attribute that conceals an element, besides those of `MailPage.hidden_by`; "" for none."""
    own = page.styles.of(element, variant)
    size = font_pixels(own)
    line = spacing = ""
    while element is not None:
        styles = page.styles.of(element, variant)
        if element.get("aria-hidden") == "true":
            return 'aria-hidden="true"'
        line, spacing = line or styles.get("line-height", ""), spacing or styles.get("letter-spacing", "")
        if found := _harmful(styles) or _cut(styles):
            return found
        element = element.getparent()
    if (height := _ratio(line, size)) is not None and height < _LINE_MIN:
        return f"line-height: {line}"
    if (width := pixels(spacing, size)) is not None and width < _SPACING_MIN * size:
        return f"letter-spacing: {spacing}"
    return ""


def parts_of(element: Any, sentence: str) -> list[Any]:
    """The elements that hold the words of a sentence: the element, and if it does not hold them all itself, those in it."""
    if sentence in own_text(element):
        return [element]
    return [element, *(each for each in element.iterdescendants() if isinstance(each.tag, str) and own_text(each))]


def _harmful(styles: Styles) -> str:
    for name, value in styles.items():
        if not _HARMLESS.fullmatch(name) and value not in _NEUTRAL:
            return f"{name}: {value}"
    return ""


def _cut(styles: Styles) -> str:
    if any(styles.get(name, "visible") in ("hidden", "clip") for name in ("overflow", "overflow-x", "overflow-y")):
        for name in ("height", "max-height", "width", "max-width"):
            side = pixels(styles.get(name, ""), 1.0)
            if side is not None and side < _BOX_MIN and "%" not in styles[name]:
                return f"{name}: {styles[name]}"
    return ""


def _ratio(height: str, size: float) -> float | None:
    """A height of lines as a multiple of the size of the text."""
    if re.fullmatch(r"[0-9]*\.?[0-9]+", height):
        return float(height)
    found = pixels(height, size)
    return None if found is None else found / max(size, 1.0)

"""The styles that the elements of a mail have, as far as style sheets and style attributes decide them.

A mail is checked as it is shown: with its base rules, and once with the rules of each media query, such as dark mode or narrow
screens, added to them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, TypeAlias

import tinycss2
from cssselect import HTMLTranslator, SelectorError
from cssselect import parse as parse_selectors
from lxml import etree
from tinycss2.color4 import parse_color

Colour: TypeAlias = tuple[float, float, float, float]  # red, green, blue and opacity, from 0 to 1
Styles: TypeAlias = Mapping[str, str]  # property -> value

BASE = ""  # the variant without the rules of media queries
_INHERITED = frozenset({"color", "font-size", "visibility", "font-weight", "text-transform"})
_LENGTH = re.compile(r"\s*([+-]?[0-9]*\.?[0-9]+)\s*(px|pt|em|rem|ex|vw|vh|%)?\s*\Z", re.IGNORECASE)
_FUNCTION = re.compile(r"\s*(min|max|clamp|calc)\((.*)\)\s*\Z", re.IGNORECASE | re.DOTALL)
_ROOT_PIXELS = 16.0
_SIZES = {"xx-small": 9, "x-small": 10, "small": 13, "medium": 16, "large": 18, "x-large": 24, "xx-large": 32}
_HEADINGS = {"h1": 2.0, "h2": 1.5, "h3": 1.17, "h4": 1.0, "h5": 0.83, "h6": 0.67, "small": 0.83, "big": 1.17}
_OPACITY_MIN = 0.1  # a share, as CSS writes it
_FAR = -500  # pixels: a text that is moved so far is outside the page
_IN_FONT = re.compile(r"(?:^|\s)((?:[0-9.]+(?:px|pt|em|rem|%))|(?:xx?-)?(?:small|large)|medium)(?=[\s/])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _CssRule:
    media: str
    weight: tuple[int, int, int]  # the selector's specificity
    find: Any  # an XPath
    program: str  # the selector, if it names what only mail programs add, such as Outlook's [data-ogsc]; else ""
    find_there: Any  # the XPath of what it selects in those programs
    declarations: tuple[tuple[str, str, bool], ...]

    @property
    def can_hide(self) -> bool:
        return any(name not in _COLOURS for name, _, _ in self.declarations)


_COLOURS = frozenset({"color", "background-color", "border-color", "text-decoration"})
_NO_RULES = frozenset({"font-face", "page", "keyframes", "-webkit-keyframes", "import", "charset", "namespace"})
_OF_PROGRAMS = re.compile(r"\[|#|\.ExternalClass|\bu\s*[+~]", re.IGNORECASE)


@lru_cache(maxsize=64)
def _read_sheet(css: str) -> tuple[_CssRule, ...]:
    return tuple(_rules(tinycss2.parse_stylesheet(css, skip_comments=True, skip_whitespace=True), BASE))


def _rules(nodes: list[Any], media: str) -> Iterator[_CssRule]:
    for node in nodes:
        if node.type == "at-rule" and node.lower_at_keyword not in _NO_RULES and node.content is not None:
            condition = " ".join(tinycss2.serialize(node.prelude).split())
            is_media = node.lower_at_keyword == "media"
            condition = condition if is_media else f"@{node.lower_at_keyword} {condition}".strip()
            if not (is_media and "print" in condition and "screen" not in condition and "," not in condition):
                yield from _rules(tinycss2.parse_rule_list(node.content, skip_comments=True, skip_whitespace=True), condition)
        elif node.type == "qualified-rule":
            declarations = _declarations(node.content)
            for selector in (
                tinycss2.serialize(node.prelude).split(",")
                if "(" not in tinycss2.serialize(node.prelude)
                else (tinycss2.serialize(node.prelude),)
            ):
                for weight, find in _selectors(selector):
                    yield _CssRule(media, weight, find, *_in_programs(selector), declarations)


def _in_programs(selector: str) -> tuple[str, Any]:
    """For a selector that names what mail programs add: the selector, and what its last part selects without that."""
    if not _OF_PROGRAMS.search(selector):
        return "", None
    last = re.sub(r"\[[^\]]*\]", "", re.split(r"[\s>+~]+", selector.strip())[-1])
    found = _selectors(last) if last not in ("", "*") else ()
    return (" ".join(selector.split()), found[0][1]) if found else ("", None)


@lru_cache(maxsize=1_024)
def _selectors(text: str) -> tuple[tuple[tuple[int, int, int], Any], ...]:
    """Each selector's specificity and XPath. What needs a reader, such as `:hover`, selects nothing."""
    try:
        translator = HTMLTranslator()
        return tuple((each.specificity(), etree.XPath(translator.selector_to_xpath(each))) for each in parse_selectors(text))
    except (SelectorError, etree.XPathError):
        return ()


def _declarations(content: Any) -> tuple[tuple[str, str, bool], ...]:
    found = tinycss2.parse_blocks_contents(content, skip_comments=True, skip_whitespace=True)
    return tuple(
        (each.lower_name, tinycss2.serialize(each.value).strip().lower(), each.important)
        for each in found
        if each.type == "declaration"
    )


@lru_cache(maxsize=2_048)  # a layout has some forty styles, the same in all mails
def _inline(style: str) -> tuple[tuple[str, str, bool], ...]:
    return _declarations(style)


@dataclass(slots=True)
class PageStyles:
    """The styles of one page. `variants` are BASE and the conditions of its style sheets, such as media queries. `in_programs` are
    selectors of what only some mail programs add: what they hide is hidden there, but their colours belong together."""

    root: Any
    variants: tuple[str, ...] = (BASE,)
    in_programs: tuple[str, ...] = ()
    _matches: list[tuple[_CssRule, list[Any]]] = field(default_factory=list)
    _computed: dict[str, dict[Any, Styles]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        there: list[tuple[_CssRule, list[Any]]] = []
        for sheet in self.root.iter("style"):
            for rule in _read_sheet("".join(sheet.itertext())):
                if found := rule.find(self.root):
                    self._matches.append((rule, found))
                elif rule.program and rule.can_hide and (found := rule.find_there(self.root)):
                    there.append((replace(rule, media=rule.program), found))
        self.variants = tuple(dict.fromkeys((BASE, *(rule.media for rule, _ in self._matches))))
        self.in_programs = tuple(dict.fromkeys(rule.media for rule, _ in there))
        self._matches += there

    def of(self, element: Any, variant: str = BASE) -> Styles:
        """The styles of an element, with those that it inherits."""
        if variant not in self._computed:
            self._computed[variant] = self._compute(variant)
        return self._computed[variant].get(element, {})

    def _compute(self, variant: str) -> dict[Any, Styles]:
        applied: dict[Any, list[tuple[Any, str, str]]] = {}
        for order, (rule, elements) in enumerate(self._matches):
            if rule.media in (BASE, variant):
                for element in elements:
                    for name, value, important in rule.declarations:
                        applied.setdefault(element, []).append(((important, 0, rule.weight, order), name, value))
        computed: dict[Any, Styles] = {}
        for element in self.root.iter(etree.Element):
            own = applied.get(element, [])
            own += [((important, 1, (0, 0, 0), 0), name, value) for name, value, important in _inline(element.get("style", ""))]
            parent = computed.get(element.getparent(), {})
            computed[element] = _styles(element, sorted(own, key=lambda each: each[0]), parent)
        return computed


def _styles(element: Any, declarations: list[tuple[Any, str, str]], parent: Styles) -> Styles:
    styles = {name: value for name, value in parent.items() if name in _INHERITED}
    size = float(parent.get("font-size", _ROOT_PIXELS))
    if element.tag in _HEADINGS:
        styles["font-size"] = str(size * _HEADINGS[element.tag])
    if colour := element.get("bgcolor"):
        styles["background-color"] = colour.lower()
    if element.tag == "font" and (colour := element.get("color")):
        styles["color"] = colour.lower()
    for _, name, value in declarations:
        if name == "font-size" or name == "font":
            found_size = pixels(value if name == "font-size" else _size_of(value), size)
            styles["font-size"] = styles.get("font-size", str(size)) if found_size is None else str(found_size)
        elif name == "background":
            if found := next((token for token in tinycss2.parse_component_value_list(value) if parse_color(token)), None):
                styles["background-color"] = found.serialize()
        elif value != "inherit":
            styles[name] = value
    return styles


def _size_of(font: str) -> str:
    found = _IN_FONT.search(font)
    return found[1] if found else ""


def pixels(value: str, parent: float) -> float | None:
    """A length in pixels; None if it is none. `parent` is the size of the text around it. On a telephone where it depends on the
    width."""
    if value in _SIZES:
        return float(_SIZES[value])
    if function := _FUNCTION.match(value):
        return _computed_length(function[1].lower(), function[2], parent)
    found = _LENGTH.match(value)
    if not found:
        return None
    factors = {
        "vw": 3.75,
        "vh": 6.67,
        "px": 1.0,
        "pt": 4 / 3,
        "em": parent,
        "rem": _ROOT_PIXELS,
        "ex": parent / 2,
        "%": parent / 100,
    }
    return float(found[1]) * factors.get((found[2] or "px").lower(), 1.0)


def _computed_length(name: str, arguments: str, parent: float) -> float | None:
    found = [each for word in re.split(r"[\s,()+*/]+", arguments) if (each := pixels(word, parent)) is not None]
    if not found:
        return None
    if name == "clamp" and len(found) == 3:
        return max(found[0], min(found[1:]))
    if name == "calc":
        return sum(found)
    return max(found) if name == "max" else min(found)


def font_pixels(styles: Styles) -> float:
    """The size of the text, in pixels."""
    return float(styles.get("font-size", _ROOT_PIXELS))


def hides(styles: Styles) -> str:
    """The declaration with which an element hides itself and what it holds; "" for none."""
    for name, values in (("display", ("none",)), ("visibility", ("hidden", "collapse"))):
        if styles.get(name) in values:
            return f"{name}: {styles[name]}"
    for name in ("opacity", "max-height", "max-width", "height"):
        if name in styles and pixels(styles[name], 1.0) == 0 and (name == "opacity" or styles.get("overflow") == "hidden"):
            return f"{name}: {styles[name]}"
    if (shown := pixels(styles.get("opacity", "1"), 0.01)) is not None and shown < _OPACITY_MIN:
        return f"opacity: {styles['opacity']}"
    if font_pixels(styles) < 2:
        return f"font-size: {font_pixels(styles):g}px"
    for name in ("text-indent", "left", "margin-left", "top"):
        if (pixels(styles.get(name, ""), 1.0) or 0) < _FAR:
            return f"{name}: {styles[name]}"
    return ""


@lru_cache(maxsize=1_024)
def colour(value: str) -> Colour | None:
    """A colour as red, green, blue and opacity; None if it is none that is known."""
    try:
        found = parse_color(value)
        return None if found is None or found == "currentcolor" else (*found.to("srgb").coordinates, found.alpha)
    except Exception:  # a colour space that the library cannot convert
        return None


def on(front: Colour, back: Colour) -> Colour:
    """A colour that may be translucent, on an opaque one."""
    share = front[3]
    red, green, blue = (front[at] * share + back[at] * (1 - share) for at in range(3))
    return red, green, blue, 1.0


def hexadecimal(value: Colour) -> str:
    """A colour as "#003768"."""
    return "#" + "".join(f"{round(max(0.0, min(1.0, each)) * 255):02x}" for each in value[:3])


def condition(variant: str) -> str:
    """Where a variant applies, to append to a message; "" for BASE."""
    if variant == BASE:
        return ""
    is_media = not (variant.startswith("@") or _OF_PROGRAMS.search(variant))
    return f" in @media {variant}" if is_media else f" in {variant}"

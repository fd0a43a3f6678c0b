"""What the HTML of a mail may hold: an allow-list of elements, attributes, link schemes and CSS. Pure.

A list of what is forbidden is never complete: `onerror=`, `<svg/onload>`, `meta refresh`, `@import` and `background=` need no
`<script>`. So the HTML is parsed as its readers parse it, and what the list does not name is refused. libxml2 (2.14 and later)
splits HTML into tags and attributes as HTML 5 does, and keeps lines and elements that stand where HTML 5 would drop them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from lxml import etree

from channels.base import TextTemplate
from dispatcher.content.mail_css import read_css

# A gap is a place for a value. Its mark has a blank: outside quotation marks, the blank would end the attribute.
GAP_EDGES = "\ue0f2\ue0f3"  # of Unicode's private use area: they do not occur in texts
GAP = re.compile(f"{GAP_EDGES[0]}([0-9]+) {GAP_EDGES[1]}")
MAIL_HTML, LINK_SCHEME = "mail_html", "link_scheme"  # the names of the two checks


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ELEMENTS = _words(
    "a abbr address article b big blockquote body br caption center cite code col colgroup dd del dfn div dl dt em "
    "figcaption figure font footer h1 h2 h3 h4 h5 h6 head header hr html i img ins kbd li main mark meta nav ol p pre q s "
    "samp section small span strike strong style sub sup table tbody td tfoot th thead time title tr tt u ul var wbr"
)
# Outlook for Windows reads these, and only in conditional comments.
_OUTLOOK_ELEMENTS = _words(
    "noscript xml o:officedocumentsettings o:allowpng o:pixelsperinch v:background v:fill v:image v:oval v:rect v:roundrect "
    "v:shape v:shapetype v:stroke v:textbox w:anchorlock w:worddocument w:donotpromptforconvert w:view w:zoom"
)
_ATTRIBUTES = _words(
    "abbr align alt arcsize axis bgcolor border bordercolor cellpadding cellspacing class clear color colspan coordsize "
    "data-css-inline dir "
    "face fill fillcolor frame headers height hidden hspace id inset lang lowercase name noshade nowrap o:spid rel role "
    "rowspan rules scope size span spid start stroke strokecolor strokeweight summary tabindex target title type valign "
    "v:ext value v-text-anchor vspace width xml:lang xmlns xmlns:m xmlns:o xmlns:v xmlns:w"
)
_META = frozenset({"charset", "content", "http-equiv", "name"})
_META_HTTP = frozenset({"content-type", "x-ua-compatible"})
_ADDRESSES = {  # the attributes that hold an address, and the elements that may have them
    "href": frozenset({"a", "v:roundrect", "v:rect", "v:oval", "v:shape"}),
    "src": frozenset({"img", "v:fill", "v:image"}),
    "background": frozenset({"body", "table", "tbody", "td", "th", "tr"}),
}
_LOADED = frozenset({"src", "background", "url()"})  # what a mail client loads without a click
_ONCE = re.compile(r"<(html|head|body)(?=[\s/>])", re.IGNORECASE)
_NAMELESS = re.compile(f"<[/!?]?{GAP_EDGES[0]}")

_HTTPS = re.compile(r"https://[a-z0-9.-]*[a-z0-9](?::[0-9]{1,5})?(?:[/?#][^\s\\<>\"']*)?\Z", re.IGNORECASE)
_MAILTO = re.compile(
    r"mailto:[a-z0-9.!#$*+/=?^_{|}~-]+@[a-z0-9.-]+(?:\?subject=(?:[^\s&\\<>\"'%]|%(?!0[0ad])[0-9a-f]{2})*)?\Z", re.IGNORECASE
)
_TEL = re.compile(r"(?:tel|sms):[+0-9().-]+\Z", re.IGNORECASE)
_ANCHOR = re.compile(r"#[\w.-]*\Z")

_CONDITIONAL = re.compile(r"\[if [^\[\]<>]*\]>(?P<inner>.*)<!\[endif\]\Z", re.DOTALL | re.IGNORECASE)
_REVEALED = re.compile(r"\[if [^\[\]<>]*\](?:><!)?\Z|(?:<!)?\[endif\]\Z", re.IGNORECASE)  # around what other clients read


@dataclass(frozen=True, slots=True)
class HtmlFault:
    """What the HTML must not hold: the line (from 1; 0 unless asked for), the element or attribute, and its value."""

    line: int
    name: str
    value: str
    message: str


@dataclass(frozen=True, slots=True)
class HtmlLink:
    """An address in the HTML, without HTML's escapes. `attribute` is "url()" in CSS. `everywhere` is false where only Outlook
    reads it."""

    line: int
    element: str
    attribute: str
    address: str
    everywhere: bool

    @property
    def is_loaded(self) -> bool:
        """Whether a mail client loads it without a click."""
        return self.attribute in _LOADED

    def fault(self, message: str) -> HtmlFault:
        """A fault of this link."""
        return HtmlFault(self.line, f"{self.element} {self.attribute}", self.address, message)


@dataclass(slots=True)
class MailHtml:
    """All links of a mail's HTML, its texts that may name a host, and all faults but those of links."""

    links: list[HtmlLink] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    faults: list[HtmlFault] = field(default_factory=list)


def gap_mark(gap: int) -> str:
    """What stands at a place for a value while the HTML is parsed."""
    return f"{GAP_EDGES[0]}{gap} {GAP_EDGES[1]}"


def with_gaps(text: str) -> TextTemplate:
    """A text with marks, as a template."""
    pieces = GAP.split(text)
    return TextTemplate(tuple(pieces[::2]), tuple(map(int, pieces[1::2])))


def link_is_allowed(address: str, is_loaded: bool) -> bool:
    """Whether an address has a scheme that a mail may use, and the plain form of it."""
    if _HTTPS.match(address):
        return address.isprintable()
    return not is_loaded and any(form.match(address) for form in (_MAILTO, _TEL, _ANCHOR)) and address.isprintable()


def link_fault(link: HtmlLink) -> HtmlFault:
    """The fault of a link that is not allowed."""
    what = "an https address" if link.is_loaded else "an https address, mailto (with a subject at most), tel, sms or #"
    return link.fault(f"must be {what}")


def read_mail_html(html: str, with_lines: bool = False) -> MailHtml:
    """Parse the HTML of a mail, or a piece of one. Gaps may stand in text and in quoted attribute values.

    Without `with_lines` most lines are 0: to find them takes longer than the rest.
    """
    result = MailHtml()
    _read(html, 1, result, False, with_lines)
    for tag in _NAMELESS.finditer(html):
        result.faults.append(HtmlFault(html.count("\n", 0, tag.start()) + 1, "<", "", "a variable can't be the name of an element"))
    seen: set[str] = set()
    for tag in _ONCE.finditer(html):  # a parser adds the attributes of a second one to the first, or drops them
        name = tag[1].lower()
        if name in seen:
            result.faults.append(HtmlFault(html.count("\n", 0, tag.start()) + 1, f"<{name}", "", "may occur once"))
        seen.add(name)
    return result


def _read(html: str, first_line: int, result: MailHtml, in_comment: bool, with_lines: bool) -> None:
    if not html.strip():
        return
    if "\0" in html:
        result.faults.append(HtmlFault(first_line, "html", "", "holds a NUL character"))
        return
    parser = etree.HTMLParser(encoding="utf-8", no_network=True)
    try:
        root = etree.fromstring(f"{html}<br>".encode(), parser)  # an element, without which there would be no tree
    except (etree.LxmlError, UnicodeEncodeError):
        root = None
    # After a fatal error, such as too many elements within each other, the tree lacks the rest.
    if root is None or any(error.level_name == "FATAL" for error in parser.error_log):
        result.faults.append(HtmlFault(first_line, "html", "", "can't be parsed"))
        return
    reader = _HtmlReader(html, first_line, result, in_comment, with_lines)
    for node in root.getroottree().iter():
        reader.node(node)
    for outside in (*root.itersiblings(preceding=True), *root.itersiblings()):
        reader.node(outside)


class _HtmlReader:
    """Reads the nodes of one parsed text."""

    def __init__(self, html: str, first_line: int, result: MailHtml, in_comment: bool, with_lines: bool) -> None:
        self._lines = html.split("\n") if with_lines else []
        self._first, self._result, self._in_comment, self._with_lines = first_line, result, in_comment, with_lines

    def node(self, node: Any) -> None:
        if isinstance(node.tag, str):
            self._element(node)
        else:
            self._comment(node)
        self._text(node.tail)

    def _text(self, text: str | None) -> None:
        if text and not text.isspace():
            self._result.texts.append(text)

    def _fault(self, line: int, name: str, value: str, message: str) -> None:
        self._result.faults.append(HtmlFault(line, name, value, message))

    def _line(self, node: Any, attribute: str = "") -> int:
        """The line of an element, or of its attribute. The parser gives the line on which the tag ends."""
        if not self._with_lines:
            return 0
        last = max(1, min(node.sourceline or 1, len(self._lines)))
        first = next((number for number in range(last, 0, -1) if f"<{node.tag}" in self._lines[number - 1].lower()), last)
        inside = (number for number in range(first, last + 1) if attribute in self._lines[number - 1].lower())
        return self._first - 1 + next(inside, first)

    def _element(self, node: Any) -> None:
        tag = node.tag.lower()
        if tag not in _ELEMENTS and not (self._in_comment and tag in _OUTLOOK_ELEMENTS):
            self._fault(self._line(node), f"<{tag}", "", "has no place in a mail")
        for name, value in node.attrib.items():
            self._attribute(node, tag, name.lower(), value)
        if tag != "style":
            self._text(node.text)
        else:
            self._css("".join(node.itertext()), tag, tag, self._line(node))

    def _attribute(self, node: Any, tag: str, name: str, value: str) -> None:
        line, shown = self._line(node, name), f"{tag} {name}"
        if GAP_EDGES[0] in name or GAP_EDGES[1] in name or GAP_EDGES[0] in GAP.sub("", value):
            self._fault(line, "attribute", "", "an attribute's value must be in quotes, else a variable could add attributes")
        elif name == "style":
            self._css(value, shown, tag, line)
        elif tag in _ADDRESSES.get(name, ()):
            self._result.links.append(HtmlLink(line, tag, name, value.strip(" "), not self._in_comment))
        elif tag == "meta" and name in _META:
            if name == "http-equiv" and value.strip().lower() not in _META_HTTP:
                self._fault(line, shown, value, f"must be one of {', '.join(sorted(_META_HTTP))}")
        elif name not in _ATTRIBUTES and not (name.startswith("aria-") and name[5:].isalpha()):
            self._fault(line, shown, value, "has no place in a mail")

    def _css(self, css: str, shown: str, tag: str, first: int) -> None:
        faults, addresses = read_css(css, GAP_EDGES)
        for line, value, message in faults:
            self._fault(first + line, shown, value, message)
        for line, address in addresses:
            self._result.links.append(HtmlLink(first + line, tag, "url()", address, not self._in_comment))

    def _comment(self, node: Any) -> None:
        text = node.text or ""
        first = self._first - 1 + max(1, (node.sourceline or 1) - text.count("\n"))
        conditional = _CONDITIONAL.match(text)
        if conditional and not self._in_comment:
            before = text[: conditional.start("inner")].count("\n")
            _read(conditional["inner"], first + before, self._result, True, self._with_lines)
        elif not _REVEALED.match(text) and (
            text.startswith("?") or any(mark in text for mark in ("<", ">", "[CDATA", GAP_EDGES[0]))
        ):
            self._fault(first, "comment", "", "a comment may hold no markup and no variable, but for Outlook's [if mso]")

"""A rendered mail as the linter reads it: elements with their styles, and the source line of each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lxml import etree

from dispatcher.content.lint.css import BASE, PageStyles, hides
from dispatcher.content.lint.marked import MarkedText, Place

_TAG = re.compile(r"<[A-Za-z][\w:-]*")
_POSITION = "data-position"  # an attribute of the linter's own: where the element begins in the mail
_OUTLOOK = re.compile(r"\[if [^\]]*\]>(.*)<!\[endif\]\Z", re.DOTALL | re.IGNORECASE)
_BLANKS = re.compile(r"[\s\u00a0\u034f\u2007\u200b\ufeff]+")
_NOT_SHOWN = frozenset({"head", "style", "title", "meta", "script"})


@dataclass(slots=True)
class MailPage:
    """One mail. `name` is the template's, `file` the mail's own file."""

    marked: MarkedText
    name: str
    file: str
    root: Any = field(init=False)
    styles: PageStyles = field(init=False)

    def __post_init__(self) -> None:
        self.root = _parse(self.marked.text)
        self.styles = PageStyles(self.root)

    def place(self, element: Any) -> Place:
        """The line that holds the element's tag."""
        origin = self._origin(element)
        return origin[-1] if origin else (self.file, 1)

    def own_place(self, element: Any) -> Place:
        """The line of the template's own files that made the element, such as the call of a macro; else that of the tag."""
        own = [place for place in self._origin(element) if place[0].startswith(f"{self.name}/")]
        return own[-1] if own else self.place(element)

    def text_place(self, element: Any) -> Place:
        """The line of the text of an element, if a source writes it and no variable; else that of the tag."""
        for text, node in ((element.text, element), *((child.tail, child) for child in element)):
            if words := (text or "").strip():
                position = self.marked.text.find(words.split("\n")[0], self._start(node, is_tail=node is not element))
                origin = self.marked.origin(position) if position >= 0 else ()
                return origin[-1] if origin else self.place(element)
        return self.place(element)

    def _start(self, node: Any, is_tail: bool) -> int:
        """Where the text of an element, or the text after it, may begin in the mail."""
        position = self.marked.text.find(">", int(node.get(_POSITION, 0)))
        for _ in node.iter(node.tag) if is_tail else ():  # each has an end of its own
            position = max(position, self.marked.text.find(f"</{node.tag}", position))
        return position

    def _origin(self, element: Any) -> tuple[Place, ...]:
        while element is not None and element.get(_POSITION) is None:
            element = element.getparent()
        return self.marked.origin(int(element.get(_POSITION))) if element is not None else ()

    def elements(self) -> Iterator[Any]:
        """The elements of the body, in the order of the mail."""
        body = self.root.find("body")
        yield from (self.root if body is None else body).iter(etree.Element)

    def hidden_by(self, element: Any, variant: str = BASE) -> str:
        """The declaration that hides an element, its own or that of an element around it; "" if it is shown."""
        while element is not None:
            if element.get("hidden") is not None:
                return "hidden"
            if found := hides(self.styles.of(element, variant)):
                return found
            element = element.getparent()
        return ""

    def texts(self, variant: str = BASE) -> Iterator[tuple[Any, str]]:
        """The elements that hold text of their own which is shown, each with that text."""
        shown: dict[Any, bool] = {}
        for element in self.elements():
            parent = element.getparent()
            visible = shown.get(parent, True) and element.tag not in _NOT_SHOWN and element.get("hidden") is None
            shown[element] = visible = visible and not hides(self.styles.of(element, variant))
            if visible and (text := own_text(element)):
                yield element, text

    def visible_text(self, variant: str = BASE) -> str:
        """All text that is shown, in one line."""
        pieces: list[str] = []
        body = self.root.find("body")
        self._collect(self.root if body is None else body, variant, pieces)
        return one_line("".join(pieces))

    def _collect(self, element: Any, variant: str, pieces: list[str]) -> None:
        hidden = element.tag in _NOT_SHOWN or element.get("hidden") is not None or hides(self.styles.of(element, variant))
        if not hidden:
            pieces.append(element.text or "")
            for child in element:
                if isinstance(child.tag, str):
                    pieces.append(" " if child.tag in _BREAKS else "")
                    self._collect(child, variant, pieces)
                pieces.append(child.tail or "")

    def first_words(self) -> str:
        """All text of the body, also what is hidden: a mailbox shows its beginning after the subject."""
        body = self.root.find("body")
        return one_line(str((self.root if body is None else body).xpath("string()")))

    def outlook_links(self) -> Iterator[str]:
        """The addresses of links that only Outlook reads: those in conditional comments."""
        for comment in self.root.getroottree().iter(etree.Comment):
            if found := _OUTLOOK.match(comment.text or ""):
                yield from (str(each) for each in _parse(found[1]).xpath("//@href"))


_BREAKS = frozenset(
    {"br", "p", "div", "td", "th", "tr", "table", "caption", "li", "ul", "ol", "h1", "h2", "h3", "h4", "h5", "h6", "hr"}
)


def own_text(element: Any) -> str:
    """The text of an element without that of the elements in it."""
    return one_line(" ".join((element.text or "", *(child.tail or "" for child in element))))


def full_text(element: Any) -> str:
    """The text of an element and of all in it; pictures count with their alt text."""
    pieces = [element.text or ""]
    for child in element:
        if isinstance(child.tag, str):
            pieces.append(child.get("alt", "") if child.tag == "img" else full_text(child))
        pieces.append(child.tail or "")
    return one_line(" ".join(pieces))


def one_line(text: str) -> str:
    """A text with single blanks."""
    return _BLANKS.sub(" ", text).strip()


def _parse(html: str) -> Any:
    positioned = _TAG.sub(lambda tag: f'{tag[0]} {_POSITION}="{tag.start()}"', html)
    return etree.fromstring(f"{positioned}<br>".encode(), etree.HTMLParser(encoding="utf-8", no_network=True))

"""Whether each tag of a mail has its partner. HTML readers repair what is missing: after a forgotten `</strong>` all is bold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html.parser import HTMLParser

from dispatcher.content.lint.findings import LintFinding
from dispatcher.content.lint.samples import LintSample

# HTML Living Standard, 13.1.2 "Elements": void elements, and those whose end tag may be left out.
_VOID = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"},
)
_OPTIONAL_END = frozenset(
    {"html", "head", "body", "p", "li", "dt", "dd", "tr", "td", "th", "thead", "tbody", "tfoot", "colgroup", "caption", "option"}
)


def tag_pairs(sample: LintSample) -> Iterator[LintFinding]:
    """The findings in the HTML of one mail."""
    page = sample.page
    if page is None:
        return
    reader = _TagReader(page.marked.text)
    reader.feed(page.marked.text)
    reader.close()
    for tag, position, message in (*reader.faults, *reader.left_open(0)):
        origin = page.marked.origin(position)
        yield sample.finding("T607", origin[-1] if origin else (page.file, 1), f"<{tag}>", message, tag)


class _TagReader(HTMLParser):
    """Collects tags without partners, each with its position in the text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.faults: list[tuple[str, int, str]] = []
        self._open: list[tuple[str, int]] = []
        self._lines = [0]
        for line in text.split("\n"):
            self._lines.append(self._lines[-1] + len(line) + 1)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:  # noqa: ARG002
        """A tag that begins an element."""
        if tag not in _VOID:
            self._open.append((tag, self._position()))

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        """`<br/>`: in HTML the slash means nothing."""
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        """A tag that ends an element, and with it those in it whose end tag may be left out."""
        place = next((at for at in range(len(self._open) - 1, -1, -1) if self._open[at][0] == tag), None)
        if place is None:
            self.faults.append((tag, self._position(), f"</{tag}> ends nothing: no <{tag}> is open here"))
            return
        self.faults += self.left_open(place + 1)
        del self._open[place:]

    def left_open(self, place: int) -> list[tuple[str, int, str]]:
        """The elements from this place of the stack on that should have been closed."""
        return [
            (tag, position, f"<{tag}> is not closed: write </{tag}> where it ends")
            for tag, position in self._open[place:]
            if tag not in _OPTIONAL_END
        ]

    def _position(self) -> int:
        line, column = self.getpos()
        return self._lines[line - 1] + column

"""The text part of a mail, from its HTML. Pure, and done once, at loading.

The result is a Jinja source like a written `email.txt`: expressions and statements stay, so a rendering is what it always is. A
file that the HTML extends or imports gets a text form too. Of a layout the written one is used, where there is one (`layout.txt`
beside `layout.html`).

Blocks of HTML end with an empty line, rows and items with a line break; a link is written as its words and its address. What no
reader sees (the head, comments, hidden elements) is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import unescape

from dispatcher.content.environment import TemplateEnvironment
from dispatcher.content.source_files import SourceFile

_EDGES = "\ue0fa\ue0fb"  # of Unicode's private use area: they do not occur in texts
_PLACEHOLDER = re.compile(f"{_EDGES[0]}([0-9]+){_EDGES[1]}")
_PIECE = re.compile(
    r"<!--.*?-->|<(?P<raw>style|title|script)\b.*?</(?P=raw)\s*>|<![^>]*>|</(?P<end>[a-zA-Z][\w:-]*)[^>]*>"
    r"|<(?P<start>[a-zA-Z][\w:-]*)(?P<attributes>(?:[^>\"']|\"[^\"]*\"|'[^']*')*)>"
    rf"|{_EDGES[0]}(?P<chunk>[0-9]+){_EDGES[1]}",
    re.DOTALL | re.IGNORECASE,
)
_ATTRIBUTE = r"\b{}\s*=\s*(?:\"([^\"]*)\"|'([^']*)')"
_HREF, _ALT, _SCOPE = (re.compile(rf"(?<![\w-]){_ATTRIBUTE.format(name)}", re.IGNORECASE) for name in ("href", "alt", "scope"))
_HIDDEN = re.compile(r"display\s*:\s*none|aria-hidden\s*=\s*[\"']true|\shidden(?=[\s>=/]|\Z)", re.IGNORECASE)
_WORD = re.compile(r"\{%[-+]?\s*(\w+)(?:\s+(\w+))?")
_REFERENCE = re.compile(r"((?:extends|from|import|include)\s+)([\"'])([^\"']+\.html)\2")
_CALLED = re.compile(r"\{(?:\{|%)[-+]?\s*(?:call(?:\([^)]*\))?\s+)?(\w+)\(")
_PARAGRAPHS = frozenset(("address", "article", "blockquote", "body", "caption", "center", "dl", "figure", "footer", "header", "hr"))
_PARAGRAPHS |= frozenset(("h1", "h2", "h3", "h4", "h5", "h6", "main", "nav", "ol", "p", "section", "table", "ul"))
_LINES = frozenset(["br", "dd", "div", "dt", "figcaption", "li", "tr"])
_CELLS = frozenset(("td", "th"))
_ROWS = frozenset(("table", "tbody", "thead", "tfoot", "ul", "ol"))
_EXTENDS = re.compile(r"\{%[-+]?\s*extends\b")
_VOID = frozenset(["br", "hr", "img", "input", "link", "meta", "wbr"])
_UNKNOWN = -1
_AFTER_STATEMENT = re.compile(r"%\}(?=\n)")  # Jinja drops one line break there
_WHOLE_LINE = frozenset(("block", "call", "macro"))  # statements whose bodies begin a text of their own


class GenerationError(Exception):
    """A text form that Jinja cannot read, such as one whose statements stood partly in what is left out."""


def generated_part(
    env: TemplateEnvironment, html: SourceFile, shared: Mapping[str, SourceFile]
) -> tuple[SourceFile, dict[str, SourceFile]]:
    """The text part of a mail, and the text forms of the shared sources that it refers to, by name. Raises `GenerationError`."""
    sources = {**{name: text.source for name, text in shared.items()}, html.file: html.source}
    try:
        found = generated_texts(env, html.file, sources)
        for source in found.values():
            env.parse(source)
    except Exception as error:  # a syntax error, of the HTML or of its text form
        raise GenerationError from error
    own = SourceFile(found.pop(html.file), html.file, is_generated=True)
    return own, {name: SourceFile(text, name.removesuffix(".txt"), is_generated=True) for name, text in found.items()}


def text_name(html_name: str) -> str:
    """The name of the text form of a shared HTML source."""
    return f"{html_name}.txt"


def generated_texts(env: TemplateEnvironment, name: str, sources: Mapping[str, str]) -> dict[str, str]:
    """The text form of the HTML source `name`, and of the shared ones that it refers to, by their names; its own is at `name`.

    Raises what Jinja raises for a source that cannot be read.
    """
    found: dict[str, str] = {}
    macros: dict[str, int] = {}

    def visit(each: str) -> None:
        for reference in _REFERENCE.finditer(sources[each]):
            target = reference[3]
            if target in sources and not _written(target, sources) and text_name(target) not in found:
                found[text_name(target)] = ""  # no circle: a source that refers to itself is an error of its own
                visit(target)
        source = _REFERENCE.sub(lambda use: f"{use[1]}{use[2]}{_target(use[3], sources)}{use[2]}", sources[each])
        writer = _TextWriter(env, source, macros)
        found[each if each == name else text_name(each)] = writer.written()
        macros.update(writer.defined)

    visit(name)
    return found


def _written(target: str, sources: Mapping[str, str]) -> bool:
    return f"{target.removesuffix('.html')}.txt" in sources


def _target(target: str, sources: Mapping[str, str]) -> str:
    return f"{target.removesuffix('.html')}.txt" if _written(target, sources) else text_name(target)


@dataclass(slots=True)
class _TextWriter:
    """Writes the text form of one source. `macros` are those of other sources, each with the line breaks at its end; `defined` are
    the source's own."""

    env: TemplateEnvironment
    source: str
    macros: Mapping[str, int]
    defined: dict[str, int] = field(default_factory=dict)
    _out: list[str] = field(default_factory=list)
    _is_open: bool = False  # the line has words
    _ended: int = _UNKNOWN  # line breaks at the end of what is written
    _blank: bool = False  # a blank is due before the next word
    _elements: list[tuple[str, str]] = field(default_factory=list)  # those that are open, each with its address
    _hidden: int = 0  # how many of them no reader sees
    _bodies: list[tuple[str, str, int]] = field(default_factory=list)  # block, call or macro: word, name, where it begins

    def written(self) -> str:
        """The whole text."""
        flat, chunks = self._flat()
        position = 0
        for piece in _PIECE.finditer(flat):
            self._words(flat[position : piece.start()])
            position = piece.end()
            if piece["chunk"]:
                self._chunk(chunks[int(piece["chunk"])])
            elif piece["end"]:
                self._end(piece["end"].lower())
            elif piece["start"]:
                self._start(piece["start"].lower(), piece["attributes"])
        self._words(flat[position:])
        text = _PLACEHOLDER.sub(lambda found: chunks[int(found[1])], "".join(self._out))  # those in addresses
        return _AFTER_STATEMENT.sub("%}\n", text)

    def _flat(self) -> tuple[str, list[str]]:
        pieces: list[str] = []
        chunks: list[str] = []
        for kind, text in _chunks(self.env, self.source):
            if kind == "data":
                pieces.append(text)
            elif not text.startswith("{#"):
                pieces.append(f"{_EDGES[0]}{len(chunks)}{_EDGES[1]}")
                chunks.append(text)
        return "".join(pieces), chunks

    def _put(self, text: str) -> None:
        self._out.append(text)

    def _words(self, data: str) -> None:
        if self._hidden or not data:
            return
        text = unescape(data).replace("\u00a0", " ")
        words = " ".join(text.split())
        if not words:
            self._blank = self._blank or self._is_open
            return
        before = " " if self._is_open and (self._blank or text[0].isspace()) else ""
        self._put(before + _literal(words))
        self._is_open, self._ended, self._blank = True, 0, text[-1].isspace()

    def _break(self, count: int) -> None:
        if self._hidden:
            return
        missing = count if self._is_open else count - self._ended if 0 < self._ended < count else 0
        if missing:
            self._put("\n" * missing)
            self._ended = count
        self._is_open = self._blank = False

    def _end_cell(self, is_label: bool) -> None:
        """The next cell continues the line, also where the last one held a single line of its own."""
        if self._hidden:
            return
        if self._out and self._out[-1] == "\n" and self._ended == 1:
            self._out.pop()
            self._is_open, self._ended = True, 0
        if is_label and self._is_open:
            self._put(":")
        self._blank = self._is_open

    def _breaks_of(self, name: str) -> int:
        """The line breaks at the end of a macro's text."""
        return self.defined.get(name, self.macros.get(name, 0))

    def _start(self, tag: str, attributes: str) -> None:
        hides = bool(_HIDDEN.search(attributes)) or tag == "head"
        if tag == "br":
            self._put("" if self._hidden else "\n")
            self._is_open, self._ended, self._blank = False, 1, False
        elif tag in _PARAGRAPHS:
            self._break(2)
        elif tag in _LINES:
            self._break(1)
        elif tag in _CELLS:
            self._blank = self._is_open
        elif tag == "img" and (alt := _value(_ALT, attributes).strip()):
            self._words(alt)
        if tag == "li":
            self._words("- ")
            self._blank = True
        if tag not in _VOID and not attributes.endswith("/"):
            is_label = tag == "th" and "row" in _value(_SCOPE, attributes)
            self._elements.append((tag, _value(_HREF, attributes) if tag == "a" else ":" if is_label else ""))
            self._hidden += hides or self._hidden > 0

    def _end(self, tag: str) -> None:
        if all(tag != each for each, _ in self._elements):
            return
        while self._elements:
            closed, address = self._elements.pop()
            if closed == "a" and address and not address.startswith("#") and not self._hidden:
                self._put(f": {unescape(address)}")
                self._blank = True
            self._hidden -= self._hidden > 0
            if closed in _PARAGRAPHS:
                self._break(2)
            elif closed in _LINES:
                self._break(1)
            elif closed in _CELLS:
                self._end_cell(is_label=address == ":")
            if closed == tag:
                return

    def _chunk(self, text: str) -> None:
        """An expression or a statement, as it is written in the source."""
        word = _WORD.match(text)
        if self._hidden:
            return
        if word and word[1] in _WHOLE_LINE:
            self._open_body(text, word[1], word[2] or "")
        elif word and word[1].removeprefix("end") in _WHOLE_LINE:
            self._close_body(text)
        elif word:
            if self._blank and word[1] in ("if", "for") and self._is_open:
                self._put(" ")
                self._blank = False
            self._put(_one_line_break(text))
        else:
            self._expression(text)

    def _expression(self, text: str) -> None:
        called = _CALLED.match(text)
        name = called[1] if called else ""
        in_rows = bool(self._elements) and self._elements[-1][0] in _ROWS
        breaks = 1 if name == "caller" and in_rows else self._breaks_of(name)
        if breaks:
            self._break(1)
            self._put(text)
            self._ended = breaks
            return
        self._put(f"{' ' if self._is_open and self._blank else ''}{text}")
        self._is_open, self._ended, self._blank = True, 0, False

    def _open_body(self, text: str, word: str, name: str) -> None:
        called = _CALLED.match(text)
        if word == "call":
            name = called[1] if called else ""
            self._break(1 if self._breaks_of(name) else 0)
        elif word == "block" and self._is_open and self._blank:
            self._put(" ")
        self._put(_one_line_break(text))
        self._bodies.append((word, name, len(self._out)))
        self._is_open, self._ended, self._blank = False, _UNKNOWN, False

    def _close_body(self, text: str) -> None:
        word, name, begin = self._bodies.pop() if self._bodies else ("", "", 0)
        body = "".join(self._out[begin:])
        if word == "call" and self._ended > 0:  # the macro ends the line
            del self._out[begin:]
            self._put(body.rstrip("\n"))
        elif word == "block" and _EXTENDS.search(self.source):
            self._break(1 if "\n" in body.strip("\n") else 2)
        elif word == "macro":
            self.defined[name] = max(self._ended, 0)
        self._put(_one_line_break(text))
        self._ended = self._breaks_of(name) if word == "call" else _UNKNOWN
        # An empty block of a layout: what fills it may be words, so the line is ended after it.
        self._is_open = (word == "call" and self._ended == 0) or (word == "block" and not body.strip())
        self._blank = False


def _value(attribute: re.Pattern[str], attributes: str) -> str:
    found = attribute.search(attributes)
    return (found[1] or found[2] or "") if found else ""


def _literal(words: str) -> str:
    """Words that HTML wrote with escapes may look like Jinja: `&#123;{`."""
    return re.sub(r"\{(?=[{%#])", "{{ '{' }}", words)


def _one_line_break(text: str) -> str:
    """A statement without the line break that Jinja drops after it: the text has no lines of its own."""
    return text.rstrip("\n")


def _chunks(env: TemplateEnvironment, source: str) -> Iterator[tuple[str, str]]:
    chunk = ""
    for _, kind, token in env.lex(source):
        if kind == "data" and not chunk:
            yield kind, token
            continue
        chunk += token
        if kind.endswith("_end"):
            yield kind, chunk
            chunk = ""

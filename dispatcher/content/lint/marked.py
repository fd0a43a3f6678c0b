"""Renderings that remember the source lines of each of their characters.

A finding in a rendered mail names the line of the source, not of the mail. So the sources are rendered with marks: characters of
Unicode's private use area before every line of text and around every expression. The marks are removed from the result, and what
they said is kept by position.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias

from dispatcher.content import toml
from dispatcher.content.catalog import MAIL_BLOCKS, as_html
from dispatcher.content.environment import TemplateEnvironment, environment
from dispatcher.content.generated_text import GenerationError, generated_part
from dispatcher.content.inline_styles import inlined_sources
from dispatcher.content.source_files import FILES, SourceFile, read_source_files
from dispatcher.content.template import Context, Template
from dispatcher.domain.recipient import LANGUAGES, Language

Place: TypeAlias = tuple[str, int]  # a file and a line
_LINE, _OPEN, _CLOSE, _END = "\ue0f4\ue0f5\ue0f6\ue0f7"
_MARK = re.compile(f"(?:({_LINE}|{_OPEN})([0-9]+){_END})|{_CLOSE}")
_WHATSAPP = "whatsapp."
_SHARED = "_shared/"


@dataclass(frozen=True, slots=True)
class MarkedText:
    """A rendered text. `starts` are positions in it, `origins` the places from which the text after each comes: the outermost call
    first, the line that holds the text last."""

    text: str
    starts: tuple[int, ...]
    origins: tuple[tuple[Place, ...], ...]

    def origin(self, position: int) -> tuple[Place, ...]:
        """The places from which the character at this position comes; empty if unknown."""
        index = bisect_right(self.starts, position) - 1
        return self.origins[index] if index >= 0 else ()


@dataclass(slots=True)
class MarkedSources:
    """The mail sources of one template, with marks."""

    template: Template
    parts: dict[Language, Mapping[str, SourceFile]] = field(default_factory=dict)
    _places: list[Place] = field(default_factory=list)
    _env: TemplateEnvironment = field(init=False)

    def __post_init__(self) -> None:
        plain, sources = environment({}), self._read()
        for name, source in sources.items():
            sources[name] = self._marked(plain, name, source)
        for language, parts in self.parts.items():
            if "email.html" in parts:
                sources[f"{self.template.name}/{language}/email.html"] += self._mail_blocks(plain, parts)
        self._env = environment(sources)

    def _read(self) -> dict[str, str]:
        """The mail sources as they are rendered, by name, without marks."""
        channels, modes = self.template.channels, sorted(self.template.info.modes)
        shared = {
            name: SourceFile(source, name)
            for name, source in self.template.source.items()
            if name.startswith(_SHARED) and not name.endswith(".toml")
        }
        own: dict[str, str] = {}
        for language in LANGUAGES:
            folder = f"{self.template.name}/{language}"
            parts = read_source_files(folder, self.template.source, channels, modes).parts
            if "email.html" in parts and "email.text" not in parts:
                with suppress(GenerationError):  # which loading reports
                    parts["email.text"], generated = generated_part(environment({}), parts["email.html"], shared)
                    shared |= generated
            self.parts[language] = parts
            own |= {f"{folder}/{FILES[part]}": parts[part].source for part in ("email.html", "email.text") if part in parts}
        return inlined_sources({**{name: text.source for name, text in shared.items()}, **own})

    def render(self, language: Language, part: str, context: Context) -> MarkedText:
        """`email.html` or `email.txt` in a language. Raises whatever Jinja raises."""
        return self._unmarked(self._env.get_template(f"{self.template.name}/{language}/{part}").render(context))

    def place(self, language: Language, part: str) -> Place:
        """Where a part begins; the top of its file if it is missing."""
        source = self.parts[language].get(part)
        if source is None and part.startswith(_WHATSAPP):
            return self._toml_line(language, *part.split("."))
        name = f"{self.template.name}/{language}/{FILES.get(part, 'texts.toml')}"
        return (source.file, source.line) if source else (name, 1)

    def is_generated(self, language: Language, part: str) -> bool:
        """Whether a part is made from another."""
        source = self.parts[language].get(part)
        return source is not None and source.is_generated

    def line_of(self, language: Language, part: str, text: str) -> Place:
        """The first line of a part's source that holds a text; where the part begins if there is none."""
        source = self.parts[language].get(part)
        for number, line in enumerate(source.source.split("\n") if source else (), 1):
            if source and text in line:
                return source.place(number)
        return (
            self._whatsapp_line(language, part, text)
            if source is None and part.startswith(_WHATSAPP)
            else self.place(language, part)
        )

    def _whatsapp_line(self, language: Language, part: str, text: str) -> Place:
        """The line of the table of a WhatsApp text that holds a text: its `approved`, a value or a button."""
        file, approved = self.place(language, part)
        lines = self.template.source.get(file, "").split("\n")
        first = last = min(approved, len(lines))
        while first > 1 and not lines[first - 1].startswith("["):
            first -= 1
        while last < len(lines) and not lines[last].startswith("["):
            last += 1
        return file, next((number for number in range(first, last + 1) if text and text in lines[number - 1]), approved)

    def _toml_line(self, language: Language, *path: str) -> Place:
        file = f"{self.template.name}/{language}/texts.toml"
        document = toml.read(file, self.template.source.get(file, ""))
        return file, document.line(*path) if isinstance(document, toml.Document) else 1

    def declared_at(self, *path: str) -> Place:
        """Where a key stands in the declaration."""
        file = f"{self.template.name}/template.toml"
        document = toml.read(file, self.template.source.get(file, ""))
        return file, document.line(*path) if isinstance(document, toml.Document) else 1

    def buttons_at(self, language: Language, mode: str) -> Place:
        """Where the buttons of a WhatsApp text stand, or its table where it has none."""
        return self._toml_line(language, "whatsapp", mode, "buttons")

    def origin(self, name: str, line: int) -> Place:
        """The file and line of a line of a compiled source."""
        folder, _, part = name.partition("#")
        if not part:
            return name, line
        file, first = self.place(folder.split("/")[1], part)
        return file, first + line - 1

    def _mail_blocks(self, env: TemplateEnvironment, parts: Mapping[str, SourceFile]) -> str:
        """Subject and preheader in the blocks that the mail layout has for them."""
        if "{% extends" not in parts["email.html"].source:
            return ""
        blocks = [(block, parts[part]) for block, part in MAIL_BLOCKS if part in parts]
        return "\n" + "".join(
            f"{{% block {block} %}}{self._mark(_LINE, part.file, part.line)}{as_html(env, part.source)}{{% endblock %}}"
            for block, part in blocks
        )

    def _mark(self, kind: str, file: str, line: int) -> str:
        self._places.append((file, line))
        return f"{kind}{len(self._places) - 1}{_END}"

    def _marked(self, env: TemplateEnvironment, file: str, source: str) -> str:
        """The source with marks. A source that holds such characters, cannot be read, or is made from another stays as it is."""
        if any(mark in source for mark in (_LINE, _OPEN, _CLOSE, _END)) or file not in self.template.source:
            return source
        try:
            return "".join(self._pieces(env, file, source))
        except Exception:  # a syntax error, which loading reports
            return source

    def _pieces(self, env: TemplateEnvironment, file: str, source: str) -> Iterator[str]:
        statement: list[str] = []  # the tokens of the statement that is open
        inside = unmarked = 0  # a statement; a text that is a value in a statement, such as `set` with a body
        for line, kind, token in env.lex(source):
            if kind == "block_begin":
                statement, inside = [], 1
            if inside:
                statement.append(token)
                if kind != "block_end":
                    continue
                inside = 0
                words = [each for each in statement[1:-1] if each.strip()]
                unmarked += _nesting(words, file)
                opening = self._mark(_OPEN, file, line) if words[:1] == ["call"] and not unmarked else ""
                yield opening + "".join(statement) + (_CLOSE if words[:1] == ["endcall"] and not unmarked else "")
            elif unmarked:
                yield token
            elif kind == "data":
                pieces = token.split("\n")
                yield "\n".join(f"{self._mark(_LINE, file, line + number)}{piece}" for number, piece in enumerate(pieces))
            elif kind == "variable_begin":
                yield self._mark(_OPEN, file, line) + token
            else:
                yield token + (_CLOSE if kind == "variable_end" else "")

    def _unmarked(self, rendered: str) -> MarkedText:
        pieces: list[str] = []
        starts: list[int] = [0]
        origins: list[tuple[Place, ...]] = [()]
        frames: list[Place | None] = [None]
        last = length = 0
        for mark in _MARK.finditer(rendered):
            piece = rendered[last : mark.start()]
            pieces.append(piece)
            length, last = length + len(piece), mark.end()
            if mark[1] is None:
                frames = frames[:-1] if len(frames) > 1 else frames
            else:
                frames[-1] = self._places[int(mark[2])]
                frames += [None] if mark[1] == _OPEN else []
            starts.append(length)
            origins.append(tuple(place for place in frames if place is not None))
        pieces.append(rendered[last:])
        return MarkedText("".join(pieces), tuple(starts), tuple(origins))


def _nesting(words: list[str], file: str) -> int:
    """1 where a statement opens a text that is a value, -1 where it closes one, else 0. A mark in a value would change what
    filters and comparisons see."""
    first = words[0] if words else ""
    if (first == "set" and "=" not in words) or first == "filter" or (first == "macro" and not file.endswith(".html")):
        return 1
    closes = ("endset", "endfilter") if file.endswith(".html") else ("endset", "endfilter", "endmacro")
    return -1 if first in closes else 0

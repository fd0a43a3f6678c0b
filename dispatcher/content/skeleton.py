"""The skeleton of a new template: a copy of another one under a new name, with a mark at each text that is to be written. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dispatcher.content import toml
from dispatcher.content.draft_marks import JINJA_MARK, MARK
from dispatcher.content.environment import environment

_READ = re.compile(r"""\s(?:alt|title|aria-label)\s*=\s*["']([^"']*)""")  # attributes that are read
_TAG = re.compile(r"<[^>]*>|&\w+;")
_LETTER = re.compile(r"[^\W\d_]")
_CONTENT_SID = re.compile(r"^content_sid\s*=.*\n", re.MULTILINE)  # of another text
_WITH_TEXT = ("call", "set")  # statements whose strings readers see
_OPENING = re.compile(r"""(=\s*(?:'''|\"""|'|"))""")


@dataclass(frozen=True, slots=True)
class NewTemplate:
    """What a new template is made from: `source` is the name of another one; `entity` "" keeps that of the source."""

    name: str
    source: str
    author: str
    entity: str = ""


def skeleton(new: NewTemplate, files: Mapping[str, str]) -> dict[str, str]:
    """The files of the new template, by name. `files` are those of the folder of its source."""
    own = {file: text for file, text in files.items() if file.startswith(f"{new.source}/")}
    return {f"{new.name}/{file.partition('/')[2]}": _file(new, file, text) for file, text in own.items()}


def _file(new: NewTemplate, file: str, text: str) -> str:
    if file.endswith("/template.toml"):
        return _declaration(new, text)
    return _texts(file, text) if file.endswith(".toml") else _marked(text, file.endswith(".html"))


def _declaration(new: NewTemplate, text: str) -> str:
    """The declaration with the new name. Its other values are those of the source, which the first line asks to compare."""
    values = {"name": new.name, "version": "1", "author": new.author} | ({"entity": new.entity} if new.entity else {})
    head, table, tables = text.partition("\n[")
    if not re.search(r"(?m)^author\s*=", head):
        head = re.sub(r"(?m)^(version\s*=.*)$", r'\1\nauthor = ""', head)
    for key, value in values.items():
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        line = f'{key} = "{escaped}"'
        head = re.sub(rf"(?m)^{key}\s*=.*$", lambda _, line=line: line, head)  # type: ignore[misc]
    note = f"{MARK}: what follows declares {new.source}. Declare the new template, then delete this line.\n"
    return f"{note}{head}{table}{tables}"


def _texts(file: str, text: str) -> str:
    """`texts.toml` with marks. A WhatsApp text is no Jinja source, so its mark is a line above it."""
    text = _CONTENT_SID.sub("", text)
    document = toml.read(file, text)
    if not isinstance(document, toml.Document):
        return text
    lines, approved = text.split("\n"), list[int]()
    for path, number in document.lines.items():
        value: object = document.data
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if not isinstance(value, str) or not _lines_with_text(value, is_html=False):
            continue
        if path[-1] == "approved":
            approved.append(number)
            continue
        line = lines[number - 1]
        starts_here = _OPENING.search(line) if re.match(rf"\s*[\"']?{path[-1]}[\"']?\s*=", line) else None
        place = starts_here.end() if starts_here else 0
        lines[number - 1] = f"{line[:place]}{JINJA_MARK}{line[place:]}"
    for number in sorted(approved, reverse=True):
        start = next(place for place in range(number, 0, -1) if lines[place - 1].lstrip().startswith("approved"))
        lines.insert(start - 1, f"{MARK}: the text that WhatsApp has to approve")
    return "\n".join(lines)


def _marked(text: str, is_html: bool) -> str:
    """A Jinja source with a mark before each line that has text for readers."""
    lines = text.split("\n")
    for number in _lines_with_text(text, is_html):
        lines[number - 1] = f"{JINJA_MARK}{lines[number - 1]}"
    return "\n".join(lines)


def _lines_with_text(source: str, is_html: bool) -> set[int]:
    """The numbers of the lines that hold words for readers: in the text itself, or in quotes in an expression or a call."""
    return {line for line, text in _texts_of(source) if _LETTER.search(_words(text) if is_html else text)}


def _words(html: str) -> str:
    return " ".join((_TAG.sub("", html), *_READ.findall(html)))


def _texts_of(source: str) -> Iterator[tuple[int, str]]:
    """The texts of a source with their lines. A text in an expression is on the line on which the expression begins."""
    begins, counts = 0, False
    for line, kind, token in environment({}).lex(source):
        if kind == "data":
            yield from enumerate(token.split("\n"), line)
        elif kind in ("variable_begin", "block_begin"):
            begins, counts = line, kind == "variable_begin"
        elif kind == "name" and not counts and token in _WITH_TEXT:
            counts = True
        elif kind == "string" and counts:
            yield begins, token

"""TOML with line numbers. The standard parser does not keep them, and error messages need them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from dispatcher.content.errors import TemplateError

Path: TypeAlias = tuple[str, ...]

_TABLE = re.compile(r"^\s*\[([^\[\]]+)\]\s*(?:#.*)?$")
_KEY = re.compile(r"""^\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=\s*(.*)$""")
_PART = re.compile(r"""[\w-]+|"[^"]*"|'[^']*'""")
_AT_LINE = re.compile(r" \(at line (\d+), column \d+\)| \(at end of document\)")


@dataclass(frozen=True, slots=True)
class Document:
    """One file: its data, and for each table and key the line (from 1) on which its value begins."""

    file: str
    data: Mapping[str, Any]
    lines: Mapping[Path, int]

    def line(self, *path: str) -> int:
        """The line of a key, or of the nearest table around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def fault(self, path: Path, value: object, message: str) -> TemplateError:
        """A fault at a key of this file."""
        return TemplateError(self.file, self.line(*path), ".".join(path), str(value), message)


def read(file: str, source: str) -> Document | TemplateError:
    """Parse `source`. A syntax error is returned as a fault."""
    try:
        data = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        at = _AT_LINE.search(str(error))
        line = int(at[1]) if at and at[1] else source.count("\n") + 1
        return TemplateError(file, line, "syntax", "", _AT_LINE.sub("", str(error)))
    return Document(file, data, _lines(source))


def _lines(source: str) -> dict[Path, int]:
    found: dict[Path, int] = {}
    table: Path = ()
    closing = ""  # the quotes that end the multi-line string we are in
    for number, line in enumerate(source.splitlines(), 1):
        if closing:
            closing = "" if closing in line else closing
        elif header := _TABLE.match(line):
            table = _path(header[1])
            found[table] = number
        elif key := _KEY.match(line):
            opened = next((q for q in ('"""', "'''") if key[2].startswith(q)), "")
            closing = opened if opened and opened not in key[2][3:] else ""
            # TOML drops a line break right after the opening quotes, so the text begins on the next line.
            found[table + _path(key[1])] = number + (1 if closing and key[2].strip() == opened else 0)
    return found


def _path(dotted: str) -> Path:
    return tuple(part.strip("\"'") for part in _PART.findall(dotted))

"""Marks of texts that are still to be written. `templates new` sets one at each text, and the author deletes it. Pure.

A mark is a comment, so a draft can be checked and previewed. It cannot be approved, and no campaign or trigger can use it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from dispatcher.content import toml
from dispatcher.content.errors import TemplateError
from dispatcher.content.template import Template

MARK = "# TO WRITE"
JINJA_MARK = f"{{{MARK} #}}"
_SHOWN = 60  # characters of a text
_ANY_MARK = re.compile(rf"\{{{MARK}.*?#\}}|{MARK}")


def is_draft(template: Template) -> bool:
    """Whether a text of the template is still to be written."""
    return any(MARK in text for text in template.source.values())


def texts_to_write(template: Template) -> list[TemplateError]:
    """Each text that is still to be written, with its file and line; empty for a template that is ready."""
    return [fault for file, text in sorted(template.source.items()) for fault in _in_file(file, text)] if is_draft(template) else []


def _in_file(file: str, text: str) -> Iterator[TemplateError]:
    keys = _keys(file, text)
    for number, line in enumerate(text.split("\n"), 1):
        if MARK in line:
            message = f"is to be written: replace it, and delete {JINJA_MARK if JINJA_MARK in line else 'this comment'}"
            key = keys.get(number + line.startswith(MARK), "text")  # a comment stands above its text
            yield TemplateError(file, number, key, _shown(line, number in keys), message)


def _keys(file: str, text: str) -> dict[int, str]:
    """The key whose value begins on a line, by line."""
    document = toml.read(file, text) if file.endswith(".toml") else None
    return {line: ".".join(path) for path, line in document.lines.items()} if isinstance(document, toml.Document) else {}


def _shown(line: str, has_key: bool) -> str:
    text = _ANY_MARK.sub("", line).strip(" :")
    text = text.partition("=")[2].strip(" '\"") if has_key and "=" in text else text
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"

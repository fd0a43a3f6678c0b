"""The texts of one template in one language: `texts.toml` (short ones), `email.html`, `email.txt`. Each value is a
Jinja source."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from channels.base import Channel
from channels.whatsapp_templates import BODY_CHARACTERS_MAX
from dispatcher.content import toml
from dispatcher.content.buttons import button_errors, read_buttons
from dispatcher.content.declaration import RENDER_MODES
from dispatcher.content.errors import TemplateError
from dispatcher.content.template import PLACEHOLDER, WhatsAppTemplate
from dispatcher.content.toml import Document, Path
from dispatcher.domain.message import Mode
from dispatcher.domain.spelling import did_you_mean, nearest

SHORT_TEXTS: Mapping[str, tuple[str, ...]] = {
    "push": ("title", "body", "link"),
    "email": ("subject", "preheader"),
    "sms": ("text",),
}
FILES: Mapping[str, str] = {"email.html": "email.html", "email.text": "email.txt"}  # part -> its own file
_CONTENT_SID = re.compile(r"HX[0-9a-f]{32}\Z")
_NUMBER = re.compile(r"[1-9][0-9]?\Z")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A Jinja source, and the file and line where it begins, for error messages."""

    source: str
    file: str
    line: int = 1
    is_generated: bool = False  # made from another source: its lines are not those of the file

    def place(self, line: int) -> tuple[str, int]:
        """The file and line of a line of the source."""
        return self.file, self.line if self.is_generated else self.line + line - 1


@dataclass(slots=True)
class SourceFiles:
    """The content of one language folder, by part ("push.title", "whatsapp.standard.1", …)."""

    parts: dict[str, SourceFile] = field(default_factory=dict)
    whatsapp: dict[Mode, WhatsAppTemplate] = field(default_factory=dict)
    faults: list[TemplateError] = field(default_factory=list)


def read_source_files(
    folder: str, files: Mapping[str, str], channels: Iterable[Channel], modes: Iterable[Mode], *, has_modes: bool = True
) -> SourceFiles:
    """Read the language folder `folder` from `files`. Missing texts of a declared channel are faults. Without `has_modes` the
    declared modes are faulty, so a WhatsApp text may be in any mode."""
    texts, used_channels = SourceFiles(), {channel.value for channel in channels}
    if Channel.EMAIL in used_channels:
        _read_files(texts, folder, files)
    file = f"{folder}/texts.toml"
    if file not in files:
        texts.faults.append(TemplateError(file, 1, "file", "", "is missing"))
        return texts
    document = toml.read(file, files[file])
    if isinstance(document, TemplateError):
        texts.faults.append(document)
        return texts
    texts.faults += _unknown(document, (), document.data, (*SHORT_TEXTS, "whatsapp"))
    for channel, keys in SHORT_TEXTS.items():
        table = document.data.get(channel, {})
        texts.faults += _unknown(document, (channel,), table, keys)
        for key in keys if channel in used_channels else ():
            _read_text(texts, document, (channel, key))
    if Channel.WHATSAPP in used_channels:
        _read_whatsapp(texts, document, list(modes), has_modes)
    return texts


def _read_files(texts: SourceFiles, folder: str, files: Mapping[str, str]) -> None:
    for part, name in FILES.items():
        file = f"{folder}/{name}"
        if file in files:
            texts.parts[part] = SourceFile(files[file], file)
        elif name != "email.txt":  # which is made from the HTML, see `generated_text`
            texts.faults.append(TemplateError(file, 1, "file", "", "is missing, and the template declares e-mail"))


def _unknown(document: Document, path: Path, table: object, known: Iterable[str]) -> Iterator[TemplateError]:
    if not isinstance(table, Mapping):
        yield document.fault(path, "", "must be a table")
        return
    for key in table:
        if key not in known:
            yield document.fault((*path, key), "", f"unknown key{did_you_mean(key, known)}")


def _is_misspelt(document: Document, path: Path) -> bool:
    """Whether a missing key, or its table, is there under a similar name, which is reported as unknown."""
    table: Any = document.data
    for key in path:
        if not isinstance(table, Mapping):
            return False
        if key not in table:
            known = (*SHORT_TEXTS, "whatsapp", *(name for names in SHORT_TEXTS.values() for name in names), *RENDER_MODES)
            return bool(nearest(key, [name for name in table if name not in known]))
        table = table[key]
    return False


def _read_text(texts: SourceFiles, document: Document, path: Path) -> str:
    """Read one text; returns "" and records a fault if it is missing or empty."""
    value: Any = document.data
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    if not isinstance(value, str) or not value.strip():
        if value is not None:
            texts.faults.append(document.fault(path, value, "must be a text"))
        elif not _is_misspelt(document, path):
            texts.faults.append(document.fault(path, "", "is missing"))
        return ""
    texts.parts[".".join(path)] = SourceFile(value.strip(), document.file, document.line(*path))
    return value.strip()


def _read_whatsapp(texts: SourceFiles, document: Document, modes: list[Mode], has_modes: bool) -> None:
    table = document.data.get("whatsapp", {})
    texts.faults += _unknown(document, ("whatsapp",), table, [mode.value for mode in (modes if has_modes else RENDER_MODES)])
    for mode in modes:
        path = ("whatsapp", mode.value)
        inner = table.get(mode.value) if isinstance(table, Mapping) else None
        if not isinstance(inner, Mapping):
            if has_modes and not _is_misspelt(document, path):
                texts.faults.append(document.fault(path, "", "is missing, and the template declares whatsapp"))
            continue
        placeholders = tuple(key for key in inner if _NUMBER.match(key))
        texts.faults += _unknown(document, path, inner, ("content_sid", "approved", "buttons", *placeholders))
        for placeholder in placeholders:
            _read_text(texts, document, (*path, placeholder))
        texts.whatsapp[mode] = approved = WhatsAppTemplate(
            str(inner.get("content_sid", "")), str(inner.get("approved", "")).strip(), placeholders, read_buttons(inner)
        )
        texts.faults += (document.fault((*path, key), value, message) for key, value, message in _review_errors(approved))
        texts.faults += (
            document.fault((*path, "buttons"), value, message) for value, message in button_errors(inner.get("buttons"))
        )


def _review_errors(approved: WhatsAppTemplate) -> Iterator[tuple[str, str, str]]:
    """What WhatsApp's review would reject."""
    if approved.content_sid and not _CONTENT_SID.match(approved.content_sid):
        yield "content_sid", approved.content_sid, "must be HX and 32 hexadecimal digits"
    numbered = [str(number) for number in range(1, len(approved.placeholders) + 1)]
    if sorted(approved.placeholders, key=int) != numbered or set(PLACEHOLDER.findall(approved.text)) != set(numbered):
        yield "approved", "", "its placeholders {{1}}, {{2}}, … must be numbered without a gap and each have a value below"
    if not approved.text or approved.text.startswith("{{") or approved.text.endswith("}}"):
        yield "approved", "", "a WhatsApp text begins and ends with words, not with a placeholder"
    if len(approved.text) > BODY_CHARACTERS_MAX:
        yield "approved", "", f"has {len(approved.text):,} characters; WhatsApp allows {BODY_CHARACTERS_MAX:,}"

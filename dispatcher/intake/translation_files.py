"""Files that translators work with: gettext PO (through Babel) and XLIFF 2.0 (OASIS; through lxml).

In PO a code stands in the text as it is. In XLIFF it is a `<ph>` with its original in `<originalData>`, so that tools protect it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from typing import Any

from babel.messages.catalog import Catalog
from babel.messages.pofile import PoFileError, read_po, write_po
from lxml import etree

from dispatcher.content.translation_units import PieceKind, pieces
from dispatcher.intake.errors import BadInput, InputError

BYTES_MAX = 10_000_000
_XLIFF = "urn:oasis:names:tc:xliff:document:2.0"
_SPACE = "{http://www.w3.org/XML/1998/namespace}space"
_PLACE = re.compile(r"([a-z][a-z0-9_-]*/[a-z]{2}/[a-z.]+):(\d{1,9})")
_PROJECT = re.compile(r"([a-z][a-z0-9_-]*) from-([a-z]{2})\Z")


class ExchangeFormat(StrEnum):
    """The format of a file for translators."""

    XLIFF = "XLIFF"
    PO = "PO"


@dataclass(frozen=True, slots=True)
class ExchangeUnit:
    """One text in a file for translators. `target` is "" where there is no translation; `needs_work`: it has to be looked at."""

    id: str
    source: str
    target: str
    needs_work: bool = False
    notes: tuple[str, ...] = ()
    place: tuple[str, int] = ("", 0)  # file and line of the translation in the template folder
    line: int = 0  # in the file for translators


@dataclass(frozen=True, slots=True)
class Exchange:
    """A whole file: one template, from one language to another."""

    template: str
    source: str
    target: str
    units: Sequence[ExchangeUnit]


def write(exchange: Exchange, exchange_format: ExchangeFormat) -> bytes:
    """The file's content."""
    return _write_po(exchange) if exchange_format is ExchangeFormat.PO else _write_xliff(exchange)


def read(name: str, content: bytes) -> Exchange:
    """Read a file of either format. Raises `BadInput`, with the line."""
    if len(content) > BYTES_MAX:
        raise BadInput(InputError(name, 0, "", f"has more than {BYTES_MAX:,} bytes"))
    return _read_xliff(name, content) if content.lstrip().startswith(b"<") else _read_po(name, content)


# -- PO ----------------------------------------------------------------------------------------------------------------


def _write_po(exchange: Exchange) -> bytes:
    catalog = Catalog(
        exchange.target,
        project=exchange.template,
        version=f"from-{exchange.source}",
        header_comment=f"# Texts of the template {exchange.template}, from {exchange.source} to {exchange.target}.",
        fuzzy=False,
    )
    for unit in exchange.units:
        message = catalog.add(
            unit.source,
            unit.target,
            context=unit.id,
            auto_comments=unit.notes,
            locations=[unit.place],
        )
        message.flags = {"fuzzy"} if unit.needs_work and unit.target else set()  # Babel takes codes for Python formats
    file = BytesIO()
    write_po(file, catalog, width=0, sort_output=False)
    return file.getvalue()


def _read_po(name: str, content: bytes) -> Exchange:
    try:
        catalog = read_po(BytesIO(content), abort_invalid=True)
    except (PoFileError, ValueError, LookupError) as error:
        raise BadInput(InputError(name, int(getattr(error, "lineno", 0) or 0), "", f"is not a PO file: {error}")) from None
    header = _PROJECT.match(f"{catalog.project} {catalog.version}")
    if header is None or catalog.locale is None:
        message = 'needs the headers of the export: "Project-Id-Version: TEMPLATE from-LANGUAGE" and "Language"'
        raise BadInput(InputError(name, 1, "header", message))
    units = [
        ExchangeUnit(
            str(message.context or ""),
            str(message.id),
            str(message.string or ""),
            message.fuzzy,
            place=message.locations[0] if message.locations else ("", 0),
            line=message.lineno or 0,
        )
        for message in catalog
        if message.id
    ]
    return Exchange(header[1], header[2], catalog.locale.language, units)


# -- XLIFF -------------------------------------------------------------------------------------------------------------


def _write_xliff(exchange: Exchange) -> bytes:
    root = etree.Element(
        f"{{{_XLIFF}}}xliff", nsmap={None: _XLIFF}, version="2.0", srcLang=exchange.source, trgLang=exchange.target
    )
    file = etree.SubElement(root, f"{{{_XLIFF}}}file", id="f1", original=exchange.template)
    for number, unit in enumerate(exchange.units, 1):
        _add_unit(file, f"u{number}", unit)
    content: bytes = etree.tostring(root, xml_declaration=True, encoding="UTF-8", pretty_print=False)
    return content.replace(b"<unit ", b"\n<unit ").replace(b"</file>", b"\n</file>") + b"\n"


def _add_unit(file: Any, number: str, unit: ExchangeUnit) -> None:
    element = etree.SubElement(file, f"{{{_XLIFF}}}unit", {"id": number, "name": unit.id, _SPACE: "preserve"})
    notes = etree.SubElement(element, f"{{{_XLIFF}}}notes")
    for text in (*unit.notes, f"{unit.place[0]}:{unit.place[1]}"):
        etree.SubElement(notes, f"{{{_XLIFF}}}note").text = text
    data: dict[str, str] = {}
    for text in (unit.source, unit.target):
        for piece in pieces(text):
            if piece.kind is not PieceKind.TEXT:
                data.setdefault(text[piece.start : piece.end], f"d{len(data) + 1}")
    if data:
        original = etree.SubElement(element, f"{{{_XLIFF}}}originalData")
        for code, name in data.items():
            etree.SubElement(original, f"{{{_XLIFF}}}data", id=name).text = code
    state = "initial" if not unit.target or unit.needs_work else "translated"
    segment = etree.SubElement(element, f"{{{_XLIFF}}}segment", state=state)
    _add_text(etree.SubElement(segment, f"{{{_XLIFF}}}source"), unit.source, data)
    if unit.target:
        _add_text(etree.SubElement(segment, f"{{{_XLIFF}}}target"), unit.target, data)


def _add_text(element: Any, text: str, data: dict[str, str]) -> None:
    """Put a text into an element, its codes as `<ph>`."""
    last = None
    for number, piece in enumerate(pieces(text), 1):
        part = text[piece.start : piece.end]
        if piece.kind is not PieceKind.TEXT:
            attributes = {"id": f"{number}", "dataRef": data[part], "disp": part, "canDelete": "no"}
            last = etree.SubElement(element, f"{{{_XLIFF}}}ph", attributes)
        elif last is None:
            element.text = (element.text or "") + part
        else:
            last.tail = (last.tail or "") + part


def _read_xliff(name: str, content: bytes) -> Exchange:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(content, parser)
    except etree.XMLSyntaxError as error:
        raise BadInput(InputError(name, error.lineno or 0, "", f"is not XML: {error.msg}")) from None
    if root.getroottree().docinfo.doctype:
        raise BadInput(InputError(name, 1, "DOCTYPE", "is not allowed"))
    if root.tag != f"{{{_XLIFF}}}xliff":
        raise BadInput(InputError(name, root.sourceline or 1, "", "is not XLIFF 2.0: export it again, and keep the version"))
    files = root.findall(f"{{{_XLIFF}}}file")
    if len(files) != 1 or not files[0].get("original"):
        raise BadInput(InputError(name, root.sourceline or 1, "file", "must be one, with the template as original"))
    units = [_read_unit(name, element) for element in root.iter(f"{{{_XLIFF}}}unit")]
    return Exchange(files[0].get("original"), root.get("srcLang", ""), root.get("trgLang", ""), units)


def _read_unit(name: str, element: Any) -> ExchangeUnit:
    line, unit_id = element.sourceline or 0, element.get("name", "")
    data = {each.get("id"): each.text or "" for each in element.iter(f"{{{_XLIFF}}}data")}
    sources, targets, states = "", "", []
    try:
        for segment in element.iter(f"{{{_XLIFF}}}segment"):  # a tool may split a unit
            source, target = (segment.find(f"{{{_XLIFF}}}{kind}") for kind in ("source", "target"))
            sources += "".join(_texts(source, data)) if source is not None else ""
            targets += "".join(_texts(target, data)) if target is not None else ""
            states.append(segment.get("state", "initial"))
    except KeyError as error:
        raise BadInput(InputError(name, line, unit_id, f"has a placeholder without data: {error.args[0]}")) from None
    place = next((found for note in element.iter(f"{{{_XLIFF}}}note") if (found := _PLACE.fullmatch(note.text or ""))), None)
    written_at = (place[1], int(place[2])) if place else ("", 0)
    return ExchangeUnit(unit_id, sources, targets, "initial" in states, place=written_at, line=line)


def _texts(element: Any, data: dict[str, str]) -> Iterator[str]:
    yield element.text or ""
    for child in element:
        if child.tag == f"{{{_XLIFF}}}ph":
            yield data[child.get("dataRef")]
        elif isinstance(child.tag, str):  # a tool's own mark, such as <mrk>
            yield from _texts(child, data)
        yield child.tail or ""

"""The cells of an .xlsx workbook as texts, streamed: memory does not grow with the number of rows."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from datetime import date, datetime, time
from typing import IO, Any
from zipfile import BadZipFile, ZipFile

TEXTS_BYTES_MAX = 256 * 1024 * 1024  # the workbook's table of texts, which is held in memory
PART_BYTES_MAX = 8 * 1024 * 1024 * 1024
SCAN_BYTES, OVERLAP_BYTES = 1024 * 1024, 64 * 1024  # a formula has at most 8,192 characters
_MERGED = re.compile(rb'<(?:\w+:)?mergeCell\s[^>]*\bref="([A-Z0-9]+:[A-Z0-9]+)"')
# A cell with a formula and no value. An empty text as a result is one: t="str".
_NOT_CALCULATED = re.compile(
    rb'<(?:\w+:)?c(?=[\s>])(?![^>]*\bt="str")[^>]*>\s*<(?:\w+:)?f(?:\s[^>]*)?(?:/>|>[^<]*</(?:\w+:)?f>)\s*'
    rb"(?:<(?:\w+:)?v\s*(?:/>|>\s*</(?:\w+:)?v>)\s*)?</(?:\w+:)?c>"
)


class BadWorkbook(ValueError):
    """A workbook that cannot be read, and the row from which on it cannot; 0 where none was read."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def workbook_rows(raw: IO[bytes]) -> Iterator[tuple[int, list[str]]]:
    """The rows of the only sheet with cells, each with its number. Raises `BadWorkbook`."""
    from openpyxl import load_workbook  # here: its import takes 0.1 s, and few processes read a workbook

    _check_parts(raw)
    line = 0
    try:
        book = load_workbook(raw, read_only=True, data_only=True, keep_links=False)
        sheets = [sheet for sheet in book.worksheets if _has_rows(sheet)]
        if len(sheets) > 1:
            raise BadWorkbook(0, f"has {len(sheets)} sheets with rows; keep the one that is meant")
        for sheet in sheets:
            for line, row in enumerate(sheet.iter_rows(values_only=True), start=1):
                yield line, [_text(value) for value in _without_end(row)]
    except BadWorkbook:
        raise
    except Exception:  # the library raises whatever the XML of a damaged file leads to
        raise BadWorkbook(line, "is not a workbook that can be read; open it in a spreadsheet and save it again as .xlsx") from None


def _check_parts(raw: IO[bytes]) -> None:
    """Raise `BadWorkbook` for a workbook that would fill the memory, or of which a reader does not see all that a person sees."""
    try:
        with ZipFile(raw) as archive:
            parts = archive.infolist()
            if any(p.file_size > (TEXTS_BYTES_MAX if _is_texts(p.filename) else PART_BYTES_MAX) for p in parts):
                raise BadWorkbook(0, "is too large for a workbook; save it as CSV (UTF-8)")
            for part in parts:
                if "worksheets/" in part.filename and part.filename.endswith(".xml"):
                    with archive.open(part) as sheet:
                        _check_sheet(sheet)
    except (BadZipFile, OSError, ValueError, NotImplementedError, EOFError, zlib.error) as error:
        raise error if isinstance(error, BadWorkbook) else BadWorkbook(0, "is not an .xlsx workbook") from None
    raw.seek(0)


def _is_texts(part: str) -> bool:
    return part.lower().endswith("sharedstrings.xml")


def _check_sheet(sheet: IO[bytes]) -> None:
    """Raise `BadWorkbook` for cells that would be read as empty, so that an opt-out in them would be lost: of merged cells only the
    first has the value, and a program that writes formulas need not write their values."""
    rest = b""
    while data := sheet.read(SCAN_BYTES):
        text = rest + data
        rest = text[-OVERLAP_BYTES:]
        if b"mergeCell" in text and (merged := _MERGED.search(text)):
            raise BadWorkbook(0, f"has merged cells ({merged[1].decode()}): only the first of them has a value; unmerge them")
        if (b"<f" in text or b":f" in text) and _NOT_CALCULATED.search(text):
            raise BadWorkbook(0, "has formulas without their values; open it in a spreadsheet and save it again as .xlsx")


def _has_rows(sheet: Any) -> bool:
    sheet.reset_dimensions()  # some programs write a size that is too small: the rows beyond it would be lost
    return any(_without_end(row) for row in sheet.iter_rows(values_only=True))


def _without_end(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The cells up to the last that is not empty."""
    width = len(row)
    while width and row[width - 1] in (None, ""):
        width -= 1
    return row[:width]


def _text(value: Any) -> str:
    """A cell as the text that a CSV file of it would have, with a decimal point and days as YYYY-MM-DD."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return str(value.date()) if value.time() == time.min else value.isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float):
        text = str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
        decimals = text.partition(".")[2]
        return f"{text}0" if len(decimals) == 3 and decimals.isdigit() else text  # as text, 12.125 would have two readings
    return str(value)

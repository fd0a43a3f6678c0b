"""Rows of JSONL, CSV and XLSX files, streamed. A row that cannot be read is reported with its line, and reading continues.

CSV is read as people and spreadsheets write it: the encoding, the delimiter and the header's spelling are recognised. What is not
certain is refused with its place. Every line that is not blank belongs to exactly one row or one report.
"""

from __future__ import annotations

import codecs
import csv
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from dataclasses import field as option
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, TextIO, TypeAlias

from pydantic_core import from_json

from dispatcher.domain.notation import Notation, as_windows_1252, is_misread, trim
from dispatcher.domain.spelling import did_you_mean
from dispatcher.intake.csv_records import TOO_LONG, CsvRecords, LongLine, read_lines
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.intake.json_names import REPEATED, all_readings, may_repeat_names, objects_in, repeated_name
from dispatcher.intake.workbook import BadWorkbook, workbook_rows
from dispatcher.policy import FileRules

SCAN_BYTES = 1024 * 1024
SUFFIXES = {".jsonl", ".csv", ".tsv", ".xlsx"}
DELIMITERS = ",;\t|"
IGNORED = "-"
_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # what `surrogateescape` makes of bytes that are not UTF-8
_UTF8_CHARACTER = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_NOT_CP1252 = frozenset(b"\x81\x8d\x8f\x90\x9d")
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)  # Excel's first line
_NAME = re.compile(r"[A-Za-z0-9_.:-]+")


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row as plain data, nested as in its JSON or by the dots in its column names. `line` is its first line."""

    line: int
    data: dict[str, Any]
    notation: Notation = Notation.JSON


@dataclass(frozen=True, slots=True)
class UnreadableRow:
    """A row that is rejected. `value` and `row` may be personal data: only the reject file gets them.

    `readings` are the row's cells by column, as far as they can be told apart: more than one where a delimiter too many leaves open
    which cell belongs to which column. `others` are the readings of other rows on the same line.
    """

    line: int
    field: str
    reason: str
    value: Any = option(default=None, repr=False)
    row: Any = option(default=None, repr=False)
    readings: tuple[dict[str, Any], ...] = option(default=(), repr=False)
    others: tuple[tuple[dict[str, Any], ...], ...] = option(default=(), repr=False)


Cell: TypeAlias = Callable[[str], Any]  # a cell's text as a value; raises ValueError(reason)


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that a file may have: how to read their cells (None: no such column), the one that it must have, and the names to
    suggest for another. `by_position` names the columns in place of the file's header; `IGNORED` is one whose cells are not read.
    """

    cell_of: Callable[[str], Cell | None]
    key: str
    names: Collection[str]
    by_position: tuple[str, ...] = ()

    def name_of(self, position: int, cell: str) -> str:
        """The name of a column, which the header has as `cell`."""
        if not self.by_position:
            return _column(cell, self)
        return self.by_position[position] if position < len(self.by_position) else IGNORED

    def knows(self, name: str) -> bool:
        """Whether there is such a column, or it is to be ignored."""
        return self.cell_of(name) is not None or (name == IGNORED and bool(self.by_position))


def read_rows(path: Path, columns: Columns, rules: FileRules, skip: int = 0) -> Iterator[SourceRow | UnreadableRow]:
    """Stream the rows of a file. An empty cell is an absent field; a row of empty cells is no row.

    The first `skip` rows, readable or not, are read over: a reader that was interrupted goes on there.
    Raises `BadInput` where the file as a whole cannot be read: missing, of another type, or without a correct header.
    """
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        hint = "; save the workbook as .xlsx" if kind in {".xls", ".xlsm", ".xlsb", ".ods"} else ""
        raise _bad(path, 0, "", f"should be a .jsonl, .csv or .xlsx file{hint}")
    try:
        with path.open("rb") as raw:
            if kind == ".xlsx":
                yield from _sheet(raw, path, columns, skip)
            else:
                # what is not in the encoding becomes lone surrogates, so that the rows around it can still be read
                file = TextIOWrapper(raw, encoding=_encoding(raw, kind), errors="surrogateescape", newline="")
                yield from _jsonl(file, skip) if kind == ".jsonl" else _csv(file, path, columns, rules, skip)
    except OSError as error:
        raise _bad(path, 0, "", f"can't be read: {error.strerror}") from None
    except UnicodeError:
        raise _bad(
            path, 0, "", "ends within a character of UTF-16 or UTF-32, or is not that throughout; save it as UTF-8"
        ) from None


def read_header(path: Path) -> list[str]:
    """The cells of the first row of a CSV file or a workbook, as they are written; none where it cannot be read, or is JSONL."""
    kind = path.suffix.lower()
    if kind not in SUFFIXES - {".jsonl"}:
        return []
    try:
        with path.open("rb") as raw:
            if kind == ".xlsx":
                return next((texts for _, texts in workbook_rows(raw) if any(map(trim, texts))), [])
            lines = read_lines(TextIOWrapper(raw, encoding=_encoding(raw, kind), errors="surrogateescape", newline=""))
            delimiter, _, first = _header_line(lines)
            return next(csv.reader([first], delimiter=delimiter), []) if first and not isinstance(first, LongLine) else []
    except (OSError, UnicodeError, BadWorkbook):
        return []  # `read_rows` says what is wrong


def _bad(path: Path, line: int, column: str, message: str) -> BadInput:
    return BadInput(InputError(str(path), line, column, message))


# -- encoding ----------------------------------------------------------------------------------------------------------


def _encoding(raw: IO[bytes], kind: str) -> str:
    """The encoding of a file: by its byte order mark or its first characters, else UTF-8, or Windows-1252 for a CSV file.

    Windows-1252 is certain enough only where the file has bytes outside ASCII and none of them forms UTF-8.
    """
    if not stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
        return "utf-8-sig"  # a pipe can be read only once
    head = raw.read(4)
    raw.seek(0)
    if head in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE):  # before UTF-16, whose mark the first of them begins with
        return "utf-32"
    if len(head) == 4 and head.count(0) == 3 and (head[0] or head[3]):
        return "utf-32-le" if head[0] else "utf-32-be"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if len(head) == 4 and (head[1] == head[3] == 0 or head[0] == head[2] == 0) and any(head):
        return "utf-16-le" if head[1] == 0 else "utf-16-be"
    return "cp1252" if kind != ".jsonl" and _is_cp1252(raw) else "utf-8-sig"


def _is_cp1252(raw: IO[bytes]) -> bool:
    """Whether no byte outside ASCII is part of a character in UTF-8, and each is a character of Windows-1252."""
    is_foreign = False
    rest = b""
    while data := raw.read(SCAN_BYTES):
        text = rest + data
        rest = text[-3:] if len(data) == SCAN_BYTES else b""
        if text.isascii():
            continue
        if _UTF8_CHARACTER.search(text) or not _NOT_CP1252.isdisjoint(text):
            is_foreign = False
            break
        is_foreign = True
    raw.seek(0)
    return is_foreign


def _unreadable(text: str) -> str | None:
    """Why this text cannot be read, or None."""
    if "\0" in text or "\\u0000" in text:
        return "holds a null character"
    if text.isascii():
        return None
    if _NOT_UTF8.search(text):
        return "is not UTF-8, perhaps Windows-1252; save the file as UTF-8"
    if "\ufffd" in text:
        return "holds a character that was lost (U+FFFD) when the file was saved in a wrong encoding; export it again as UTF-8"
    if is_misread(text):
        return "is UTF-8 that was read as Windows-1252 and saved again; export it again as UTF-8"
    return None


# -- JSONL -------------------------------------------------------------------------------------------------------------


def _jsonl(file: TextIO, skip: int) -> Iterator[SourceRow | UnreadableRow]:
    for line, text in read_lines(file):
        if not text.strip():
            continue
        if skip > 0:
            skip -= 1
        else:
            yield unreadable_json(line, TOO_LONG, text) if isinstance(text, LongLine) else _json_row(line, text)


def _json_row(line: int, text: str) -> SourceRow | UnreadableRow:
    reason, row = _unreadable(text), text.strip()
    text = as_windows_1252(text)
    data: Any = None
    try:
        data = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        reason = reason or f"is not JSON: {str(error).replace(' at line 1', ' at')}"
    if reason is None and "\\u" in text:  # what is escaped is seen only now
        reason = _unreadable(json.dumps(data, ensure_ascii=False))
    if not isinstance(data, dict):
        return unreadable_json(line, reason or "is not a JSON object", text, row)
    repeated = repeated_name(text) if may_repeat_names(text, data) else None
    if reason is None and repeated is None:
        return SourceRow(line, data)
    readings = all_readings(text) if repeated is not None else (data,)
    return UnreadableRow(line, "" if reason else repeated or "", reason or REPEATED, row=row, readings=readings)


def unreadable_json(line: int, reason: str, text: str, row: str | None = None) -> UnreadableRow:
    """The row of a line that is not one JSON object, with the objects that can be read from it."""
    first, *others = objects_in(as_windows_1252(text)) or ((),)
    return UnreadableRow(line, "", reason, row=row, readings=first, others=tuple(others))


# -- CSV ---------------------------------------------------------------------------------------------------------------


def _csv(file: TextIO, path: Path, columns: Columns, rules: FileRules, skip: int) -> Iterator[SourceRow | UnreadableRow]:
    lines = read_lines(file)
    delimiter, line, first = _header_line(lines)
    if isinstance(first, LongLine):
        raise _bad(path, line, "", f"the line that names the columns {TOO_LONG}")
    header = _Header(path, line, next(csv.reader([first], delimiter=delimiter), []), columns)
    notation = Notation.POINT if delimiter == "," else Notation.LOCAL
    for record in CsvRecords(lines, delimiter, (len(header.names), header.width), rules.quoted_lines_max):
        if record.reason is None and not any(map(trim, record.cells)):
            continue
        if skip > 0:
            skip -= 1
        elif record.reason is None:
            yield header.row(record.line, record.cells, notation)
        else:
            readings = header.readings(record.cells)
            row = record.cells if record.reason != TOO_LONG else None
            yield UnreadableRow(record.line, "", record.reason, row=row, readings=readings)


def _header_line(lines: Iterator[tuple[int, str]]) -> tuple[str, int, str]:
    """The delimiter, and the line that names the columns, with its number; None for one that is too long."""
    line, first = _first_line(lines)
    first = first if isinstance(first, LongLine) else first.lstrip("\ufeff\u200b")  # before a quotation mark, too
    if first and (mark := _SEPARATOR_LINE.fullmatch(first.strip("\r\n\ufeff"))):
        line, first = _first_line(lines)
        return mark[1], line, first
    return _delimiter(first), line, first


def _first_line(lines: Iterator[tuple[int, str]]) -> tuple[int, str]:
    """The first line that is not blank."""
    return next(((line, text) for line, text in lines if trim(text)), (1, ""))


def _delimiter(header: str) -> str:
    """The delimiter that occurs most often in the header, outside of quotes; a comma where none does."""
    plain = re.sub(r'"[^"]*"', "", header)
    return max(DELIMITERS, key=plain.count)  # of equals the first


class _Header:
    """The columns of a file, and how to read a row of their cells."""

    def __init__(self, path: Path, line: int, cells: Sequence[str], columns: Columns) -> None:
        names = [columns.name_of(position, cell) for position, cell in enumerate(cells)]
        self.width = len(names)  # with the columns that were emptied, which a spreadsheet writes all the same
        while names and not names[-1]:
            names.pop()
        if not names:
            raise _bad(path, line, "", "is empty; the first line names the columns")
        faults = list(self._faults(path, line, names, columns))
        if faults:
            raise BadInput(*dict.fromkeys(faults))
        self.names = names
        self._cells = [(name.split("."), columns.cell_of(name) or str) for name in names]

    @staticmethod
    def _faults(path: Path, line: int, names: list[str], columns: Columns) -> Iterator[InputError]:
        if not any(columns.knows(name) for name in names):
            # perhaps a file without a header: then these are values, which may be personal data
            known = ", ".join(list(columns.names)[:12])
            yield InputError(
                str(path), line, "", f"the first line should name the columns, such as {known}; it names none that is known"
            )
            return
        times = Counter(names)
        blocks = {name[:place] for name in names for place, character in enumerate(name) if character == "."}
        for number, name in enumerate(names, start=1):
            if not name:
                yield InputError(str(path), line, "", f"column {number} has no name")
            elif not columns.knows(name):
                hint = did_you_mean(name, columns.names)
                yield InputError(str(path), line, name, f"unknown column, number {number}{hint}")
            elif name != IGNORED and (times[name] > 1 or name in blocks):
                yield InputError(str(path), line, name, "is given twice")
        if columns.key not in names:
            yield InputError(str(path), line, columns.key, "is missing: no column has this name")

    def row(self, line: int, texts: list[str], notation: Notation) -> SourceRow | UnreadableRow:
        """A row of texts as data."""
        width = len(self.names)
        if not width <= len(texts) <= self.width or any(map(trim, texts[width:])):
            reason = f"has {len(texts)} cells where the header has {self.width}"
            if width <= len(texts) <= self.width:
                reason = "has a value in a column without a name"
            return UnreadableRow(line, "", reason, row=texts, readings=self.readings(texts))
        data: dict[str, Any] = {}
        for name, text, (steps, cell) in zip(self.names, texts, self._cells, strict=False):
            if steps == [IGNORED] or not trim(text):
                continue
            try:
                if why := _unreadable(text):
                    raise ValueError(why)
                value = cell(text)
            except ValueError as error:
                readings = self.readings(texts)
                return UnreadableRow(line, name, str(error), text, readings[0], readings)
            place = data
            for step in steps[:-1]:
                place = place.setdefault(step, {})
            place[steps[-1]] = value
        return SourceRow(line, data, notation)

    def readings(self, texts: Sequence[str]) -> tuple[dict[str, Any], ...]:
        """The cells by column: counted from the left, and, where they are too many for one row but too few for two, also from the
        right.

        The last cells of a line that holds several rows belong to another person.
        """
        if not texts:
            return ()
        texts = [as_windows_1252(text) for text in texts]
        from_left = dict(zip(self.names, texts, strict=False))
        if not any(map(trim, texts[1:])):  # a whole row in one cell: in quotes, or with another delimiter than the header
            rows = (next(csv.reader([texts[0]], delimiter=each, quoting=csv.QUOTE_NONE), []) for each in DELIMITERS)
            inner = [dict(zip(self.names, (cell.strip('"') for cell in cells), strict=False)) for cells in rows if len(cells) > 1]
            return from_left, *inner
        if len(texts) <= len(self.names) or len(texts) >= 2 * self.width - 1:
            return (from_left,)
        names = [*self.names, *[""] * (self.width - len(self.names))]
        from_right = dict(zip(reversed(names), reversed(texts), strict=False))
        return from_left, {**from_right, self.names[0]: from_left[self.names[0]]}


def _column(cell: str, columns: Columns) -> str:
    """The column's name as the program writes it: without blanks and capitals, where the name as it stands is not one."""
    name = trim(cell)
    if columns.cell_of(name) is not None and _NAME.fullmatch(name) and not name.isupper():
        return name
    plain = re.sub(r"[\s-]+", "_", re.sub(r"\s*\.\s*", ".", name.casefold()))
    return plain if columns.cell_of(plain) is not None else name


# -- XLSX --------------------------------------------------------------------------------------------------------------


def _sheet(raw: IO[bytes], path: Path, columns: Columns, skip: int) -> Iterator[SourceRow | UnreadableRow]:
    header = None
    try:
        for line, texts in workbook_rows(raw):
            if not any(map(trim, texts)):
                continue
            if header is None:
                header = _Header(path, line, texts, columns)
            elif skip > 0:
                skip -= 1
            else:
                padded = [*texts, *[""] * (len(header.names) - len(texts))]
                yield header.row(line, padded, Notation.LOCAL)
    except BadWorkbook as error:
        raise _bad(path, error.line, "", str(error)) from None
    if header is None:
        raise _bad(path, 1, "", "is empty; the first line names the columns")

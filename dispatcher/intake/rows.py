"""Rows of JSONL and CSV files, streamed. A row that cannot be read is reported with its line, and reading continues."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from dataclasses import field as option
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO, TypeAlias

from pydantic_core import from_json

from dispatcher.domain.spelling import did_you_mean
from dispatcher.intake.errors import BadInput, InputError

ROW_LENGTH_MAX = 256 * 1024
_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # what `surrogateescape` makes of bytes that are not UTF-8
csv.field_size_limit(ROW_LENGTH_MAX)  # otherwise a quote that is never closed would make one cell of the rest of the file


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row as plain data, nested as in its JSON or by the dots in its column names. `line` is its first line."""

    line: int
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class UnreadableRow:
    """A row that is rejected. `value` and `row` may be personal data: only the reject file gets them."""

    line: int
    field: str
    reason: str
    value: Any = option(default=None, repr=False)
    row: Any = option(default=None, repr=False)


Cell: TypeAlias = Callable[[str], Any]  # a cell's text as a value; raises ValueError(reason)


def read_rows(
    path: Path, cell_of: Callable[[str], Cell | None], columns: Collection[str], skip: int = 0
) -> Iterator[SourceRow | UnreadableRow]:
    """Stream the rows of a .jsonl or .csv file. An empty cell is an absent field.

    `cell_of` gives the function that reads a CSV column's cells, None where there is no such column; `columns` are the names to
    suggest then. The first `skip` rows, readable or not, are read over: a reader that was interrupted goes on there.
    Raises `BadInput` where the file as a whole cannot be read: missing, of another type, in another encoding, or without a correct
    header.
    """
    if path.suffix not in {".jsonl", ".csv"}:
        raise _bad(path, 0, "", "should be a .jsonl or .csv file")
    try:
        with path.open("rb") as raw:
            if raw.peek(2)[:2] in {b"\xff\xfe", b"\xfe\xff"}:
                raise _bad(path, 1, "", "is UTF-16; save it as UTF-8")
            # what is not UTF-8 becomes lone surrogates, so that the rows around it can still be read
            file = TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")
            yield from _jsonl(file, skip) if path.suffix == ".jsonl" else _csv(file, path, cell_of, columns, skip)
    except OSError as error:
        raise _bad(path, 0, "", f"can't be read: {error.strerror}") from None


def _bad(path: Path, line: int, column: str, message: str) -> BadInput:
    return BadInput(InputError(str(path), line, column, message))


def _unreadable(text: str) -> str | None:
    """Why this text cannot be read, or None."""
    if "\0" in text or "\\u0000" in text:
        return "holds a null character"
    if _NOT_UTF8.search(text):
        return "is not UTF-8; save the file as UTF-8"
    return None


def _jsonl(file: TextIO, skip: int) -> Iterator[SourceRow | UnreadableRow]:
    line = 0
    while text := file.readline(ROW_LENGTH_MAX):
        line += 1
        is_too_long = len(text) == ROW_LENGTH_MAX and not text.endswith("\n")
        if is_too_long:
            while text and not text.endswith("\n"):
                text = file.readline(ROW_LENGTH_MAX)
        elif not text.strip():
            continue
        if skip > 0:
            skip -= 1
        elif is_too_long:
            yield UnreadableRow(line, "", f"is longer than {ROW_LENGTH_MAX} characters")
        else:
            yield _json_row(line, text)


def _json_row(line: int, text: str) -> SourceRow | UnreadableRow:
    reason = _unreadable(text)
    if reason is None:
        try:
            data = from_json(text, allow_inf_nan=False)
        except ValueError as error:
            reason = f"is not JSON: {str(error).replace(' at line 1', ' at')}"
        else:
            if isinstance(data, dict):
                return SourceRow(line, data)
            reason = "is not a JSON object"
    return UnreadableRow(line, "", reason, row=text.strip())


def _csv(
    file: TextIO, path: Path, cell_of: Callable[[str], Cell | None], columns: Collection[str], skip: int
) -> Iterator[SourceRow | UnreadableRow]:
    first = file.readline(ROW_LENGTH_MAX)
    delimiter = ";" if ";" in first and "," not in first else ","  # spreadsheets in Belgium write semicolons
    header = next(csv.reader([first], delimiter=delimiter), [])
    cells = _header(path, header, cell_of, columns)
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    line = 2
    while True:
        reason = None
        try:
            texts = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            texts, reason = [], f"is not CSV: {error}"
        if texts or reason:
            if skip > 0:
                skip -= 1
            else:
                yield UnreadableRow(line, "", reason) if reason else _csv_row(line, texts, header, cells)
        line = reader.line_num + 2


def _header(
    path: Path, header: list[str], cell_of: Callable[[str], Cell | None], columns: Collection[str]
) -> list[tuple[list[str], Cell]]:
    """For each column, the path of its value in a row, and the function that reads its cells."""
    if not header:
        raise _bad(path, 1, "", "is empty; the first line names the columns")
    cells, faults = [], []
    for name in header:
        cell = cell_of(name)
        if cell is None:
            faults.append(InputError(str(path), 1, name, f"unknown column{did_you_mean(name, columns)}"))
        else:
            cells.append((name.split("."), cell))
        if header.count(name) > 1 or any(other.startswith(f"{name}.") for other in header):
            faults.append(InputError(str(path), 1, name, "is given twice"))
    if faults:
        raise BadInput(*dict.fromkeys(faults))
    return cells


def _csv_row(line: int, texts: list[str], header: list[str], cells: list[tuple[list[str], Cell]]) -> SourceRow | UnreadableRow:
    if len(texts) != len(header):
        return UnreadableRow(line, "", f"has {len(texts)} cells where the header has {len(header)}", row=texts)
    data: dict[str, Any] = {}
    for name, text, (path, cell) in zip(header, texts, cells, strict=True):
        if not text:
            continue
        try:
            if reason := _unreadable(text):
                raise ValueError(reason)
            value = cell(text)
        except ValueError as error:
            return UnreadableRow(line, name, str(error), text, dict(zip(header, texts, strict=True)))
        place = data
        for step in path[:-1]:
            place = place.setdefault(step, {})
        place[path[-1]] = value
    return SourceRow(line, data)

"""The door for audiences: JSONL and CSV files, or rows inline, become a stream of rows and faults. Nothing is held whole."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TextIO

from pydantic import Field, StringConstraints, ValidationError

from dispatcher.faults import BadInput, Door, InputFault, sentences
from dispatcher.ledger.audience import Fault, Row

Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$")]
CELL_LENGTH_MAX = 1_000_000


class AudienceRow(Door):
    """One line of an audience."""

    recipient: Id
    data: dict[str, Any] = Field(default_factory=dict)


def read_audience(path: Path) -> Iterator[Row | Fault]:
    """The rows of a file, streamed. Raises BadInput where the file as a whole can't be read, at once or while reading."""
    if path.suffix not in (".jsonl", ".csv"):
        raise BadInput(InputFault(str(path), 0, "audience", "an audience is a .jsonl or .csv file"))
    try:
        handle = path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise BadInput(InputFault(str(path), 0, "audience", f"can't be read: {error.strerror}")) from None
    return _stream(handle, path)


def inline(rows: Sequence[Any]) -> Iterator[Row | Fault]:
    """Rows that came with the campaign itself; their place in the list is their line."""
    for line, row in enumerate(rows, start=1):
        yield _row(line, row)


def _stream(handle: TextIO, path: Path) -> Iterator[Row | Fault]:
    with handle:
        try:
            yield from _jsonl(handle) if path.suffix == ".jsonl" else _csv(handle, str(path))
        except UnicodeDecodeError:
            raise BadInput(InputFault(str(path), 0, "", "is not UTF-8 text; save it as UTF-8")) from None
        except csv.Error as error:
            raise BadInput(InputFault(str(path), 0, "", f"is not CSV: {error}")) from None


def _jsonl(handle: TextIO) -> Iterator[Row | Fault]:
    for line, text in enumerate(handle, start=1):
        if text.strip():
            yield _json_row(line, text)


def _json_row(line: int, text: str) -> Row | Fault:
    try:
        return _row(line, json.loads(text))
    except json.JSONDecodeError as error:
        return Fault(line, "", f"is not JSON: {error.msg} at column {error.colno}")
    except RecursionError:
        return Fault(line, "", "is not JSON: nested too deep")


def _csv(handle: TextIO, file: str) -> Iterator[Row | Fault]:
    csv.field_size_limit(CELL_LENGTH_MAX)
    reader = csv.DictReader(handle, strict=True)
    names = reader.fieldnames or ()
    unknown = [name for name in names if name != "recipient" and not name.startswith("data.")]
    if unknown or "recipient" not in names:
        field = unknown[0] if unknown else "recipient"
        raise BadInput(InputFault(file, 1, field, "an audience has the columns recipient and data.<variable>"))
    for cells in reader:
        if None in cells or None in cells.values():
            yield Fault(reader.line_num, "", "has another number of cells than the header")
        else:
            data = {name.removeprefix("data."): cell for name, cell in cells.items() if name != "recipient" and cell != ""}
            yield _row(reader.line_num, {"recipient": cells["recipient"], "data": data})


def _row(line: int, value: Any) -> Row | Fault:
    try:
        row = AudienceRow.model_validate(value)
    except ValidationError as error:
        field, message = sentences(error, AudienceRow)[0]
        return Fault(line, field, message)
    return Row(line, row.recipient, row.data)

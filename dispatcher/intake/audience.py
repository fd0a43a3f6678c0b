"""Audiences from JSONL, CSV and XLSX files, or inline rows: a stream of rows and errors, of any length."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from stat import S_ISREG
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints, ValidationError

from dispatcher.domain.canaries import not_reserved
from dispatcher.domain.notation import Notation, trim
from dispatcher.intake.audience_uploads import assigned_columns
from dispatcher.intake.errors import StrictModel, sentences
from dispatcher.intake.rows import Cell, Columns, UnreadableRow, read_rows
from dispatcher.ledger.campaigns.audience import AudienceError, AudienceFile, AudienceRow
from dispatcher.policy import FileRules

Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$")]
RecipientId = Annotated[Id, AfterValidator(not_reserved)]  # of a recipient from outside
DATA_BYTES_MAX = 64 * 1024


class AudienceRowForm(StrictModel):
    """One line of an audience."""

    recipient: RecipientId
    data: dict[str, Any] = Field(default_factory=dict)


def audience_file(path: Path) -> AudienceFile | None:
    """The file as it now is; None where it cannot be read, or is nothing that can be read twice, such as a pipe."""
    with suppress(OSError, ValueError):
        status = path.stat()
        if S_ISREG(status.st_mode):
            return AudienceFile(str(path.absolute()), status.st_size, status.st_mtime_ns)
    return None


def read_audience(
    path: Path, rules: FileRules, skip: int = 0, assigned: Sequence[str] = ()
) -> Iterator[AudienceRow | AudienceError]:
    """The rows of a file after the first `skip`, streamed, with the columns that are `assigned` to it, or were stored with it,
    if any. Raises BadInput where the file as a whole cannot be read."""
    columns = replace(COLUMNS, by_position=tuple(assigned) or assigned_columns(path))
    for row in read_rows(path, columns, rules, skip):
        if isinstance(row, UnreadableRow):
            yield AudienceError(row.line, row.field, row.reason)
        else:
            yield _row(row.line, row.data, row.notation)


def inline(rows: Sequence[Any]) -> Iterator[AudienceRow | AudienceError]:
    """Rows inside the campaign itself; the position in the list is the line."""
    for line, row in enumerate(rows, start=1):
        yield _row(line, row)


def unstorable(data: Any) -> str | None:
    """Why the ledger cannot store this JSON, or None. PostgreSQL takes no null characters, no lone surrogates and no NaN."""
    try:
        text = json.dumps(data, ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except (ValueError, RecursionError):  # UnicodeEncodeError is a ValueError
        return "holds something that is not JSON text"
    if "\\u0000" in text:
        return "holds a null character"
    return f"is larger than {DATA_BYTES_MAX} bytes" if size > DATA_BYTES_MAX else None


def _cell(column: str) -> Cell | None:
    """How to read the cells of a CSV column: as text; the template's declaration gives them their types."""
    if column == "recipient":
        return trim
    return str if column.startswith("data.") and column.count(".") == 1 else None


COLUMNS = Columns(_cell, "recipient", ("recipient", "data.<variable>"))


def _row(line: int, value: Any, notation: Notation = Notation.JSON) -> AudienceRow | AudienceError:
    try:
        row = AudienceRowForm.model_validate(value)
    except ValidationError as error:
        field, message = sentences(error, AudienceRowForm)[0]
        return AudienceError(line, field, message)
    reason = unstorable(row.data)
    return AudienceError(line, "data", reason) if reason else AudienceRow(line, row.recipient, row.data, notation)

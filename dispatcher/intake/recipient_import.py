"""Import of recipients from files of any length: each row is checked, and the valid ones are written in batches."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from pydantic_core import from_json

from dispatcher.domain.derived_keys import KeyRing
from dispatcher.intake.recipient import BadRecipient, ChannelsBlock, OffersBlock, RecipientForm, parse
from dispatcher.intake.rows import Cell, SourceRow, UnreadableRow, read_rows
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.consent.recipients import Recipient, upsert

__all__ = ["BATCH_ROWS", "ERASED", "BadRecipient", "ImportResult", "RecipientForm", "import_file", "parse", "read_recipients"]

BATCH_ROWS = 2_000
FAULTS_SHOWN = 20
ERASED = "this person was erased; a row that brings them back needs a said_at after that"


# -- CSV ---------------------------------------------------------------------------------------------------------------


def _boolean(text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError("should be true or false")
    return text == "true"


def _json(text: str) -> Any:
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError:
        raise ValueError("is not JSON") from None


def _list(text: str) -> Any:
    return _json(text) if text.startswith("[") else text.split("|")


_CELLS: Mapping[str, Cell] = {
    **dict.fromkeys(
        ("id", "person", "language", "timezone", "birth_date", "email", "phone", "whatsapp", "partner", "said_at"), str
    ),
    **dict.fromkeys(("has_current_account", "object_marketing", "object_profiling"), _boolean),
    **dict.fromkeys(("entities", "purchased"), _list),
    **dict.fromkeys(("push", "offers", "channels", "profile"), _json),
    **{f"offers.{name}": str for name in OffersBlock.model_fields},
    **{f"channels.{name}": _boolean for name in ChannelsBlock.model_fields},
}


def _cell(column: str) -> Cell | None:
    """How to read the cells of a column: by `_CELLS`; lists as JSON, or separated by |."""
    if column.startswith("profile."):
        depth = len(column.split("."))  # a category as JSON, or one variable as text
        return _json if depth == 2 else str if depth == 3 else None
    return _CELLS.get(column)


# -- files -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ImportResult:
    """The result of an import. `faults` are the first rejected rows as (line, field, reason), without values. The reject file
    `rejects` holds all of them with their content; it is None where no row was rejected.
    """

    new: int
    changed: int
    unchanged: int
    rejected: int
    faults: tuple[tuple[int, str, str], ...]
    rejects: Path | None


def read_recipients(path: Path, now: datetime) -> Iterator[tuple[SourceRow, Recipient] | UnreadableRow]:
    """The recipients of a file, streamed, each with its row; an invalid one is an `UnreadableRow`. Raises `BadInput`."""
    for row in read_rows(path, _cell, [*_CELLS, "profile.<category>.<variable>"]):
        if isinstance(row, UnreadableRow):
            yield row
            continue
        try:
            yield row, parse(row.data, now)
        except BadRecipient as error:
            yield UnreadableRow(row.line, error.field, error.reason, _value_at(row.data, error.field), row.data)


def _value_at(data: Any, field: str) -> Any:
    for step in field.split(".") if field else ():
        data = data.get(step) if isinstance(data, dict) else data[int(step)] if isinstance(data, list) else None
    return data if field else None


class _RejectFile:
    """The reject file, created with its first row. The file of an earlier import is deleted first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.first: list[tuple[int, str, str]] = []
        self._file: TextIO | None = None
        path.unlink(missing_ok=True)

    def add(self, bad: UnreadableRow) -> None:
        if self._file is None:  # readable by the owner only: rows are personal data
            self._file = os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8")
        line = json.dumps(asdict(bad), ensure_ascii=False, default=str)
        self._file.write(line.encode("utf-8", "replace").decode() + "\n")  # a row may be rejected for not being UTF-8
        self.count += 1
        if len(self.first) < FAULTS_SHOWN:
            self.first.append((bad.line, bad.field, bad.reason))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """A file to import, the file that its invalid rows go to, and who imports it when."""

    path: Path
    rejects: Path
    actor: str
    now: datetime


def import_file(
    connection: Connection,
    secret: KeyRing,
    request: ImportRequest,
    progress: Callable[[int], None] | None = None,
) -> ImportResult:
    """Import a file in batches, each in its own transaction; `progress` is called with the number of rows done.

    A row replaces the recipient's attributes; `ledger.consent.recipients.upsert` says how its choices count. Invalid rows are
    written to the file of rejects (JSONL: line, field, reason, value, row), and the import goes on. Raises `BadInput` where the
    file as a whole cannot be read.
    """
    counts: Counter[str] = Counter()
    with closing(_RejectFile(request.rejects)) as rejected:
        for batch in _batches(read_recipients(request.path, request.now), rejected):
            result = upsert(connection, secret, [recipient for _, recipient in batch.values()], request.actor, request.now)
            counts.update(new=len(result.new), changed=len(result.changed), unchanged=len(result.unchanged))
            for recipient_id in result.erased:
                row = batch[recipient_id][0]
                rejected.add(UnreadableRow(row.line, "id", ERASED, recipient_id, row.data))
            if progress:
                progress(counts.total() + rejected.count)
    written = request.rejects if rejected.count else None
    return ImportResult(counts["new"], counts["changed"], counts["unchanged"], rejected.count, tuple(rejected.first), written)


def _batches(
    items: Iterable[tuple[SourceRow, Recipient] | UnreadableRow], rejected: _RejectFile
) -> Iterator[dict[str, tuple[SourceRow, Recipient]]]:
    """Valid rows by id, some thousand at a time. A second row for the same person goes into the next batch."""
    batch: dict[str, tuple[SourceRow, Recipient]] = {}
    for item in items:
        if isinstance(item, UnreadableRow):
            rejected.add(item)
            continue
        if len(batch) == BATCH_ROWS or item[1].id in batch:
            yield batch
            batch = {}
        batch[item[1].id] = item
    if batch:
        yield batch

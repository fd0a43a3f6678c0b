"""Import of recipients from files of any length: each row is checked, and the valid ones are written in batches."""

from __future__ import annotations

import gc
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from pydantic_core import from_json

from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.notation import Notation, ambiguous_number, day, trim, truth
from dispatcher.domain.recipient import LANGUAGES
from dispatcher.intake.recipient import (
    IDENTITY,
    BadRecipient,
    ChannelsBlock,
    OffersBlock,
    RecipientForm,
    parse,
)
from dispatcher.intake.refused_opt_outs import RefusedOptOuts, opt_outs_in
from dispatcher.intake.rows import Cell, Columns, SourceRow, UnreadableRow, read_rows
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.consent.recipients import Recipient, record_opt_outs, upsert
from dispatcher.policy import DEFAULT_FILE_RULES, FileRules

__all__ = ["BATCH_ROWS", "ERASED", "BadRecipient", "ImportResult", "RecipientForm", "import_file", "parse", "read_recipients"]

BATCH_ROWS = 2_000
FAULTS_SHOWN = 20
LEAST_KNOWN = "prospect"  # the person kind with the fewest permissions, where a refused row does not say
ERASED = "this person was erased; a row that brings them back needs a said_at after that"


# -- CSV ---------------------------------------------------------------------------------------------------------------


def _word(text: str) -> str:
    return trim(text).casefold()


def _language(text: str) -> str:
    """nl-BE and fr_BE are nl and fr: a spreadsheet's locale is no other language."""
    return re.split("[-_]", _word(text))[0]


def _json(text: str) -> Any:
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError:
        raise ValueError("is not JSON") from None


def _list(text: str) -> Any:
    return _json(text) if text.startswith("[") else [trim(part) for part in text.split("|")]


_CELLS: Mapping[str, Cell] = {
    **dict.fromkeys(("id", "timezone", "email", "phone", "whatsapp", "partner", "said_at", "contract_version"), trim),
    "person": _word,
    "language": _language,
    "birth_date": day,
    **dict.fromkeys(("has_current_account", "object_marketing", "object_profiling"), truth),
    **dict.fromkeys(("entities", "purchased"), _list),
    **dict.fromkeys(("push", "offers", "channels", "profile"), _json),
    **{f"offers.{name}": _word for name in OffersBlock.model_fields},
    **{f"channels.{name}": truth for name in ChannelsBlock.model_fields},
}


def _cell(column: str) -> Cell | None:
    """How to read the cells of a column: by `_CELLS`; lists as JSON, or separated by |."""
    if column.startswith("profile."):
        depth = len(column.split("."))  # a category as JSON, or one variable as text
        return _json if depth == 2 else str if depth == 3 else None
    return _CELLS.get(column)


COLUMNS = Columns(_cell, "id", [*_CELLS, "profile.<category>.<variable>"])


# -- files -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ImportResult:
    """The result of an import: each row is new, changed, unchanged or rejected. `opt_outs` counts the rejected rows whose opt-outs
    were recorded.

    `faults` are the first rejected rows as (line, field, reason), without addresses and names. The reject file `rejects` holds all
    of them with their content; it is None where no row was rejected.
    """

    new: int
    changed: int
    unchanged: int
    rejected: int
    faults: tuple[tuple[int, str, str], ...]
    rejects: Path | None
    opt_outs: int = 0

    @property
    def rows(self) -> int:
        """The rows in the file."""
        return self.new + self.changed + self.unchanged + self.rejected


def read_recipients(path: Path, now: datetime, rules: FileRules) -> Iterator[tuple[SourceRow, Recipient] | UnreadableRow]:
    """The recipients of a file, streamed, each with its row; an invalid one is an `UnreadableRow`. Raises `BadInput`."""
    for row in read_rows(path, COLUMNS, rules):
        if isinstance(row, UnreadableRow):
            yield row
            continue
        yield read_recipient(row, now, rules)


def read_recipient(row: SourceRow, now: datetime, rules: FileRules) -> tuple[SourceRow, Recipient] | UnreadableRow:
    """The recipient in a row, with the row; an `UnreadableRow` for an invalid one."""
    try:
        if row.notation is not Notation.JSON:
            _check_numbers(row.data)
        return row, parse(row.data, now, rules.default_region, rules.contract_versions)
    except BadRecipient as error:
        return UnreadableRow(row.line, error.field, error.reason, _value_at(row.data, error.field), row.data, (row.data,))


def _check_numbers(data: Mapping[str, Any]) -> None:
    """Raise `BadRecipient` for a number in the profile that has two readings. Templates decide later what is a number."""
    profile = data.get("profile")
    for category, variables in profile.items() if isinstance(profile, dict) else ():
        for name, value in variables.items() if isinstance(variables, dict) and category != IDENTITY else ():
            if isinstance(value, str) and (reason := ambiguous_number(value)):
                raise BadRecipient(f"profile.{category}.{name}", reason)


def _nested(reading: Mapping[str, Any]) -> dict[str, Any]:
    """The cells of a row that was not read, nested by the dots in their columns."""
    data: dict[str, Any] = {}
    for column, value in reading.items():
        block, _, name = column.partition(".")
        if name and block in {"offers", "channels"}:
            place = data.setdefault(block, {})
            if isinstance(place, dict):
                place[name] = value
        elif block in {"offers", "channels"} and isinstance(value, str):
            data[block] = value  # "none" is an opt-out of all, and no JSON
            with suppress(ValueError):
                data[block] = from_json(value.encode("utf-8", "replace"))  # it may hold half a surrogate pair
        else:
            data[column] = _CELLS[column](value) if column in {"person", "language"} and isinstance(value, str) else value
    return data


def _value_at(data: Any, field: str) -> Any:
    for step in field.split(".") if field else ():
        data = data.get(step) if isinstance(data, dict) else data[int(step)] if isinstance(data, list) else None
    return data if field else None


class _RejectFile:
    """The reject file, created with its first row. The file of an earlier import is deleted first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.opt_outs = 0
        self.first: list[tuple[int, str, str]] = []
        self._file: TextIO | None = None
        path.unlink(missing_ok=True)

    def add(self, bad: UnreadableRow, recorded: Sequence[str] = ()) -> None:
        """Add a row, and the subjects of its opt-outs that were recorded."""
        if self._file is None:  # readable by the owner only: rows are personal data
            self._file = os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8")
        reason = f"{bad.reason}; its opt-outs were recorded ({', '.join(recorded)})" if recorded else bad.reason
        content = {"line": bad.line, "field": bad.field, "reason": reason, "value": bad.value, "row": bad.row}
        line = json.dumps(content | ({"opt_outs": list(recorded)} if recorded else {}), ensure_ascii=False, default=str)
        self._file.write(line.encode("utf-8", "replace").decode() + "\n")  # a row may be rejected for not being UTF-8
        self.count += 1
        self.opt_outs += bool(recorded)
        if len(self.first) < FAULTS_SHOWN:
            self.first.append((bad.line, bad.field, reason))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """A file to import, the file that its invalid rows go to, who imports it when, and the policy's rules for files."""

    path: Path
    rejects: Path
    actor: str
    now: datetime
    rules: FileRules = DEFAULT_FILE_RULES


def import_file(
    connection: Connection,
    secret: KeyRing,
    request: ImportRequest,
    progress: Callable[[int], None] | None = None,
) -> ImportResult:
    """Import a file in batches, each in its own transaction; `progress` is called with the number of rows done.

    A row replaces the recipient's attributes; `ledger.consent.recipients.upsert` says how its choices count. Invalid rows are
    written to the file of rejects (JSONL: line, field, reason, value, row), and the import goes on. The opt-outs of an invalid row
    are recorded where they and its id can be read: what is wrong with the rest is no reason to go on sending. Raises `BadInput`
    where the file as a whole cannot be read.
    """
    counts: Counter[str] = Counter()
    with closing(_RejectFile(request.rejects)) as rejected, _older_objects_frozen():
        for batch in batches(read_recipients(request.path, request.now, request.rules)):
            result = upsert(connection, secret, [recipient for _, recipient in batch.rows.values()], request.actor, request.now)
            counts.update(new=len(result.new), changed=len(result.changed), unchanged=len(result.unchanged))
            known = record_opt_outs(connection, secret, opt_out_statements(batch.refused.values()), request.actor, request.now)
            for bad, opt_outs in batch.bad:
                rejected.add(bad, recorded_subjects(opt_outs, known))
            for recipient_id in result.erased:
                row = batch.rows[recipient_id][0]
                rejected.add(UnreadableRow(row.line, "id", ERASED, recipient_id, row.data))
            if progress:
                progress(counts.total() + rejected.count)
    written = request.rejects if rejected.count else None
    faults = tuple(sorted(rejected.first))
    return ImportResult(counts["new"], counts["changed"], counts["unchanged"], rejected.count, faults, written, rejected.opt_outs)


@contextmanager
def _older_objects_frozen() -> Iterator[None]:
    """Exempt the objects that are there already from garbage collection. To examine them again and again, while millions of others
    are made, takes a quarter of the time of reading.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def opt_out_statements(refused: Iterable[RefusedOptOuts]) -> list[Recipient]:
    """The people of invalid rows, with nothing but their opt-outs; see `ledger.consent.recipients.record_opt_outs`."""
    return [
        Recipient(opt_outs.id, opt_outs.person or LEAST_KNOWN, opt_outs.language or LANGUAGES[0], changes=opt_outs.changes)
        for opt_outs in refused
    ]


def recorded_subjects(opt_outs: Iterable[RefusedOptOuts], known: Container[str]) -> tuple[str, ...]:
    """The subjects of opt-outs in one invalid row that were recorded, because they are about somebody `known`."""
    return tuple(dict.fromkeys(change.subject for each in opt_outs if each.id in known for change in each.changes))


class RecipientBatch:
    """Rows that are written together: valid ones by id, invalid ones, and the opt-outs of these by id."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[SourceRow, Recipient]] = {}
        self.bad: list[tuple[UnreadableRow, tuple[RefusedOptOuts, ...]]] = []
        self.refused: dict[str, RefusedOptOuts] = {}

    @property
    def last_line(self) -> int:
        """The number of its last line."""
        return max([row.line for row, _ in self.rows.values()] + [bad.line for bad, _ in self.bad])

    def is_full_for(self, ids: Iterable[str]) -> bool:
        """Whether the next row, for these people, goes into the next batch: a person's rows are written in the file's order."""
        is_full = len(self.rows) == BATCH_ROWS or len(self.bad) == BATCH_ROWS
        return is_full or any(each in self.refused or each in self.rows for each in ids)


def batches(items: Iterable[tuple[SourceRow, Recipient] | UnreadableRow]) -> Iterator[RecipientBatch]:
    """Rows some thousand at a time. A second row for the same person goes into the next batch."""
    batch = RecipientBatch()
    for item in items:
        opt_outs = _opt_outs(item) if isinstance(item, UnreadableRow) else {}
        if batch.is_full_for(opt_outs if isinstance(item, UnreadableRow) else (item[1].id,)):
            yield batch
            batch = RecipientBatch()
        if isinstance(item, UnreadableRow):
            batch.bad.append((item, tuple(opt_outs.values())))
            batch.refused |= opt_outs
        else:
            batch.rows[item[1].id] = item
    if batch.rows or batch.bad:
        yield batch


def _opt_outs(bad: UnreadableRow) -> dict[str, RefusedOptOuts]:
    """The opt-outs in an invalid row by the id of the person: more than one where several rows are on its line."""
    people: dict[str, RefusedOptOuts] = {}
    for readings in (bad.readings, *bad.others):
        if (found := opt_outs_in([_nested(reading) for reading in readings])) is not None:
            before = people.get(found.id, found)
            people[found.id] = replace(before, changes=tuple(dict.fromkeys((*before.changes, *found.changes))))
    return people

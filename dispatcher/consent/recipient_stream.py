"""Recipients by the thousand from another system: each line is checked as a row of an import, and has a result of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from dispatcher.consent.line_uploads import OTHER_CONTENT
from dispatcher.consent.recipients import PutStatus
from dispatcher.intake.recipient_import import (
    ERASED,
    RecipientBatch,
    batches,
    opt_out_statements,
    read_recipient,
    recorded_subjects,
)
from dispatcher.intake.rows import SourceRow, UnreadableRow, unreadable_json
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.consent import line_uploads
from dispatcher.ledger.consent.line_uploads import LineUpload
from dispatcher.ledger.consent.recipients import Recipient, record_opt_outs, upsert
from dispatcher.policy import FileRules
from dispatcher.runtime.services import Services

REJECTED = "rejected"
UPLOAD_FIELD = "Upload-Id"  # of a result: the header is wrong, not the line
REPEATED = "repeated"


@dataclass(frozen=True, slots=True)
class StreamLine:
    """A line of a stream as plain data, or why it cannot be read and its text."""

    number: int
    data: dict[str, Any]
    problem: str = ""
    text: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class LineResult:
    """What became of a line.

    `outcome` is as in `PutStatus`; "rejected", with the field and what is wrong with it; or "repeated" where the upload took the
    line before. `opt_outs`: the subjects that were recorded although the line was rejected.
    """

    line: int
    id: str | None
    outcome: str
    field: str = ""
    message: str = ""
    opt_outs: tuple[str, ...] = ()


def put_lines(services: Services, lines: Sequence[StreamLine], actor: str, upload: LineUpload | None = None) -> list[LineResult]:
    """Add or replace the recipients of these lines, in their order. Repeating a line that was applied changes nothing, unless the
    person was changed meanwhile; a line that `upload` has taken is not applied again.

    As in an import, an invalid line does not stop the others, and the opt-outs in it are recorded where they can be read.
    """
    now, rules = services.clock(), services.policy.files
    results: list[LineResult] = []
    rest = lines
    with lend(services.pool) as connection:
        while rest:
            taken = line_uploads.lines_taken(connection, upload) if upload else 0
            if upload and (repeated := [line for line in rest if line.number <= taken]):
                contents = {line.number: line.data for line in repeated}
                same = line_uploads.same_lines(connection, services.secret, upload, contents)
                results += [_repeat(line, now, rules, line.number in same) for line in repeated]
            rest = [line for line in rest if line.number > taken]
            for batch in batches(_read(line, now, rules) for line in rest):
                hashes = _hashes(services, rest, batch.last_line) if upload else {}
                with connection.transaction() if upload else nullcontext():
                    if upload and not line_uploads.advance(connection, upload, taken, hashes, now):
                        break
                    results += _apply(connection, services, batch, actor, now)
                taken = batch.last_line
                rest = [line for line in rest if line.number > taken]
    return sorted(results, key=lambda result: result.line)


def _read(line: StreamLine, now: datetime, rules: FileRules) -> tuple[SourceRow, Recipient] | UnreadableRow:
    if line.problem:
        return unreadable_json(line.number, line.problem, line.text)
    return read_recipient(SourceRow(line.number, line.data), now, rules)


def _hashes(services: Services, lines: Sequence[StreamLine], last: int) -> dict[int, int]:
    return {line.number: line_uploads.line_hash(services.secret.newest, line.data) for line in lines if line.number <= last}


def _repeat(line: StreamLine, now: datetime, rules: FileRules, is_same: bool) -> LineResult:
    """The result of a line that was taken. One that was rejected is rejected again: its first answer may have been lost. One that
    was another line then is rejected, too: it was never applied.
    """
    item = _read(line, now, rules)
    if isinstance(item, UnreadableRow):
        return LineResult(line.number, None, REJECTED, item.field, item.reason)
    if not is_same:
        return LineResult(line.number, item[1].id, REJECTED, UPLOAD_FIELD, OTHER_CONTENT)
    return LineResult(line.number, item[1].id, REPEATED)


def _apply(connection: Connection, services: Services, batch: RecipientBatch, actor: str, now: datetime) -> Iterator[LineResult]:
    written = upsert(connection, services.secret, [recipient for _, recipient in batch.rows.values()], actor, now)
    known = record_opt_outs(connection, services.secret, opt_out_statements(batch.refused.values()), actor, now)
    for recipient_id, (row, _) in batch.rows.items():
        if recipient_id in written.erased:
            yield LineResult(row.line, recipient_id, PutStatus.ERASED, "id", ERASED)
        elif recipient_id in written.new:
            yield LineResult(row.line, recipient_id, PutStatus.NEW)
        else:
            is_changed = recipient_id in written.changed
            yield LineResult(row.line, recipient_id, PutStatus.CHANGED if is_changed else PutStatus.UNCHANGED)
    for bad, opt_outs in batch.bad:
        only = opt_outs[0].id if len(opt_outs) == 1 else None
        yield LineResult(bad.line, only, REJECTED, bad.field, bad.reason, recorded_subjects(opt_outs, known))

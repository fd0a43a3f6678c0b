"""Which lines of a stream were taken, so that an interrupted client goes on where it was and no line is applied twice."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal

from dispatcher.ledger.connection import Connection

ROWS_PER_STEP = 1_000


@dataclass(frozen=True, slots=True)
class LineUpload:
    """A stream of lines under an id of the caller's choice. Two callers may choose the same."""

    caller: str
    kind: Literal["recipients", "preferences"]
    id: str


def lines_taken(connection: Connection, upload: LineUpload) -> int:
    """The number of the last line that was taken; 0 for none."""
    statement = "SELECT lines_taken FROM line_uploads WHERE (caller, kind, id) = (%(caller)s, %(kind)s, %(id)s)"
    row = connection.execute(statement, asdict(upload)).fetchone()
    return int(row[0]) if row else 0


_ADVANCE = """
INSERT INTO line_uploads AS u (caller, kind, id, lines_taken, changed_at)
VALUES (%(caller)s, %(kind)s, %(id)s, %(line)s, %(now)s)
ON CONFLICT (caller, kind, id) DO UPDATE SET lines_taken = excluded.lines_taken, changed_at = excluded.changed_at
WHERE u.lines_taken = %(taken)s
"""


def advance(connection: Connection, upload: LineUpload, taken: int, line: int, now: datetime) -> bool:
    """Take the lines after `taken` up to `line`, in the transaction that applies them. False, and nothing is changed, where another
    call with the same id took lines meanwhile: it may have applied these.
    """
    values = {**asdict(upload), "taken": taken, "line": line, "now": now}
    return connection.execute(_ADVANCE, values).rowcount == 1


def overdue(connection: Connection, before: datetime) -> int:
    """The number of uploads that did not go on since then."""
    row = connection.execute("SELECT count(*) FROM line_uploads WHERE changed_at < %s", (before,)).fetchone()
    return int(row[0]) if row else 0


def delete(connection: Connection, before: datetime, _: datetime) -> int:
    """Delete some of them."""
    some = f"SELECT caller, kind, id FROM line_uploads WHERE changed_at < %s LIMIT {ROWS_PER_STEP}"
    return connection.execute(f"DELETE FROM line_uploads WHERE (caller, kind, id) IN ({some})", (before,)).rowcount

"""Which lines of a stream were taken, so that an interrupted client goes on where it was and no line is applied twice."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from dispatcher.domain.derived_keys import KeyRing, derive
from dispatcher.ledger.connection import Connection

ROWS_PER_STEP = 20  # each has a hash for each of its lines
HASH_BYTES = 8  # of a line: it shows a mistake of the caller, and need not resist a search for collisions


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


def line_hash(key: bytes, data: Mapping[str, Any]) -> int:
    """A keyed hash of what a line says; spaces and the order of fields do not count. A line that cannot be read has no content, and
    is rejected however often it is sent.
    """
    text = json.dumps(data, sort_keys=True).encode()
    return int.from_bytes(hmac.digest(derive(key, "upload line"), text, "sha256")[:HASH_BYTES], signed=True)


def same_lines(
    connection: Connection, secret: KeyRing, upload: LineUpload, lines: Mapping[int, Mapping[str, Any]]
) -> frozenset[int]:
    """Which of these lines, by number, the upload took with this content; all where it took its lines before hashes were stored."""
    rows = connection.execute(_HASHES, {**asdict(upload), "lines": list(lines)}).fetchall() if lines else []
    if rows and not rows[0][2]:
        return frozenset(lines)
    taken = {line: hash_ for line, hash_, _ in rows if line is not None}
    return frozenset(line for line, hash_ in taken.items() if any(line_hash(key, lines[line]) == hash_ for key in secret))


_HASHES = """
SELECT h.line, h.hash, EXISTS (SELECT FROM line_upload_hashes WHERE upload = u.number)
FROM line_uploads u LEFT JOIN line_upload_hashes h ON h.upload = u.number AND h.line = ANY (%(lines)s)
WHERE (u.caller, u.kind, u.id) = (%(caller)s, %(kind)s, %(id)s)
"""
_ADVANCE = """
WITH upload AS (
INSERT INTO line_uploads AS u (caller, kind, id, lines_taken, changed_at)
VALUES (%(caller)s, %(kind)s, %(id)s, %(line)s, %(now)s)
ON CONFLICT (caller, kind, id) DO UPDATE SET lines_taken = excluded.lines_taken, changed_at = excluded.changed_at
WHERE u.lines_taken = %(taken)s
RETURNING number
)
INSERT INTO line_upload_hashes (upload, line, hash)
SELECT upload.number, line, hash FROM upload, unnest(%(lines)s::bigint[], %(hashes)s::bigint[]) AS t (line, hash)
"""


def advance(connection: Connection, upload: LineUpload, taken: int, hashes: Mapping[int, int], now: datetime) -> bool:
    """Take lines after `taken`, at least one, by number with their hashes, in the transaction that applies them. False, and nothing
    is changed, where another call with the same id took lines meanwhile: it may have applied these.
    """
    lines = {"lines": list(hashes), "hashes": list(hashes.values())}
    values = {**asdict(upload), **lines, "taken": taken, "line": max(hashes), "now": now}
    return connection.execute(_ADVANCE, values).rowcount == len(hashes)


def overdue(connection: Connection, before: datetime) -> int:
    """The number of uploads that did not go on since then."""
    row = connection.execute("SELECT count(*) FROM line_uploads WHERE changed_at < %s", (before,)).fetchone()
    return int(row[0]) if row else 0


def delete(connection: Connection, before: datetime, _: datetime) -> int:
    """Delete some of them."""
    some = f"SELECT caller, kind, id FROM line_uploads WHERE changed_at < %s LIMIT {ROWS_PER_STEP}"
    return connection.execute(f"DELETE FROM line_uploads WHERE (caller, kind, id) IN ({some})", (before,)).rowcount

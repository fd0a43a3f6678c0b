"""Loading an audience: its rows become jobs in parts of some thousand, so memory does not grow with the audience."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb

from dispatcher.domain.campaign import Spec
from dispatcher.domain.notation import Notation
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.partitions import ensure_period, period_of

ERRORS_STORED_MAX = 1_000  # of a campaign; a wrong file of 28 MB must not become 444 MB of errors
CHUNK_SIZE = (
    1_000  # jobs per task: enough that the fixed cost per chunk does not matter, few enough that facts are at most a second old
)


@dataclass(frozen=True, slots=True)
class AudienceRow:
    """One valid row of an audience."""

    line: int
    recipient_id: str
    data: Mapping[str, Any]
    notation: Notation = field(default=Notation.JSON, repr=False)  # a digest of version 1 is that of the `repr`


@dataclass(frozen=True, slots=True)
class AudienceError:
    """One invalid row, and what is wrong. `message` holds no personal data."""

    line: int
    field: str
    message: str


@dataclass(frozen=True, slots=True)
class AudienceFile:
    """A file of an audience and its version: who goes on reading it later finds out whether it is still the same."""

    path: str
    size: int
    modified_ns: int


def values_with_links(connection: Connection, no: int, period: int) -> Iterator[Mapping[str, Any]]:
    """The variables of a campaign's jobs that hold a link, streamed in the caller's transaction."""
    with connection.cursor(name="values_with_links") as cursor:
        cursor.execute(
            "SELECT data FROM jobs WHERE period = %s AND campaign_no = %s AND data::text LIKE '%%://%%' ORDER BY chunk, row",
            (period, no),
        )
        for (data,) in cursor:
            yield data


_STAGE = """
    CREATE TEMPORARY TABLE IF NOT EXISTS audience_stage
    (chunk bigint, row integer, line integer, recipient_id text, data jsonb) ON COMMIT DELETE ROWS
"""

# The first row for a recipient is the job. A later one becomes a job that names the first: the policy refuses it as duplicate.
_TAKE_STAGE = """
    INSERT INTO jobs (period, chunk, row, campaign_no, line, recipient_id, repeat_of, data)
    SELECT %(period)s, s.chunk, s.row, %(no)s, s.line, s.recipient_id,
           CASE WHEN earlier.chunk IS NOT NULL THEN format('%%s-%%s-%%s-0', %(period)s, earlier.chunk, earlier.row)
                WHEN s.nth > 1 THEN format('%%s-%%s-%%s-0', %(period)s, s.first_chunk, s.first_row) END,
           s.data
    FROM (
        SELECT *, row_number() OVER person AS nth,
               first_value(chunk) OVER person AS first_chunk, first_value(row) OVER person AS first_row
        FROM audience_stage WINDOW person AS (PARTITION BY recipient_id ORDER BY chunk, row)
    ) s
    LEFT JOIN jobs earlier ON earlier.period = %(period)s AND earlier.campaign_no = %(no)s
          AND earlier.recipient_id = s.recipient_id AND earlier.repeat_of IS NULL
"""


class AudienceLoader:
    """Loads the audience of one campaign, or a part of it, in the caller's transaction. `now` is when the campaign was submitted,
    `rows_written` how many jobs were written before."""

    def __init__(self, connection: Connection, no: int, period: int, spec: Spec, now: datetime, rows_written: int = 0) -> None:
        self._connection = connection
        self._campaign = {"no": no, "period": period}
        self._start = max(spec.send_at or now, now)
        self._rate = _jobs_per_second(spec)
        self._size = chunk_size(spec)
        self.rows_written = rows_written
        self.invalid = 0
        connection.execute(_STAGE)

    def write(self, part: Sequence[AudienceRow | AudienceError]) -> None:
        """Write a part: its valid rows as jobs, the others as errors."""
        self.take([row for row in part if isinstance(row, AudienceRow)])
        self.note([row for row in part if isinstance(row, AudienceError)])

    def take(self, rows: Sequence[AudienceRow]) -> None:
        """Write rows as jobs in new chunks."""
        if not rows:
            return
        parts = [rows[start : start + self._size] for start in range(0, len(rows), self._size)]
        numbers = [
            row[0] for row in self._connection.execute("SELECT nextval('chunk_no') FROM generate_series(1, %s)", (len(parts),))
        ]
        with self._connection.cursor() as cursor:
            cursor.execute("TRUNCATE audience_stage")
            with cursor.copy("COPY audience_stage FROM STDIN") as copy:
                for number, part in zip(numbers, parts, strict=True):
                    for position, row in enumerate(part):
                        copy.write_row((number, position, row.line, row.recipient_id, json.dumps(row.data)))
            cursor.execute(_TAKE_STAGE, self._campaign)
            cursor.executemany(
                "INSERT INTO chunks (period, chunk, campaign_no, size, due_at) VALUES (%s, %s, %s, %s, %s)",
                [
                    (self._campaign["period"], number, self._campaign["no"], len(part), self._due(index))
                    for index, (number, part) in enumerate(zip(numbers, parts, strict=True))
                ],
            )
        self.rows_written += len(rows)

    def _due(self, index: int) -> datetime:
        """When a chunk may start: at once, or later, so that the campaign keeps its rate."""
        if self._rate is None:
            return self._start
        return self._start + timedelta(seconds=(self.rows_written + index * self._size) / self._rate)

    def note(self, errors: Sequence[AudienceError]) -> None:
        """Count invalid rows, and store the campaign's first `ERRORS_STORED_MAX`, for `campaign show` and `campaign export`."""
        if not errors:
            return
        self.invalid += len(errors)
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM audience_faults WHERE campaign_no = %(no)s", self._campaign)
            (stored,) = cursor.fetchone() or (0,)
            with cursor.copy("COPY audience_faults (campaign_no, line, field, message) FROM STDIN") as copy:
                for error in errors[: max(0, ERRORS_STORED_MAX - stored)]:
                    copy.write_row((self._campaign["no"], error.line, error.field, error.message))


def chunk_size(spec: Spec) -> int:
    """Jobs per chunk: at most what the campaign's rate allows in a second, so that no burst exceeds it."""
    rate = _jobs_per_second(spec)
    return CHUNK_SIZE if rate is None else max(1, min(CHUNK_SIZE, int(rate)))


def _jobs_per_second(spec: Spec) -> float | None:
    return None if spec.rate_per_second is None else spec.rate_per_second / spec.messages_per_job


@dataclass(frozen=True, slots=True)
class TriggerPlace:
    """The chunk of a trigger. `fresh` is False where the key was used before, with the same content; `due_at`: not before."""

    period: int
    chunk: int
    fresh: bool
    due_at: datetime


@dataclass(frozen=True, slots=True)
class VersionedSpec:
    """A trigger's spec as JSON, and the version of its template: name -> digest."""

    json: str
    templates: Mapping[str, str]
    send_at: datetime | None = None


def take_trigger(
    connection: Connection,
    key: str,
    digests: Mapping[int, bytes],
    spec: VersionedSpec,
    row: AudienceRow,
    now: datetime,
) -> TriggerPlace | None:
    """Write a trigger as a chunk of one job, once per key. Returns None where the key was used with other content.

    `digests` are those of its content by version; the newest is stored.
    """
    period, due_at = period_of(now), max(spec.send_at or now, now)
    ensure_period(connection, period)
    number = connection.execute(
        """
        WITH taken AS (
            INSERT INTO triggers (key, digest, digest_version, period, chunk, spec, template_digests, created_at)
            VALUES (%(key)s, %(digest)s, %(version)s, %(period)s, nextval('chunk_no'), %(spec)s, %(templates)s, %(now)s)
            ON CONFLICT (key) DO NOTHING RETURNING period, chunk
        ), its_chunk AS (
            INSERT INTO chunks (period, chunk, size, due_at, touched_at, published_at)
            SELECT period, chunk, 1, %(due_at)s, %(published_at)s, %(published_at)s FROM taken
        ), its_job AS (
            INSERT INTO jobs (period, chunk, row, line, recipient_id, data)
            SELECT period, chunk, 0, %(line)s, %(recipient_id)s, %(data)s FROM taken
        )
        SELECT chunk FROM taken
        """,
        {
            "key": key,
            "digest": digests[max(digests)],
            "version": max(digests),
            "period": period,
            "spec": spec.json,
            "templates": Jsonb(dict(spec.templates)),
            "now": now,
            "due_at": due_at,
            "published_at": now if due_at <= now else None,  # the caller publishes it at once, or the clock when it is due
            "line": row.line,
            "recipient_id": row.recipient_id,
            "data": Jsonb(dict(row.data)),
        },
    ).fetchone()
    if number is None:
        return known_trigger(connection, key, digests)
    return TriggerPlace(period, number[0], fresh=True, due_at=due_at)


def known_trigger(connection: Connection, key: str, digests: Mapping[int, bytes]) -> TriggerPlace | None:
    """The chunk of the trigger with this key and content; None where there is none."""
    known = connection.execute(
        "SELECT digest, digest_version, period, chunk, coalesce((spec->>'send_at')::timestamptz, created_at) FROM triggers"
        " WHERE key = %s",
        (key,),
    ).fetchone()
    if known is None or bytes(known[0]) != digests.get(known[1]):
        return None
    return TriggerPlace(known[2], known[3], fresh=False, due_at=known[4])

"""Refused jobs: one row for each call that was refused, with the number of its repeats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.types.json import Jsonb

from dispatcher.domain.refused_job import CAMPAIGN_TASK, TRIGGER_TASK, JobError, RefusalReason, RefusedJob
from dispatcher.ledger.connection import Connection

ROWS_PER_STEP = 5_000


@dataclass(frozen=True, slots=True)
class RefusedJobEntry:
    """A refused job as it is stored. `mended_at`: when a job with its key was accepted after its last refusal."""

    no: int
    task: str
    key: str | None
    reason: RefusalReason
    errors: Sequence[JobError]
    count: int
    first_at: datetime
    last_at: datetime
    closed_at: datetime | None
    closed_by: str | None
    mended_at: datetime | None

    @property
    def is_open(self) -> bool:
        """Whether it still needs a person."""
        return self.closed_at is None and self.mended_at is None


# A misspelt task may have been meant as either.
_MENDED_AT = f"""
    coalesce((SELECT c.created_at FROM campaigns c
              WHERE c.id = r.key AND c.created_at > r.last_at AND r.task <> '{TRIGGER_TASK}'),
             (SELECT t.created_at FROM triggers t
              WHERE t.key = r.key AND t.created_at > r.last_at AND r.task <> '{CAMPAIGN_TASK}'))
"""


def record(connection: Connection, job: RefusedJob, now: datetime) -> bool:
    """Record a refusal. Returns whether it is the first of this call. A repeat opens its row again and has the newest reason."""
    row = connection.execute(
        """
        INSERT INTO refused_jobs AS r (digest, task, key, reason, errors, first_at, last_at)
        VALUES (%(digest)s, %(task)s, %(key)s, %(reason)s, %(errors)s, %(now)s, %(now)s)
        ON CONFLICT (digest) DO UPDATE SET count = r.count + 1, reason = excluded.reason, errors = excluded.errors,
            last_at = greatest(r.last_at, excluded.last_at), closed_at = NULL, closed_by = NULL
        RETURNING count
        """,
        {
            "digest": job.digest,
            "task": job.task,
            "key": job.key,
            "reason": job.reason,
            "errors": Jsonb([[error.field, error.message] for error in job.errors]),
            "now": now,
        },
    ).fetchone()
    return row is not None and row[0] == 1


def newest(connection: Connection, limit: int, only_open: bool) -> list[RefusedJobEntry]:
    """Refused jobs, the one refused last first; with `only_open` those that still need a person."""
    condition = "WHERE closed_at IS NULL AND mended_at IS NULL" if only_open else ""
    rows = connection.execute(
        f"""
        SELECT no, task, key, reason, errors, count, first_at, last_at, closed_at, closed_by, mended_at
        FROM (SELECT r.*, {_MENDED_AT} AS mended_at FROM refused_jobs r) jobs
        {condition} ORDER BY last_at DESC, no DESC LIMIT %s
        """,
        (limit,),
    )
    return [
        RefusedJobEntry(no, task, key, RefusalReason(reason), tuple(JobError(*error) for error in errors), *rest)
        for no, task, key, reason, errors, *rest in rows
    ]


def close(connection: Connection, no: int, actor: str, now: datetime) -> bool:
    """Close a refused job by hand. Returns whether there is one of this number."""
    return bool(
        connection.execute(
            "UPDATE refused_jobs SET closed_by = CASE WHEN closed_at IS NULL THEN %s ELSE closed_by END,"
            " closed_at = coalesce(closed_at, %s) WHERE no = %s",
            (actor, now, no),
        ).rowcount
    )


def count_open(connection: Connection) -> dict[RefusalReason, int]:
    """How many refused jobs need a person, by reason."""
    counts = dict.fromkeys(RefusalReason, 0)
    rows = connection.execute(
        f"SELECT reason, count(*) FROM refused_jobs r WHERE closed_at IS NULL AND {_MENDED_AT} IS NULL GROUP BY 1"
    )
    return counts | {RefusalReason(reason): count for reason, count in rows}


def overdue(connection: Connection, before: datetime) -> int:
    """The number of jobs that were refused last before then."""
    row = connection.execute("SELECT count(*) FROM refused_jobs WHERE last_at < %s", (before,)).fetchone()
    return int(row[0]) if row else 0


def delete(connection: Connection, before: datetime, _: datetime) -> int:
    """Delete some of them."""
    return connection.execute(
        f"DELETE FROM refused_jobs WHERE no IN (SELECT no FROM refused_jobs WHERE last_at < %s LIMIT {ROWS_PER_STEP})", (before,)
    ).rowcount

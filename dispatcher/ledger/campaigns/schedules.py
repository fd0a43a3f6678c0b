"""Recurring campaigns: their definitions, who approved and changed them, and their runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from psycopg.types.json import Jsonb

from dispatcher.ledger.connection import Connection, fetch_all, fetch_one

RUNS_PER_STEP = 1_000  # that retention deletes at once


class ScheduleState(StrEnum):
    """The states of a recurring campaign."""

    AWAITING_APPROVAL = "awaiting_approval"
    ACTIVE = "active"
    PAUSED = "paused"
    ENDED = "ended"


class RunState(StrEnum):
    """The states of a run: it starts a campaign, or says why not."""

    PENDING = "pending"
    STARTED = "started"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class StoredSchedule:
    """A recurring campaign as the ledger has it. `next_at` is None where no run is left."""

    no: int
    id: str
    definition: Mapping[str, Any]
    state: ScheduleState
    submitted_by: str
    approved_by: str | None
    created_at: datetime
    next_at: datetime | None


@dataclass(frozen=True, slots=True)
class ScheduleRun:
    """A run, at the time for which it was planned. `reason` is a code, `message` the same for people."""

    due_at: datetime
    campaign_id: str
    state: RunState
    reason: str | None = None
    message: str = ""
    upload: str | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class ScheduleChange:
    """What somebody did with a recurring campaign."""

    at: datetime
    actor: str
    action: str
    state: ScheduleState


_COLUMNS = "s.no, s.id, s.definition, s.state, s.submitted_by, s.approved_by, s.created_at, s.next_at"
_RUN_COLUMNS = "r.due_at, r.campaign_id, r.state, r.reason, r.message, r.upload, r.sha256"


def _schedule(row: Mapping[str, Any]) -> StoredSchedule:
    return StoredSchedule(**{**row, "state": ScheduleState(row["state"])})


def _run(row: Mapping[str, Any]) -> ScheduleRun:
    return ScheduleRun(**{**row, "state": RunState(row["state"])})


def add(connection: Connection, schedule: StoredSchedule) -> int | None:
    """Write a new definition; its number, or None where the id is taken. `no` is not used."""
    row = connection.execute(
        "INSERT INTO schedules (id, definition, state, submitted_by, created_at, next_at) VALUES (%s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (id) DO NOTHING RETURNING no",
        (
            schedule.id,
            Jsonb(dict(schedule.definition)),
            schedule.state,
            schedule.submitted_by,
            schedule.created_at,
            schedule.next_at,
        ),
    ).fetchone()
    return int(row[0]) if row else None


def find(connection: Connection, schedule_id: str, lock: bool = False) -> StoredSchedule | None:
    """The recurring campaign with this id; locked until the transaction ends, where wanted."""
    statement = f"SELECT {_COLUMNS} FROM schedules s WHERE id = %(id)s{' FOR UPDATE' if lock else ''}"
    row = fetch_one(connection, statement, {"id": schedule_id})
    return _schedule(row) if row else None


def every(connection: Connection) -> list[StoredSchedule]:
    """All recurring campaigns, by id; those that ended come last."""
    statement = f"SELECT {_COLUMNS} FROM schedules s ORDER BY state = 'ended', id"
    return [_schedule(row) for row in fetch_all(connection, statement, {})]


def change(connection: Connection, schedule: StoredSchedule, done: ScheduleChange) -> None:
    """Write the state, the approver and the next run of a locked one, and who did what."""
    connection.execute(
        "UPDATE schedules SET state = %s, approved_by = %s, next_at = %s WHERE no = %s",
        (schedule.state, schedule.approved_by, schedule.next_at, schedule.no),
    )
    note(connection, schedule.no, done)


def note(connection: Connection, no: int, done: ScheduleChange) -> None:
    """Record who did what."""
    connection.execute(
        "INSERT INTO schedule_changes (schedule_no, at, actor, action, state) VALUES (%s, %s, %s, %s, %s)",
        (no, done.at, done.actor, done.action, done.state),
    )


def changes(connection: Connection, no: int) -> list[ScheduleChange]:
    """Who did what, oldest first."""
    rows = connection.execute(
        "SELECT at, actor, action, state FROM schedule_changes WHERE schedule_no = %s ORDER BY at, ctid", (no,)
    )
    return [ScheduleChange(at, actor, action, ScheduleState(state)) for at, actor, action, state in rows]


def runs(connection: Connection, no: int, limit: int) -> list[ScheduleRun]:
    """The latest runs, newest first."""
    statement = f"SELECT {_RUN_COLUMNS} FROM schedule_runs r WHERE schedule_no = %(no)s ORDER BY due_at DESC LIMIT %(limit)s"
    return [_run(row) for row in fetch_all(connection, statement, {"no": no, "limit": limit})]


# -- runs: what is due, and what became of it ---------------------------------------------------------------------------


def lock_due(connection: Connection, now: datetime) -> list[StoredSchedule]:
    """The active ones with a run that is due, locked; not those that another process has locked."""
    statement = f"SELECT {_COLUMNS} FROM schedules s WHERE state = 'active' AND next_at <= %(now)s FOR UPDATE SKIP LOCKED"
    return [_schedule(row) for row in fetch_all(connection, statement, {"now": now})]


def plan(connection: Connection, no: int, planned: Sequence[ScheduleRun], next_at: datetime | None, now: datetime) -> None:
    """Write the runs of a locked one, and when the next one is. A run that is there already stays as it is."""
    connection.execute(
        """
        INSERT INTO schedule_runs (schedule_no, due_at, campaign_id, state, reason, message, settled_at)
        SELECT %(no)s, r.due_at, r.campaign_id, r.state, r.reason, r.message, CASE WHEN r.state <> 'pending' THEN %(now)s END
        FROM unnest(%(due_at)s::timestamptz[], %(campaign_id)s::text[], %(state)s::text[], %(reason)s::text[], %(message)s::text[])
             AS r (due_at, campaign_id, state, reason, message)
        ON CONFLICT DO NOTHING
        """,
        {
            "no": no,
            "now": now,
            **{name: [getattr(run, name) for run in planned] for name in ("due_at", "campaign_id", "state", "reason", "message")},
        },
    )
    connection.execute("UPDATE schedules SET next_at = %s WHERE no = %s", (next_at, no))


def take_pending(connection: Connection, now: datetime, idle_since: datetime) -> list[tuple[StoredSchedule, ScheduleRun]]:
    """The pending runs of active ones that no other process has taken since then; they are taken."""
    rows = fetch_all(
        connection,
        f"""
        UPDATE schedule_runs r SET taken_at = %(now)s FROM schedules s
        WHERE s.no = r.schedule_no AND s.state = 'active' AND r.state = 'pending'
          AND (r.taken_at IS NULL OR r.taken_at < %(idle_since)s)
        RETURNING {_COLUMNS}, r.due_at, r.campaign_id, r.state AS run_state, r.reason, r.message, r.upload, r.sha256
        """,
        {"now": now, "idle_since": idle_since},
    )
    names = ("due_at", "campaign_id", "reason", "message", "upload", "sha256")
    return [
        (
            _schedule({name: value for name, value in row.items() if name not in (*names, "run_state")}),
            _run({**{name: row[name] for name in names}, "state": row["run_state"]}),
        )
        for row in rows
    ]


def skip_lost(connection: Connection, restored_at: datetime, reason: str, now: datetime) -> int:
    """Skip the pending runs that were due before a restore of the ledger was noticed and whose campaign it lacks: they may have run
    in the time that it lost. Returns their number."""
    return connection.execute(
        """
        UPDATE schedule_runs r SET state = 'skipped', reason = %(reason)s, settled_at = %(now)s,
               message = 'it may have run before the ledger was restored: if not, submit it as a campaign'
        WHERE r.state = 'pending' AND r.due_at <= %(restored_at)s
          AND NOT EXISTS (SELECT FROM campaigns c WHERE c.id = r.campaign_id)
        """,
        {"restored_at": restored_at, "reason": reason, "now": now},
    ).rowcount


def last_sha256(connection: Connection, no: int) -> str | None:
    """The hash of the audience of the last run that started."""
    row = connection.execute(
        "SELECT sha256 FROM schedule_runs WHERE schedule_no = %s AND state = 'started' ORDER BY due_at DESC LIMIT 1", (no,)
    ).fetchone()
    return row[0] if row else None


def choose(connection: Connection, no: int, run: ScheduleRun) -> None:
    """Record the audience of a run before its campaign is submitted: after a crash the same one is taken."""
    connection.execute(
        "UPDATE schedule_runs SET upload = %s, sha256 = %s WHERE schedule_no = %s AND due_at = %s",
        (run.upload, run.sha256, no, run.due_at),
    )


def settle(connection: Connection, no: int, run: ScheduleRun, now: datetime) -> None:
    """Record what became of a pending run."""
    connection.execute(
        "UPDATE schedule_runs SET state = %s, reason = %s, message = %s, settled_at = %s"
        " WHERE schedule_no = %s AND due_at = %s AND state = 'pending'",
        (run.state, run.reason, run.message, now, no, run.due_at),
    )


def to_release(connection: Connection, since: datetime) -> list[tuple[str, str]]:
    """Campaigns of runs that wait for a release only because they are large, and the person who approved the definition.

    Not one with a note, which has unreadable rows or was edited, nor one with more recipients than `audience_max`.
    """
    rows = connection.execute(
        """
        SELECT c.id, s.approved_by FROM schedule_runs r JOIN schedules s ON s.no = r.schedule_no
        JOIN campaigns c ON c.id = r.campaign_id
        WHERE r.state = 'started' AND r.settled_at >= %s AND c.state = 'awaiting_release' AND c.note = ''
          AND s.approved_by IS NOT NULL AND coalesce(jsonb_array_length(c.spec->'seeds'), 0) = 0
          AND (SELECT coalesce(sum(size), 0) FROM chunks k WHERE k.period = c.period AND k.campaign_no = c.no)
              <= coalesce((s.definition->>'audience_max')::bigint, 9223372036854775807)
        """,
        (since,),
    )
    return [(campaign_id, approved_by) for campaign_id, approved_by in rows]


def overdue(connection: Connection, before: datetime) -> int:
    """The number of runs that were settled before then."""
    row = connection.execute("SELECT count(*) FROM schedule_runs WHERE settled_at < %s", (before,)).fetchone()
    return int(row[0]) if row else 0


def forget(connection: Connection, before: datetime, _: datetime) -> int:
    """Delete some of them."""
    return connection.execute(
        "DELETE FROM schedule_runs WHERE (schedule_no, due_at) IN"
        " (SELECT schedule_no, due_at FROM schedule_runs WHERE settled_at < %s LIMIT %s)",
        (before, RUNS_PER_STEP),
    ).rowcount

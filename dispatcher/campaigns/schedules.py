"""Recurring campaigns for those who run the program: add, list, show, approve, pause, resume and end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any

from dispatcher.campaigns import audience_fetch
from dispatcher.campaigns.drafts import check_names
from dispatcher.campaigns.submission import validation_context
from dispatcher.domain.errors import ScheduleConflict, UnknownSchedule
from dispatcher.domain.principal import Entities, is_same_principal
from dispatcher.domain.run_times import run_id, run_times
from dispatcher.intake.schedule import AudienceUrlPattern, Schedule, parse_schedule, read_schedule, stored_schedule
from dispatcher.ledger.campaigns import schedules
from dispatcher.ledger.campaigns.schedules import RunState, ScheduleChange, ScheduleRun, ScheduleState, StoredSchedule
from dispatcher.ledger.connection import lend
from dispatcher.ledger.maintenance import policies
from dispatcher.runtime.services import Services

__all__ = ["RunState", "Schedule", "ScheduleChange", "ScheduleRun", "ScheduleState", "StoredSchedule"]

RUNS_SHOWN = 20
NEXT_SHOWN = 5


class ScheduleAction(StrEnum):
    """What a person can do to a recurring campaign."""

    APPROVE = "approve"
    PAUSE = "pause"
    RESUME = "resume"
    END = "end"


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run that is to come."""

    at: datetime
    campaign_id: str


@dataclass(frozen=True, slots=True)
class ScheduleStatus:
    """A recurring campaign with its next runs, its latest ones, and who did what."""

    schedule: StoredSchedule
    next_runs: tuple[PlannedRun, ...]
    runs: tuple[ScheduleRun, ...] = ()
    changes: tuple[ScheduleChange, ...] = ()

    @property
    def state(self) -> ScheduleState:
        """Its state; one without any further run has ended."""
        is_over = self.schedule.state is ScheduleState.ACTIVE and self.schedule.next_at is None
        return ScheduleState.ENDED if is_over else self.schedule.state


def read(services: Services, path: Path) -> Schedule:
    """The definition in a YAML file. Raises `BadInput`."""
    return read_schedule(path, validation_context(services))


def parse(services: Services, form: Mapping[str, Any]) -> Schedule:
    """A definition from JSON. Raises `BadInput`."""
    return parse_schedule(form, validation_context(services))


def add(services: Services, schedule: Schedule, actor: str) -> ScheduleStatus:
    """Add a definition; the same one again changes nothing. Where the policy says so, it waits for approval by somebody else.

    Raises `ScheduleConflict` where its id has another definition, `BadInput` for a URL from which nothing may be fetched, and
    `PolicyNotInForce`.
    """
    if isinstance(schedule.audience, AudienceUrlPattern):
        audience_fetch.check_url(services, schedule.audience.at(services.clock().date()))
    now, form = services.clock(), schedule.form
    needs_approval = services.policy.schedules.approval == "definition"
    state = ScheduleState.AWAITING_APPROVAL if needs_approval else ScheduleState.ACTIVE
    stored = StoredSchedule(0, form.id, schedule.definition, state, actor, None, now, next_run(schedule, now))
    with lend(services.pool) as connection, connection.transaction():
        policies.require_in_force(connection, services.policy.digest)
        no = schedules.add(connection, stored)
        if no is not None:
            schedules.note(connection, no, ScheduleChange(now, actor, "add", state))
        else:
            known = schedules.find(connection, form.id)
            if known is None or known.definition != schedule.definition:
                raise ScheduleConflict(f"{form.id} has another definition already; end it, and give this one an id of its own")
    return status(services, form.id)


def every(services: Services, entities: Entities = None) -> list[ScheduleStatus]:
    """The recurring campaigns of these entities, each with its next run."""
    with lend(services.pool) as connection:
        shown = [each for each in schedules.every(connection) if _is_visible(services, each, entities)]
    return [ScheduleStatus(each, _next_runs(each, services.clock(), 1)) for each in shown]


def entity_of(services: Services, definition: Mapping[str, Any]) -> str | None:
    """The entity of a definition: that of its campaign, or else of the template; None where the template is gone."""
    form = definition.get("campaign") or {}
    template = next(iter(check_names(form)), "")
    return form.get("entity") or (services.catalog[template].entity if template in services.catalog else None)


def _is_visible(services: Services, stored: StoredSchedule, entities: Entities) -> bool:
    return entities is None or entity_of(services, stored.definition) in entities


def status(services: Services, schedule_id: str, entities: Entities = None) -> ScheduleStatus:
    """One recurring campaign of these entities. Raises `UnknownSchedule`."""
    with lend(services.pool) as connection:
        stored = schedules.find(connection, schedule_id)
        if stored is None or not _is_visible(services, stored, entities):
            raise UnknownSchedule(schedule_id)
        return ScheduleStatus(
            stored,
            _next_runs(stored, services.clock(), NEXT_SHOWN),
            tuple(schedules.runs(connection, stored.no, RUNS_SHOWN)),
            tuple(schedules.changes(connection, stored.no)),
        )


def act(services: Services, schedule_id: str, action: ScheduleAction, actor: str, entities: Entities = None) -> ScheduleStatus:
    """Approve, pause, resume or end. One that is in the wanted state already needs no change.

    Campaigns that its runs have started go on. Runs that fall into a pause do not take place. Raises `UnknownSchedule` and
    `ScheduleConflict`.
    """
    now = services.clock()
    with lend(services.pool) as connection, connection.transaction():
        stored = schedules.find(connection, schedule_id, lock=True)
        if stored is None or not _is_visible(services, stored, entities):
            raise UnknownSchedule(schedule_id)
        changed = _changed(stored, action, actor, now)
        if changed is not stored:
            schedules.change(connection, changed, ScheduleChange(now, actor, action, changed.state))
    return status(services, schedule_id)


def _changed(stored: StoredSchedule, action: ScheduleAction, actor: str, now: datetime) -> StoredSchedule:
    """The schedule after an action; the same object where nothing changes. Raises `ScheduleConflict`."""
    state = stored.state
    if action is ScheduleAction.APPROVE:
        return _approved(stored, actor, now)
    if action is ScheduleAction.END:
        return stored if state is ScheduleState.ENDED else replace(stored, state=ScheduleState.ENDED, next_at=None)
    wanted = ScheduleState.PAUSED if action is ScheduleAction.PAUSE else ScheduleState.ACTIVE
    if state is wanted:
        return stored
    if state not in (ScheduleState.ACTIVE, ScheduleState.PAUSED):
        raise ScheduleConflict(f"cannot {action} a recurring campaign that is {state}")
    next_at = next_run(stored_schedule(stored.definition), now) if wanted is ScheduleState.ACTIVE else stored.next_at
    return replace(stored, state=wanted, next_at=next_at)


def _approved(stored: StoredSchedule, actor: str, now: datetime) -> StoredSchedule:
    if stored.approved_by is not None and stored.state is not ScheduleState.ENDED:
        return stored
    if stored.state is ScheduleState.ENDED:
        raise ScheduleConflict("cannot approve a recurring campaign that is ended")
    if not actor.strip() or is_same_principal(actor, stored.submitted_by):
        raise ScheduleConflict(f"it was submitted by {stored.submitted_by or 'nobody known'}: somebody else has to approve it")
    state = ScheduleState.ACTIVE if stored.state is ScheduleState.AWAITING_APPROVAL else stored.state
    return replace(stored, state=state, approved_by=actor, next_at=next_run(stored_schedule(stored.definition), now))


def next_run(schedule: Schedule, after: datetime) -> datetime | None:
    """The time of the first run after a moment; None where there is none before its end."""
    return next(iter(times_after(schedule, after, 1)), None)


def times_after(schedule: Schedule, after: datetime, count: int) -> list[datetime]:
    """The times of the next runs after a moment, up to its end."""
    form = schedule.form
    times = islice(run_times(form.cron, form.zone, after), count)
    return [at for at in times if form.ends_at is None or at <= form.ends_at]


def _next_runs(stored: StoredSchedule, now: datetime, count: int) -> tuple[PlannedRun, ...]:
    if stored.state is ScheduleState.ENDED or stored.next_at is None:
        return ()
    schedule = stored_schedule(stored.definition)
    return tuple(PlannedRun(at, run_id(stored.id, at, schedule.form.zone)) for at in times_after(schedule, now, count))

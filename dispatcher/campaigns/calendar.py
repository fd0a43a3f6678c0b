"""What is planned: campaigns and runs of recurring campaigns, by local day."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from dispatcher.campaigns.drafts import check_names
from dispatcher.campaigns.schedules import ScheduleState, entity_of, next_run
from dispatcher.domain.principal import Principal, Right
from dispatcher.domain.run_times import run_id
from dispatcher.intake.schedule import stored_schedule
from dispatcher.ledger.campaigns import planned, schedules
from dispatcher.ledger.connection import lend
from dispatcher.runtime.services import Services

RUNS_MAX = 200  # of one recurring campaign in a month


@dataclass(frozen=True, slots=True)
class CalendarEntry:
    """A campaign, or a run that is to come. `at` is in UTC; `state` is the campaign's, "run", or "run awaiting approval".

    `entity` is None for a run whose template is gone.
    """

    at: datetime
    id: str
    state: str
    entity: str | None
    template: str = ""
    audience: int | None = None
    rate_per_second: float | None = None
    schedule: str | None = None


def between(services: Services, begin: datetime, end: datetime) -> list[CalendarEntry]:
    """The campaigns that start from `begin` to before `end`, and the runs to come, in order."""
    with lend(services.pool) as connection:
        campaigns = planned.between(connection, begin, end)
        recurring = schedules.every(connection)
    entries = [
        CalendarEntry(
            each.at, each.id, each.state.value, each.spec.entity, each.spec.template, each.audience, each.spec.rate_per_second
        )
        for each in campaigns
    ]
    known = {entry.id for entry in entries}
    for stored in recurring:
        entries += [each for each in _runs(services, stored, begin, end) if each.id not in known]
    return sorted(entries, key=lambda entry: (entry.at, entry.id))


def _runs(services: Services, stored: schedules.StoredSchedule, begin: datetime, end: datetime) -> Iterator[CalendarEntry]:
    """The runs of a recurring campaign that are to come in this time."""
    if stored.state not in (ScheduleState.ACTIVE, ScheduleState.AWAITING_APPROVAL):
        return
    schedule = stored_schedule(stored.definition)
    form = schedule.form.campaign
    templates = check_names(form)
    template = templates[0] if templates else ""
    entity = entity_of(services, stored.definition)
    state = "run" if stored.state is ScheduleState.ACTIVE else "run awaiting approval"
    at: datetime | None = max(begin, services.clock()) - timedelta(seconds=1)
    for _ in range(RUNS_MAX):
        at = next_run(schedule, at) if at is not None else None
        if at is None or at >= end:
            return
        yield CalendarEntry(at, run_id(stored.id, at, schedule.form.zone), state, entity, template, schedule=stored.id)


def may_see(principal: Principal, entry: CalendarEntry) -> bool:
    """Whether somebody may see an entry; one without a known entity only who may see all."""
    return principal.may(Right.CONSOLE, entry.entity) and (entry.entity is not None or principal.entities is None)


def month_bounds(first: date, zone: str) -> tuple[datetime, datetime]:
    """The beginning and the end of a local month, in UTC."""
    place = ZoneInfo(zone)
    after = (first.replace(day=28) + timedelta(days=4)).replace(day=1)
    begin, end = (datetime(day.year, day.month, 1, tzinfo=place).astimezone(UTC) for day in (first, after))
    return begin, end


def weeks_of(first: date) -> list[list[date]]:
    """The weeks of a month, each from Monday to Sunday, with the days of the months around it."""
    monday = first - timedelta(days=first.weekday())
    days = [monday + timedelta(days=number) for number in range(42)]
    weeks = [days[start : start + 7] for start in range(0, 42, 7)]
    return [week for week in weeks if any((day.year, day.month) == (first.year, first.month) for day in week)]

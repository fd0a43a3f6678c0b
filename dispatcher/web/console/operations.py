"""The console's page for operations: what stands still, the last heartbeat of each component, and the load of the last hour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from dispatcher.domain.errors import LedgerUnavailable
from dispatcher.domain.principal import Right, require
from dispatcher.maintenance import alerting, recent_load
from dispatcher.maintenance.heartbeats import BEAT
from dispatcher.maintenance.recent_load import ProviderLoad, ProviderMinute, RecentLoad
from dispatcher.maintenance.standstills import SystemState, examine, is_silent, lanes
from dispatcher.runtime.services import Services
from dispatcher.web.console.entity_limits import visible_standstills
from dispatcher.web.console.live import LIVE
from dispatcher.web.console.login import FormToken, Operator, check_form_token
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.pages.console import page

router = APIRouter(prefix="/operations", default_response_class=HTMLResponse)

REFRESH_SECONDS = 5
ALERTS_SHOWN = 20
SLOW = 0.95  # the share of answers that came within the time shown


@dataclass(frozen=True, slots=True)
class ComponentRow:
    """Beat or a lane. `tasks` and `oldest_seconds` are None for beat, and where the broker does not say."""

    name: str
    seen_at: datetime | None
    age_seconds: float | None
    process: str
    is_silent: bool
    tasks: int | None = None
    oldest_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart and its table: a column for each series, a row for each minute. None: there was nothing to measure."""

    title: str
    series: Sequence[str]
    rows: Sequence[tuple[datetime, Sequence[int | None]]]


@dataclass(frozen=True, slots=True)
class ProviderRow:
    """A provider on a channel in the last hour. `minute` is its last complete minute; times are in seconds."""

    name: str
    minute: int
    total: ProviderMinute
    median: float | None
    slow: float | None
    open_until: datetime | None  # None while the circuit breakers are closed


@router.get("", dependencies=[LIVE])
def operations_page(operator: Operator, services: ServicesDependency, still: bool = False) -> str:
    """Engines, beat and lanes, with what waits in each; works while the database or the broker does not answer."""
    entities = operator.principal.entities
    state = examine(services)
    state = replace(state, findings=visible_standstills(services, entities, state.findings))
    load = _last_hour(services) if state.counts is not None else None
    return page(
        "operations.html",
        operator=operator,
        state=state,
        components=list(_components(state)),
        load=load,
        charts=list(_charts(load)) if load else [],
        providers=[_provider_row(each, load, state.looked_at) for each in load.providers] if load else [],
        alerts=visible_standstills(services, entities, alerting.newest(services, ALERTS_SHOWN)) if state.counts is not None else [],
        refresh_seconds=None if still else REFRESH_SECONDS,
    )


@router.post("/alerts/{number}")
def acknowledge(operator: Operator, number: int, services: ServicesDependency, form_token: FormToken = "") -> Response:
    """Take care of an open alert."""
    check_form_token(operator, form_token)
    require(operator.principal, Right.OPERATE)
    alerting.acknowledge(services, number, operator.principal.id)
    return RedirectResponse("/console/operations", HTTPStatus.SEE_OTHER)


def _last_hour(services: Services) -> RecentLoad | None:
    try:
        return recent_load.last_hour(services)
    except LedgerUnavailable:
        return None


def _charts(load: RecentLoad) -> Iterator[Chart]:
    names = [f"{each.channel} · {each.provider}" for each in load.providers]
    if names:
        accepted = [
            (at, [each.minutes[at].accepted if at in each.minutes else 0 for each in load.providers]) for at in load.minutes
        ]
        yield Chart("Messages that providers accepted, by minute", names, accepted)
        slow = [(at, [_slow_milliseconds(each.minutes.get(at)) for each in load.providers]) for at in load.minutes]
        yield Chart("Time in which 95 % of a provider’s answers came, in milliseconds", names, slow)
    lanes = sorted({lane for tasks in load.lanes.values() for lane, waiting in tasks.items() if waiting})
    if lanes:
        waiting = [(at, [load.lanes[at].get(lane, 0) if at in load.lanes else None for lane in lanes]) for at in load.minutes]
        yield Chart("Tasks that waited in a lane, the most in each minute", lanes, waiting)


def _slow_milliseconds(minute: ProviderMinute | None) -> int | None:
    seconds = recent_load.quantile(minute.answers, SLOW) if minute else None
    return None if seconds is None else round(seconds * 1_000)


def _provider_row(provider: ProviderLoad, load: RecentLoad, now: datetime) -> ProviderRow:
    total, last = provider.total, provider.minutes.get(load.minutes[-1])
    return ProviderRow(
        f"{provider.channel} · {provider.provider}",
        last.accepted if last else 0,
        total,
        recent_load.quantile(total.answers, 0.5),
        recent_load.quantile(total.answers, SLOW),
        total.open_until if total.open_until and total.open_until > now else None,
    )


def _components(state: SystemState) -> Iterator[ComponentRow]:
    now = state.looked_at
    for name in (BEAT, *lanes()):
        heartbeat, waiting = state.heartbeats.get(name), state.around.lanes.get(name)
        oldest = waiting.oldest_at if waiting else None
        yield ComponentRow(
            name,
            heartbeat.seen_at if heartbeat else None,
            max(0.0, (now - heartbeat.seen_at).total_seconds()) if heartbeat else None,
            heartbeat.process if heartbeat and name != BEAT else "",
            is_silent(heartbeat, now),
            waiting.tasks if waiting else None,
            max(0.0, (now - datetime.fromtimestamp(oldest, UTC)).total_seconds()) if oldest else None,
        )

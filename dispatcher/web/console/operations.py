"""The console's page for operations: what stands still, and the last heartbeat of each component."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from dispatcher.domain.principal import Right, require
from dispatcher.maintenance import alerting
from dispatcher.maintenance.heartbeats import BEAT
from dispatcher.maintenance.standstills import SystemState, examine, is_silent, lanes
from dispatcher.web.console.entity_limits import visible_standstills
from dispatcher.web.console.live import LIVE
from dispatcher.web.console.login import FormToken, Operator, check_form_token
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.pages.console import page

router = APIRouter(prefix="/operations", default_response_class=HTMLResponse)

REFRESH_SECONDS = 5
ALERTS_SHOWN = 20


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


@router.get("", dependencies=[LIVE])
def operations_page(operator: Operator, services: ServicesDependency, still: bool = False) -> str:
    """Engines, beat and lanes, with what waits in each; works while the database or the broker does not answer."""
    entities = operator.principal.entities
    state = examine(services)
    state = replace(state, findings=visible_standstills(services, entities, state.findings))
    return page(
        "operations.html",
        operator=operator,
        state=state,
        components=list(_components(state)),
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

"""The console's pages of recurring campaigns: when they run next, and what became of their latest runs."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from dispatcher.campaigns import schedules
from dispatcher.web.console.login import Operator
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.pages.console import page

router = APIRouter(prefix="/schedules", default_response_class=HTMLResponse)


@router.get("")
def schedules_page(operator: Operator, services: ServicesDependency) -> str:
    """All recurring campaigns."""
    return page("schedules.html", operator=operator, statuses=schedules.every(services, operator.principal.entities))


@router.get("/{schedule_id}")
def schedule_page(operator: Operator, schedule_id: str, services: ServicesDependency) -> str:
    """One recurring campaign, with its next runs, its latest ones, and who did what."""
    status = schedules.status(services, schedule_id, operator.principal.entities)
    return page("schedule.html", operator=operator, status=status)

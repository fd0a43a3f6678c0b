"""The calendar: a month of campaigns and of runs to come."""

from __future__ import annotations

from collections import defaultdict
from datetime import date, timedelta
from http import HTTPStatus
from zoneinfo import ZoneInfo

from fastapi import APIRouter, HTTPException
from fastapi.responses import HTMLResponse

from dispatcher.campaigns import calendar
from dispatcher.web.console.login import Operator
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.pages.console import page

router = APIRouter(default_response_class=HTMLResponse)


@router.get("/calendar")
def calendar_page(operator: Operator, services: ServicesDependency, month: str = "") -> str:
    """What is planned in a month, by local day; `month` is such as 2026-12."""
    zone = operator.viewer.zone
    today = services.clock().astimezone(ZoneInfo(zone)).date()
    try:
        first = date.fromisoformat(f"{month}-01") if month else today.replace(day=1)
    except ValueError:
        raise HTTPException(HTTPStatus.NOT_FOUND, "there is no such month") from None
    if not 1971 <= first.year <= 2199:
        raise HTTPException(HTTPStatus.NOT_FOUND, "there is no such month")
    by_day = defaultdict(list)
    for entry in calendar.between(services, *calendar.month_bounds(first, zone)):
        if calendar.may_see(operator.principal, entry):
            local = entry.at.astimezone(ZoneInfo(zone))
            by_day[local.date()].append(entry)
    return page(
        "calendar.html",
        operator=operator,
        first=first,
        before=(first - timedelta(days=1)).replace(day=1),
        after=(first + timedelta(days=31)).replace(day=1),
        weeks=calendar.weeks_of(first),
        by_day=dict(by_day),
        today=today,
        zone=zone,
    )

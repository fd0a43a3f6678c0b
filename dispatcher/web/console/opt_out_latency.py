"""The console's page of the opt-out latency, as measured with canary recipients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from dispatcher.domain.canaries import OptOutWay
from dispatcher.maintenance.canaries import service_level
from dispatcher.web.console.live import LIVE
from dispatcher.web.console.login import Operator
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.pages.console import page

router = APIRouter(prefix="/opt-out-latency", default_response_class=HTMLResponse)

REFRESH_SECONDS = 30
DAYS_MAX = 400
PERIODS: Mapping[int, str] = {1: "1 day", 7: "7 days", 30: "30 days", 90: "90 days"}
WAYS: Mapping[OptOutWay, str] = {
    OptOutWay.ONE_CLICK: "One-click unsubscribe",
    OptOutWay.PREFERENCE_CENTRE: "Preference centre",
    OptOutWay.API: "API",
    OptOutWay.STOP_REPLY: "STOP reply",
    OptOutWay.PROVIDER_EVENT: "Provider event",
    OptOutWay.BRANCH: "Branch",
}


@router.get("", dependencies=[LIVE])
def opt_out_latency_page(
    operator: Operator,
    services: ServicesDependency,
    days: Annotated[int, Query(ge=1, le=DAYS_MAX)] = 1,
    way: OptOutWay | Literal[""] = "",
    still: bool = False,
) -> str:
    """Percentiles by way out and over time, late opt-outs, and why something was not measured."""
    found = service_level.latency(services, days, OptOutWay(way) if way else None)
    return page(
        "opt_out_latency.html",
        operator=operator,
        found=found,
        is_on=services.canaries is not None,
        names={each.value: name for each, name in WAYS.items()},
        days=days,
        way=way,
        periods=PERIODS,
        measured=sum(each.measured for each in found.by_way),
        arrival_max=max((each.arrival_max for each in found.by_way if each.arrival_max is not None), default=None),
        late_count=sum(each.late for each in found.by_way),
        refresh_seconds=None if still else REFRESH_SECONDS,
    )

"""For load balancers: whether the process runs, and whether it can work."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from dispatcher.maintenance.metrics import ping
from dispatcher.maintenance.standstills import Standstill, examine
from dispatcher.web.api.query_parameters import known_query_parameters
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.errors import problem_responses

router = APIRouter(tags=["health"], dependencies=[Depends(known_query_parameters)], responses=problem_responses(422))
WAIT_SECONDS_MAX = 2.0  # load balancers ask every few seconds


@router.get("/healthz", response_description="It runs")
async def check_process() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


class Readiness(BaseModel):
    """`standstills`: the kinds of what stands still elsewhere. This process accepts opt-outs and campaigns all the same."""

    status: Literal["ok"] = "ok"
    standstills: list[Standstill]


@router.get("/readyz", response_description="It can work", responses=problem_responses(503))
def check_readiness(services: ServicesDependency) -> Readiness:
    """The ledger answers too; 503 while it does not. Without broker, beat or workers, work is delayed, but requests are accepted:
    `standstills` says what stands still."""
    ping(services, WAIT_SECONDS_MAX)
    kinds = {finding.kind for finding in examine(services).findings}
    return Readiness(standstills=sorted(kinds))

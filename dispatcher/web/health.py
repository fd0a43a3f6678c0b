"""For load balancers: is the process alive, and can it work."""

from __future__ import annotations

from fastapi import APIRouter

from dispatcher.ledger.connection import lend
from dispatcher.ledger.maintenance.metrics import ping
from dispatcher.web.dependencies import ServicesHere
from dispatcher.web.errors import answers

router = APIRouter(tags=["health"])
WAIT_SECONDS_MAX = 2.0  # load balancers ask every few seconds


@router.get("/healthz")
async def alive() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz", responses=answers(503))
def ready(services: ServicesHere) -> dict[str, str]:
    """The ledger answers too; 503 while it does not. A broker that is away delays work, but stops nobody from bringing it."""
    with lend(services.pool, WAIT_SECONDS_MAX) as connection:
        ping(connection)
    return {"status": "ok"}

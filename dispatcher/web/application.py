"""The application, put together from one router per audience."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from fastapi import FastAPI

from dispatcher import __version__
from dispatcher.house import House
from dispatcher.ledger.chunks import Due
from dispatcher.web import unsubscribe


class Broker(Protocol):
    """How work is put on the broker; `dispatcher.tasks` is one."""

    def publish(self, dues: Iterable[Due]) -> None:
        """Put chunks on their lanes."""
        ...

    def publish_events(self) -> None:
        """Say that provider events have come in."""
        ...


def create(house: House, broker: Broker) -> FastAPI:
    """The application for a house. Routers find both in `request.app.state`."""
    application = FastAPI(title="dispatcher", version=__version__, openapi_url="/openapi.json")
    application.state.house = house
    application.state.broker = broker
    application.include_router(unsubscribe.router)
    return application

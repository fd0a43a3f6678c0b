"""The application, put together from one router per audience."""

from __future__ import annotations

from fastapi import FastAPI

from dispatcher import __version__
from dispatcher.house import House
from dispatcher.web import api, console, health, metrics, openapi, preferences, problems, unsubscribe, webhooks, wordings
from dispatcher.web.context import Broker
from dispatcher.web.keys import NO_KEYS, Keys
from dispatcher.web.shield import Discreet, Headed, Limited

__all__ = ["Broker", "create"]


def create(house: House, broker: Broker, keys: Keys = NO_KEYS) -> FastAPI:
    """The application for a house. Routers find all three in `request.app.state`. Without keys the API and console stay shut."""
    # No /docs: those pages load scripts from elsewhere.
    application = FastAPI(title="dispatcher", version=__version__, openapi_url="/openapi.json", docs_url=None, redoc_url=None)
    application.state.house = house
    application.state.broker = broker
    application.state.keys = keys
    application.state.balances = console.Balances()
    application.include_router(api.router)
    application.include_router(webhooks.router)
    application.include_router(console.router)
    application.include_router(wordings.router)
    application.include_router(health.router)
    application.include_router(metrics.router)
    application.include_router(unsubscribe.router)
    application.include_router(preferences.router)
    problems.install(application)
    openapi.describe(application)
    application.add_middleware(Limited)  # the last one added is the first to be asked
    application.add_middleware(Discreet)
    application.add_middleware(Headed, https=house.public_url.startswith("https://"))
    return application

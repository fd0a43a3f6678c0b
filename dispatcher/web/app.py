"""The application, put together from one router per audience."""

from __future__ import annotations

from fastapi import FastAPI

from dispatcher import __version__
from dispatcher.runtime.services import House
from dispatcher.web import errors, health, metrics, webhooks
from dispatcher.web.api import openapi, routes
from dispatcher.web.api_keys import NO_KEYS, Keys
from dispatcher.web.console import campaigns, templates
from dispatcher.web.dependencies import Broker
from dispatcher.web.middleware import Discreet, Headed, Limited
from dispatcher.web.public import preferences, unsubscribe

__all__ = ["Broker", "create"]


def create(house: House, broker: Broker, keys: Keys = NO_KEYS) -> FastAPI:
    """The application for a house. Routers find all three in `request.app.state`. Without keys the API and console stay shut."""
    # No /docs: those pages load scripts from elsewhere.
    application = FastAPI(title="dispatcher", version=__version__, openapi_url="/openapi.json", docs_url=None, redoc_url=None)
    application.state.house = house
    application.state.broker = broker
    application.state.keys = keys
    application.state.balances = campaigns.Balances()
    application.include_router(routes.router)
    application.include_router(webhooks.router)
    application.include_router(campaigns.router)
    application.include_router(templates.router)
    application.include_router(health.router)
    application.include_router(metrics.router)
    application.include_router(unsubscribe.router)
    application.include_router(preferences.router)
    errors.install(application)
    openapi.describe(application)
    application.add_middleware(Limited)  # the last one added is the first to be asked
    application.add_middleware(Discreet)
    application.add_middleware(Headed, https=house.public_url.startswith("https://"))
    return application

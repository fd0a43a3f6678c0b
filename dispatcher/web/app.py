"""The application, put together from one router per audience."""

from __future__ import annotations

from fastapi import FastAPI

from dispatcher import __version__
from dispatcher.runtime.services import Services
from dispatcher.web import errors, health, metrics, webhooks
from dispatcher.web.api import openapi, routes
from dispatcher.web.api_keys import NO_KEYS, ApiKeyRing
from dispatcher.web.console import campaigns, templates
from dispatcher.web.dependencies import TaskPublisher
from dispatcher.web.middleware import BodySizeLimit, ErrorBoundary, SecurityHeaders
from dispatcher.web.public import preferences, unsubscribe

__all__ = ["TaskPublisher", "create"]


def create(services: Services, broker: TaskPublisher, keys: ApiKeyRing = NO_KEYS) -> FastAPI:
    """The application for a house. Routers find all three in `request.app.state`. Without keys the API and console stay shut."""
    # No /docs: those pages load scripts from elsewhere.
    application = FastAPI(title="dispatcher", version=__version__, openapi_url="/openapi.json", docs_url=None, redoc_url=None)
    application.state.services = services
    application.state.broker = broker
    application.state.keys = keys
    application.state.balances = campaigns.BalanceCache()
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
    application.add_middleware(BodySizeLimit)  # the last one added is the first to be asked
    application.add_middleware(ErrorBoundary)
    application.add_middleware(SecurityHeaders, https=services.public_url.startswith("https://"))
    return application

"""The application, assembled from one router per audience."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI

from dispatcher import __version__
from dispatcher.campaigns.overview import BalanceCache
from dispatcher.campaigns.results import ResultsCache
from dispatcher.runtime.services import Services
from dispatcher.web import api_reference, errors, health, metrics_page, webhooks
from dispatcher.web.access_log import AccessLog
from dispatcher.web.api import openapi, v1
from dispatcher.web.api_keys import NO_KEYS, ApiKeyRing, Right
from dispatcher.web.console import login, pages
from dispatcher.web.dependencies import TaskPublisher
from dispatcher.web.middleware import BodySizeLimit, ErrorBoundary, KeyRequired, PlainBody, SecurityHeaders, UnambiguousLength
from dispatcher.web.public import preferences, unsubscribe

__all__ = ["TaskPublisher", "create"]

OPEN: Mapping[str, Right | None] = {}


def create(
    services: Services, broker: TaskPublisher, keys: ApiKeyRing = NO_KEYS, keyed: Mapping[str, Right | None] = OPEN
) -> FastAPI:
    """The application for these services. Routers find the first three arguments in `request.app.state`. Without keys, API and
    console admit nobody. `keyed`: further paths that need an API key, with a right or with any.
    """
    application = FastAPI(
        title="dispatcher",
        version=__version__,
        openapi_url="/openapi.json",
        docs_url=None,  # FastAPI's own page loads scripts from other sites; see `api_reference`
        redoc_url=None,
        generate_unique_id_function=openapi.operation_id,
    )
    application.state.services = services
    application.state.broker = broker
    application.state.keys = keys
    application.state.keyed = frozenset(keyed)
    application.state.balances = BalanceCache()
    application.state.results = ResultsCache()
    for router in (
        v1.router,
        webhooks.router,
        pages.router,
        health.router,
        metrics_page.router,
        api_reference.router,
        unsubscribe.router,
        preferences.router,
    ):
        application.include_router(router)
    errors.install(application)
    login.install(application)
    openapi.describe(application)
    application.add_middleware(KeyRequired, keys=keys, paths=keyed)
    application.add_middleware(BodySizeLimit)  # the last one added runs first
    application.add_middleware(PlainBody)
    application.add_middleware(UnambiguousLength)
    application.add_middleware(ErrorBoundary)
    application.add_middleware(SecurityHeaders, https=services.public_url.startswith("https://"))
    application.add_middleware(AccessLog)
    return application

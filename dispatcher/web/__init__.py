"""HTTP: the API, the webhooks, the customers' pages, the console."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line imports this package for API keys, and must not wait for a web framework
    from fastapi import FastAPI

CONNECTIONS_MAX = 8  # database connections, so at most so many requests work at a time; the others wait


def app() -> FastAPI:
    """The application that `uvicorn --factory dispatcher.web:app` serves. Ends with code 2 where the configuration is wrong."""
    from dispatcher import tasks
    from dispatcher.intake.errors import BadInput
    from dispatcher.runtime import bootstrap
    from dispatcher.runtime.logs import configure_logs
    from dispatcher.web.access_log import format_server_logs
    from dispatcher.web.api_keys import Right, read_keys
    from dispatcher.web.app import create

    configure_logs()
    format_server_logs()
    try:
        config = bootstrap.settings()
        keys = read_keys(config.api_keys)
        services = bootstrap.services(CONNECTIONS_MAX)
    except (*bootstrap.CONFIGURATION_ERRORS, BadInput) as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None
    access = {"/metrics": (config.metrics_access, Right.METRICS), "/openapi.json": (config.openapi_access, None)}
    application = create(services, tasks, keys, {path: right for path, (who, right) in access.items() if who == "key"})
    if config.traces.is_on:
        from dispatcher.runtime.trace_export import trace_requests  # needs the extra `traces`

        trace_requests(application)
    return application

"""The access log: one line for each answered request, with ids and without addresses, queries and tokens.

The path itself is not written: whoever has the token of a link can use it, and a wrong path can hold anything.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Mapping

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ID = re.compile(r"[\w.-]{1,100}")
_LOGGED = {"message_id": "message", "campaign_id": "campaign", "endpoint_id": "endpoint"}  # path parameters that are ids of ours
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
QUIET = frozenset({"/healthz", "/readyz", "/metrics"})  # asked every few seconds: logged only where they fail

log = structlog.get_logger()


def format_server_logs() -> None:
    """Let uvicorn's loggers use the format of the root logger. uvicorn has set up its own before it makes the application.

    Its access log is off: there is one access log.
    """
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = name != "uvicorn.access"


class AccessLog:
    """Writes the access log. Lines that a request causes have its `request_id`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI interface."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 0

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=uuid.uuid4().hex):
            try:
                await self._app(scope, receive, send_observed)
            finally:
                _write(scope, status, time.monotonic() - started)


def _write(scope: Scope, status: int, seconds: float) -> None:
    """One line. `status` is 0 where the caller went away before the answer."""
    route = route_of(scope)
    if route in QUIET and 0 < status < 500:
        return
    method = scope["method"] if scope["method"] in METHODS else "other"  # a caller can send any text as a method
    log.info("request", method=method, route=route, status=status, seconds=round(seconds, 4), **_ids(scope, status))


def route_of(scope: Scope) -> str:
    """The route with its parameters' names in place of their values; "" where there is none. FastAPI names only the part below the
    prefixes of the routers, and a prefix has no parameter."""
    if "route" not in scope:
        return ""
    path: str = getattr(scope["route"], "path", "")
    if ":path}" in path:
        return path
    segments = scope["path"].split("/")
    return "/".join(segments[: len(segments) - path.count("/")]) + path


def _ids(scope: Scope, status: int) -> Mapping[str, str]:
    """The ids in the path. Only of requests that were accepted: what is not found can be anything."""
    if status >= 400:
        return {}
    given = scope.get("path_params", {})
    return {name: str(given[key]) for key, name in _LOGGED.items() if key in given and _ID.fullmatch(str(given[key]))}

"""Routing of requests to handlers, and application of fault rules."""

from __future__ import annotations

import logging
from functools import lru_cache, partial

from channels.sandbox import control, inbox
from channels.sandbox.doubles import Refusal, RouteHandler, SandboxRoute, doubles
from channels.sandbox.faults import FaultRule
from channels.sandbox.http import Handler, SandboxRequest, SandboxResponse
from channels.sandbox.state import SandboxState

_log = logging.getLogger(__name__)


def make_app(state: SandboxState) -> Handler:
    """Return the sandbox as one handler."""
    return partial(handle, state)


def handle(state: SandboxState, request: SandboxRequest) -> SandboxResponse:
    """Answer a request. An exception becomes a 500 with a traceback in the log."""
    route = find_route(request.head.method, request.head.path)
    try:
        if route.refusal and state.faults.rules and (fault := state.faults.pick(route.provider, request.body)):
            return _apply_fault(state, request, route.handle, route.refusal, fault)
        return route.handle(state, request)
    except Exception:
        _log.exception("a handler failed on %s", request.head.path.split("/")[1])
        return route.refusal(500) if route.refusal else SandboxResponse(500, b"internal error", "text/plain")


def _apply_fault(
    state: SandboxState, request: SandboxRequest, handle: RouteHandler, refusal: Refusal, fault: FaultRule
) -> SandboxResponse:
    response = handle(state, request) if fault.records_message else SandboxResponse(500)
    if fault.status:
        response = refusal(fault.status, fault.error, state.clock())
    if fault.body is not None:
        response = response._replace(body=fault.body.encode())
    if fault.headers:
        headers = tuple(pair for pair in response.headers if pair[0].lower() not in map(str.lower, fault.headers))
        response = response._replace(headers=headers + tuple(fault.headers.items()))
    return response._replace(delay_seconds=fault.delay_seconds, cut=fault.cut, lost=response.lost or fault.loses_answer)


@lru_cache(maxsize=1024)
def find_route(method: str, path: str) -> SandboxRoute:
    """Return the route of a request. Paths of no provider belong to the sandbox itself."""
    for double in doubles().values():
        if route := double.find_route(method, path):
            return route
    return SandboxRoute(control.handle if path.startswith("/_sandbox/") else inbox.handle)

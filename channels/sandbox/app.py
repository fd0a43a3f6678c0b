"""Which request goes to which handler, and what a fault rule does to it on the way."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple, TypeAlias

from channels.sandbox import control, fcm, inbox, sendgrid, twilio, twilio_reads
from channels.sandbox.faults import Fault
from channels.sandbox.http import Handler, Request, Response
from channels.sandbox.world import World

_log = logging.getLogger(__name__)

WorldHandler: TypeAlias = Callable[[World, Request], Response]
Refusal: TypeAlias = Callable[..., Response]


class Route(NamedTuple):
    """Where a request goes. A `provider` marks the routes that fault rules apply to; `refusal` is its way to say no."""

    handle: WorldHandler
    provider: str = ""
    refusal: Refusal | None = None


def make_app(world: World) -> Handler:
    """All of the sandbox behind one function."""
    return partial(answer, world)


def answer(world: World, request: Request) -> Response:
    """Answer a request; a fault of ours is a 500 with a trace in the log, never a dead connection."""
    route = find_route(request.head.method, request.head.path)
    try:
        if route.refusal and world.faults.rules and (fault := world.faults.pick(route.provider, request.body)):
            return _faulty(world, request, route.handle, route.refusal, fault)
        return route.handle(world, request)
    except Exception:
        _log.exception("a handler failed on %s", request.head.path.split("/")[1])
        return route.refusal(500) if route.refusal else Response(500, b"internal error", "text/plain")


def _faulty(world: World, request: Request, handle: WorldHandler, refusal: Refusal, fault: Fault) -> Response:
    response = handle(world, request) if fault.takes else Response(500)
    if fault.status:
        response = refusal(fault.status, fault.error, world.clock())
    if fault.body is not None:
        response = response._replace(body=fault.body.encode())
    if fault.headers:
        kept = tuple(pair for pair in response.headers if pair[0].lower() not in map(str.lower, fault.headers))
        response = response._replace(headers=kept + tuple(fault.headers.items()))
    return response._replace(delay_seconds=fault.delay_seconds, cut=fault.cut, lost=response.lost or fault.loses_answer)


@lru_cache(maxsize=1024)
def find_route(method: str, path: str) -> Route:
    """The route of a request; a path that no provider has gets that provider's 404, a wrong method its 405."""
    if path.startswith("/2010-04-01/Accounts/"):
        return _twilio_route(method, path)
    if path.startswith("/v1/projects/"):
        return _chosen(method, {"POST": fcm.send} if path.endswith("/messages:send") else {}, "fcm", fcm.refusal)
    if path == "/token":
        return _chosen(method, {"POST": fcm.give_token}, "google", fcm.token_refusal)
    if path.startswith("/v3/"):
        return _chosen(method, _SENDGRID.get(path, {}), "sendgrid", sendgrid.refusal)
    if path.startswith("/_sandbox/"):
        return Route(control.handle)
    return Route(inbox.handle)


_SENDGRID: dict[str, dict[str, WorldHandler]] = {
    "/v3/mail/send": {"POST": sendgrid.send},
    "/v3/scopes": {"GET": sendgrid.scopes},
    "/v3/user/webhooks/event/settings/signed": {"GET": sendgrid.signed_settings},
}


def _twilio_route(method: str, path: str) -> Route:
    parts = path.split("/")[4:]
    handlers: dict[str, WorldHandler] = {}
    if parts == [] and path.endswith(".json"):
        handlers = {"GET": twilio_reads.fetch_account}
    elif parts == ["Messages.json"]:
        handlers = {"POST": twilio.send, "GET": twilio_reads.list_messages}
    elif len(parts) == 2 and parts[0] == "Messages" and parts[1].endswith(".json"):
        handlers = {"GET": twilio_reads.fetch_message}
    return _chosen(method, handlers, "twilio", twilio.refusal)


def _chosen(method: str, handlers: dict[str, WorldHandler], provider: str, refusal: Refusal) -> Route:
    if method in handlers:
        return Route(handlers[method], provider, refusal)
    refused = refusal(405 if handlers else 404)
    return Route(lambda _world, _request: refused)

"""How a provider's double joins the sandbox: its file has a `DOUBLE`, as the adapter's has a `PLUG`; no list names them."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from channels.base import Channel
from channels.sandbox.http import SandboxRequest, SandboxResponse
from channels.sandbox.state import SandboxState, StoredRequest

RouteHandler: TypeAlias = Callable[[SandboxState, SandboxRequest], SandboxResponse]
Refusal: TypeAlias = Callable[..., SandboxResponse]


class SandboxRoute(NamedTuple):
    """Where a request goes. A `provider` marks the routes that fault rules apply to; `refusal` is its way to say no."""

    handle: RouteHandler
    provider: str = ""
    refusal: Refusal | None = None


def _no_credentials(_url: str, _folder: Path) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class Double:
    """One provider's double.

    `find` gives the route of a method and path, or None for a path that is not this provider's. `read` makes one message of a kept
    request readable: its reader sees what the keys of the result say. On the channels it `plays`, "sandbox" as a provider's name
    means this one, and `credentials` (of the sandbox's address and folder) are the fields of the adapter's account that lead here:
    such as no real provider would take, so that nothing can leave by mistake. `hear` lets a person answer: an inbound webhook call.
    """

    name: str
    find_route: Callable[[str, str], SandboxRoute | None]
    read_content: Callable[[SandboxState, StoredRequest, int], Mapping[str, Any]]
    channels: frozenset[Channel] = frozenset()
    credentials: Callable[[str, Path], Mapping[str, Any]] = _no_credentials
    fault_names: tuple[str, ...] = ()  # what fault rules may call its routes; nothing means its name
    receive_reply: Callable[[SandboxState, Mapping[str, str]], None] | None = None


@lru_cache(maxsize=1)
def doubles() -> Mapping[str, Double]:
    """All doubles by name."""
    package = import_module("channels.sandbox")
    names = [module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_")]
    found = [getattr(import_module(f"channels.sandbox.{name}"), "DOUBLE", None) for name in names]
    return {double.name: double for double in found if isinstance(double, Double)}


def fault_names() -> list[str]:
    """What fault rules may call a provider; google is the OAuth endpoint that FCM's clients ask first."""
    return [name for double in doubles().values() for name in double.fault_names or (double.name,)]


def double_for(channel: Channel) -> Double:
    """The double that "sandbox" means on this channel."""
    return next(double for double in doubles().values() if channel in double.channels)


def route_for(method: str, handlers: Mapping[str, RouteHandler], provider: str, refusal: Refusal) -> SandboxRoute:
    """The route of a path that has these handlers; a path without any gets the provider's 404, a wrong method its 405."""
    if method in handlers:
        return SandboxRoute(handlers[method], provider, refusal)
    refused = refusal(405 if handlers else 404)
    return SandboxRoute(lambda _state, _request: refused)

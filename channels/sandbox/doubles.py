"""Discovery of doubles: each provider's file in this package defines a `DOUBLE`. No list names them."""

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
    """Where a request goes. Fault rules apply to routes with a `provider`; `refusal` makes its error answers."""

    handle: RouteHandler
    provider: str = ""
    refusal: Refusal | None = None


def _no_credentials(_url: str, _folder: Path) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class Double:
    """One provider's double.

    `find_route` returns the route of a method and path, or None for a path of another provider. `read_content` returns one message
    of a stored request as the recipient sees it. On its `channels`, "sandbox" as a provider's name means this double;
    `credentials` (from the sandbox's URL and folder) are then the fields of the adapter's account. No real provider would accept
    them, so nothing can be sent by mistake. `receive_reply` makes the inbound webhook call for a person's reply.
    """

    name: str
    find_route: Callable[[str, str], SandboxRoute | None]
    read_content: Callable[[SandboxState, StoredRequest, int], Mapping[str, Any]]
    channels: frozenset[Channel] = frozenset()
    credentials: Callable[[str, Path], Mapping[str, Any]] = _no_credentials
    fault_names: tuple[str, ...] = ()  # its names in fault rules; empty means `name`
    receive_reply: Callable[[SandboxState, Mapping[str, str]], None] | None = None


@lru_cache(maxsize=1)
def doubles() -> Mapping[str, Double]:
    """Return all doubles by name."""
    package = import_module("channels.sandbox")
    names = [module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_")]
    candidates = [getattr(import_module(f"channels.sandbox.{name}"), "DOUBLE", None) for name in names]
    return {double.name: double for double in candidates if isinstance(double, Double)}


def fault_names() -> list[str]:
    """Return the provider names for fault rules; google is the OAuth endpoint that FCM's clients call first."""
    return [name for double in doubles().values() for name in double.fault_names or (double.name,)]


def double_for(channel: Channel) -> Double:
    """Return the double that "sandbox" means on this channel."""
    return next(double for double in doubles().values() if channel in double.channels)


def route_for(method: str, handlers: Mapping[str, RouteHandler], provider: str, refusal: Refusal) -> SandboxRoute:
    """Return the route of a path with these handlers. No handlers: the provider's 404; no handler for the method: its 405."""
    if method in handlers:
        return SandboxRoute(handlers[method], provider, refusal)
    refused = refusal(405 if handlers else 404)
    return SandboxRoute(lambda _state, _request: refused)

"""How a provider's file joins the program: its `PLUG` says what the provider is called, what it needs from the environment, how its
adapter is made, and how its webhook calls are read. Every file of this folder that has a `PLUG` takes part; no list names them.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from channels.base import Channel, Event, InboundText, Provider
from channels.http import HttpTransport

A = TypeVar("A")

# -- what it needs -----------------------------------------------------------------------------------------------------


class Pattern(NamedTuple):
    """How a value must look, and how to say so."""

    regex: re.Pattern[str]
    right: str


PHONE_NUMBER = r"\+[1-9][0-9]{6,14}"
SENDER_NAME = r"(?=.*[A-Za-z])[A-Za-z0-9 ]{1,11}"  # what GSM networks take in place of a number


class VariableReader(Protocol):
    """Reads variables. What is wrong with one is noted, all at once, and a harmless value returned in its place.

    `about` says what the variable is for, in one line of Markdown: the configuration page is generated from it.
    """

    def text(self, name: str, default: str = "", *, about: str = "") -> str:
        """A value without the white space around it."""
        ...

    def secret(self, name: str, *, about: str = "") -> str:
        """A value that is never shown."""
        ...

    def number(self, name: str, default: float, least: float, most: float, *, about: str = "") -> float:
        """A number within bounds."""
        ...

    def matching(self, name: str, pattern: Pattern, *, about: str = "") -> str:
        """A value of a known form, or nothing."""
        ...

    def url(self, name: str, default: str, *, about: str = "") -> str:
        """An address, https but on this machine."""
        ...

    def url_with_password(self, name: str, schemes: tuple[str, ...], *, about: str = "") -> str:
        """A URL that is never shown, or nothing."""
        ...

    def file(self, name: str, *, about: str = "") -> Path | None:
        """A file that can be read, or nothing."""
        ...

    def fault(self, sentence: str) -> None:
        """Note what is wrong."""
        ...


# -- what it is made with ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AdapterContext:
    """What an adapter is made with. `webhook_url` is where this provider's first door is; its other doors are below it."""

    channel: Channel
    http: HttpTransport
    webhook_url: str


# -- what it tells us --------------------------------------------------------------------------------------------------

WebhookItem: TypeAlias = Event | InboundText


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """A webhook call as it came. `url` is the public one, query included; the names of `headers` are in lower case."""

    url: str
    body: bytes
    headers: Mapping[str, str]
    now: datetime


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """One address that a provider calls.

    `read` is given the call and the key that verifies it, and raises BadSignature or BadPayload. `answer` writes our answer in the
    same conversation (None for nothing to say) and its media type; without it a provider gets an empty yes.
    """

    read: Callable[[WebhookRequest, str], Sequence[WebhookItem]]
    answer: Callable[[str | None], tuple[str, str]] | None = None


# -- the plug ----------------------------------------------------------------------------------------------------------


def _no_warnings(_: object) -> Iterable[str]:
    return ()


@dataclass(frozen=True, slots=True)
class ProviderPlugin(Generic[A]):
    """One provider. `A` is its account: a frozen dataclass of what the environment says, secrets kept out of its `repr`."""

    name: str
    needs: Mapping[Channel, tuple[str, ...]]  # the channels it serves, and the variables without which it can't
    variable_prefixes: tuple[str, ...]  # its variables begin so
    read_account: Callable[[VariableReader], A]
    make_adapter: Callable[[A, AdapterContext], Provider]
    endpoints: Mapping[str, WebhookEndpoint] = field(default_factory=dict)  # by the path below /webhooks/<name>, "" for that itself
    webhook_key: Callable[[A], str] = lambda _: ""  # verifies calls at the doors; an empty one verifies nothing
    warnings: Callable[[A], Iterable[str]] = _no_warnings  # what may be meant so, but is worth a word
    messages_per_request: Callable[[A], int] = lambda _: 1  # messages that one request of its carries at most
    preferred: bool = False  # goes before others whose credentials are there as well
    real: bool = True  # reaches people


@lru_cache(maxsize=1)
def plugins() -> Mapping[str, ProviderPlugin[Any]]:
    """All providers by name, the usual ones first and those that reach nobody last."""
    package = import_module("channels.providers")
    names = [module.name for module in pkgutil.iter_modules(package.__path__) if not module.ispkg]
    found = [
        plugin
        for name in names
        if isinstance(plugin := getattr(import_module(f"channels.providers.{name}"), "PLUGIN", None), ProviderPlugin)
    ]
    return {
        plugin.name: plugin for plugin in sorted(found, key=lambda plugin: (not plugin.real, not plugin.preferred, plugin.name))
    }

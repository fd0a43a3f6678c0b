"""Provider plugins, and their discovery.

Each file in `channels/providers/` defines a `PLUGIN`: the provider's name, the variables it needs, how its adapter is made and
how its webhook calls are read. No list names the providers: a file with a `PLUGIN` is enough.
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
from channels.whatsapp_templates import TemplateClient

A = TypeVar("A")

# -- settings -----------------------------------------------------------------------------------------------------


class Pattern(NamedTuple):
    """The form that a value must have, and its description for error messages."""

    regex: re.Pattern[str]
    right: str


PHONE_NUMBER = r"\+[1-9][0-9]{6,14}"
SENDER_NAME = r"(?=.*[A-Za-z])[A-Za-z0-9 ]{1,11}"  # GSM networks accept it in place of a number


class VariableReader(Protocol):
    """Reads environment variables. Errors are collected and reported all at once; a harmless value is returned meanwhile.

    `about` describes the variable in one line of Markdown; the configuration page is generated from it.
    """

    def text(self, name: str, default: str = "", *, about: str = "") -> str:
        """Return a value without leading and trailing white space."""
        ...

    def secret(self, name: str, *, about: str = "") -> str:
        """Return a value that is never shown."""
        ...

    def number(self, name: str, default: float, least: float, most: float, *, about: str = "") -> float:
        """Return a number from `least` to `most`."""
        ...

    def matching(self, name: str, pattern: Pattern, *, about: str = "") -> str:
        """Return a value that matches the pattern, or an empty string."""
        ...

    def url(self, name: str, default: str, *, about: str = "") -> str:
        """Return a URL: https, or http on this machine."""
        ...

    def url_with_password(self, name: str, schemes: tuple[str, ...], *, about: str = "") -> str:
        """Return a URL that is never shown, or an empty string."""
        ...

    def file(self, name: str, *, about: str = "") -> Path | None:
        """Return a readable file, or None."""
        ...

    def fault(self, sentence: str) -> None:
        """Record an error."""
        ...


# -- making an adapter ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AdapterContext:
    """What an adapter is made with. `webhook_url` is this provider's first webhook endpoint; its others are below that path."""

    channel: Channel
    http: HttpTransport
    webhook_url: str


# -- webhooks --------------------------------------------------------------------------------------------------

WebhookItem: TypeAlias = Event | InboundText


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """A webhook call as received. `url` is the public URL with its query; header names are in lower case."""

    url: str
    body: bytes
    headers: Mapping[str, str]
    now: datetime


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """One URL that a provider calls.

    `read` gets the call and the key that verifies it. It raises BadSignature or BadPayload. `answer` turns our reply to an inbound
    message (None for no reply) into a response body and its media type. Without it the response is empty.
    """

    read: Callable[[WebhookRequest, str], Sequence[WebhookItem]]
    answer: Callable[[str | None], tuple[str, str]] | None = None


# -- the plugin ----------------------------------------------------------------------------------------------------------


def _no_warnings(_: object) -> Iterable[str]:
    return ()


@dataclass(frozen=True, slots=True)
class ProviderPlugin(Generic[A]):
    """One provider. `A` is its account: a frozen dataclass of the settings, with secrets kept out of its `repr`."""

    name: str
    needs: Mapping[Channel, tuple[str, ...]]  # its channels, and the variables that each of them needs
    variable_prefixes: tuple[str, ...]  # how its variables begin
    read_account: Callable[[VariableReader], A]
    make_adapter: Callable[[A, AdapterContext], Provider]
    endpoints: Mapping[str, WebhookEndpoint] = field(
        default_factory=dict
    )  # by the path below /webhooks/<name>; "" is that path itself
    webhook_key: Callable[[A], str] = lambda _: ""  # verifies webhook calls; if it is empty, every call is refused
    warnings: Callable[[A], Iterable[str]] = _no_warnings  # settings that are allowed but worth a warning at the start
    messages_per_request: Callable[[A], int] = lambda _: 1  # largest number of messages in one request
    preferred: bool = False  # chosen first if several providers have credentials
    real: bool = True  # reaches people
    make_template_client: Callable[[A, HttpTransport], TemplateClient] | None = None  # where it sends only approved WhatsApp texts


@lru_cache(maxsize=1)
def plugins() -> Mapping[str, ProviderPlugin[Any]]:
    """Return all providers by name: preferred ones first, those that reach nobody last."""
    package = import_module("channels.providers")
    names = [module.name for module in pkgutil.iter_modules(package.__path__) if not module.ispkg]
    discovered = [
        plugin
        for name in names
        if isinstance(plugin := getattr(import_module(f"channels.providers.{name}"), "PLUGIN", None), ProviderPlugin)
    ]
    return {
        plugin.name: plugin
        for plugin in sorted(discovered, key=lambda plugin: (not plugin.real, not plugin.preferred, plugin.name))
    }

"""Provider plugins, and their discovery.

Each file in `channels/providers/` defines a `PLUGIN`: the provider's name, the variables it needs, how its adapter is made and
how its webhook calls are read. No list names the providers: a file with a `PLUGIN` is enough. An installed package adds its own by
an entry point of the group `channels.providers`.
"""

from __future__ import annotations

import pkgutil
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
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


# -- discovery -----------------------------------------------------------------------------------------------------------

ENTRY_POINTS = "channels.providers"  # the group in which an installed package names its plugins: `pigeon = "pigeon_sms:PLUGIN"`
PLUGIN_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")  # part of the path of webhooks, and of DISPATCHER_PROVIDER_SMS=pigeon
RESERVED = frozenset({"sandbox"})


@dataclass(frozen=True, slots=True)
class PluginFault:
    """A plugin of an installed package that cannot be used: its name, and a sentence that says why. All others work."""

    name: str
    sentence: str

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True, slots=True)
class Discovery:
    """The plugins that can be used, and those of installed packages that cannot."""

    plugins: Mapping[str, ProviderPlugin[Any]]
    faults: tuple[PluginFault, ...] = ()


class _UnusablePlugin(Exception):
    """Why a plugin of an installed package cannot be used."""


def plugins() -> Mapping[str, ProviderPlugin[Any]]:
    """Return all providers by name: preferred ones first, those that reach nobody last."""
    return discovery().plugins


def plugin_faults() -> Sequence[PluginFault]:
    """Return the plugins of installed packages that cannot be used."""
    return discovery().faults


@lru_cache(maxsize=1)
def discovery() -> Discovery:
    """Find the providers of `channels.providers` and of installed packages."""
    return discover(entry_points(group=ENTRY_POINTS))


def discover(installed: Iterable[EntryPoint]) -> Discovery:
    """Find the providers of `channels.providers` and those that these entry points name.

    A name that is taken makes a package's plugin unusable. Two packages with one name lose both: which of them is found first is
    chance, and messages must not go to another provider after an update.
    """
    found = {plugin.name: plugin for plugin in _own()}
    own, named = frozenset(found), list(installed)
    times = Counter(point.name for point in named)
    faults: list[PluginFault] = []
    for point in sorted(named, key=lambda point: (point.name, point.value)):
        try:
            if point.name in own:
                raise _UnusablePlugin("the program itself has a provider of this name")
            if times[point.name] > 1:
                raise _UnusablePlugin("another package has a plugin of this name, and none of them is used")
            found[point.name] = _load(point)
        except _UnusablePlugin as error:
            faults.append(_fault(point, error))
    order = sorted(found.values(), key=lambda plugin: (not plugin.real, not plugin.preferred, plugin.name))
    return Discovery({plugin.name: plugin for plugin in order}, tuple(faults))


def _own() -> Iterable[ProviderPlugin[Any]]:
    package = import_module("channels.providers")
    names = [module.name for module in pkgutil.iter_modules(package.__path__) if not module.ispkg]
    found = (getattr(import_module(f"channels.providers.{name}"), "PLUGIN", None) for name in names)
    return (plugin for plugin in found if isinstance(plugin, ProviderPlugin))


def _load(point: EntryPoint) -> ProviderPlugin[Any]:
    """Return the plugin of an entry point. Raises `_UnusablePlugin`."""
    if not PLUGIN_NAME.fullmatch(point.name) or point.name in RESERVED:
        raise _UnusablePlugin("its name should be small letters, digits and _, such as pigeon")
    try:
        plugin = point.load()
    except ImportError as error:
        raise _UnusablePlugin(str(error).partition("\n")[0] or "it cannot be imported") from None
    except (Exception, SystemExit) as error:  # its text may hold a secret of the environment
        raise _UnusablePlugin(f"importing it raised {type(error).__name__}") from None
    if not isinstance(plugin, ProviderPlugin):
        raise _UnusablePlugin(f"{point.value} is a {type(plugin).__name__}, not a ProviderPlugin of channels.registry")
    if plugin.name != point.name:
        raise _UnusablePlugin(f"its entry point is called {point.name}, and its plugin {plugin.name!r}; use one name")
    is_right = plugin.needs and all(
        channel in set(Channel) and not isinstance(needs, str) and all(isinstance(each, str) for each in needs)
        for channel, needs in plugin.needs.items()
    )
    if not is_right or isinstance(plugin.variable_prefixes, str) or not plugin.variable_prefixes:
        raise _UnusablePlugin("`needs` should map channels to tuples of variables, and `variable_prefixes` be a tuple")
    return plugin


def _fault(point: EntryPoint, error: Exception) -> PluginFault:
    package = f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value
    return PluginFault(point.name, f"The provider plugin {point.name} of the package {package} cannot be used: {error}.")

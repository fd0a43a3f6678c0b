"""The input of one rendering. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from channels.base import Channel
from dispatcher.content.links import host_of
from dispatcher.domain.message import Mode
from dispatcher.domain.recipient import Language


@dataclass(frozen=True, slots=True, eq=False)
class LinkHosts:
    """The hosts that links of an entity may name, subdomains included. Compared by identity, as part of a cache's key.

    `partners` has for each host of another company the parameters that a link to it may have and that may differ.
    """

    own: frozenset[str]
    partners: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MessageSender:
    """The sender of a message: the entity's display name in the reader's language, its e-mail address, its imprint.

    `entity` chooses the theme; "" means the template's entity, and an imprint of "" the theme's. Without `hosts` links may name
    any host: for previews. A campaign may choose `from_name`, the name in the From header ("": `name`), and `reply_to`; the text
    names the entity in any case.
    """

    name: str
    address: str
    imprint: str = ""
    entity: str = ""
    hosts: LinkHosts | None = None
    from_name: str = ""
    reply_to: str = ""


Senders = Mapping[Language, MessageSender]  # the policy's sender of each language
NO_SENDERS: Senders = {}


class ReaderLinks(Protocol):
    """The reader's own two https links. Each may be made when it is first read: most texts use one or none."""

    @property
    def unsubscribe(self) -> str:
        """The link for one-click unsubscribe (RFC 8058)."""
        ...

    @property
    def preferences(self) -> str:
        """The link to the preference centre."""
        ...

    @property
    def hosts(self) -> frozenset[str]:
        """The hosts of both."""
        ...


@dataclass(frozen=True, slots=True)
class MessageLinks:
    """Two links that exist already. See `ReaderLinks`."""

    unsubscribe: str
    preferences: str

    @property
    def hosts(self) -> frozenset[str]:
        """The hosts of both."""
        return frozenset(host for host in (host_of(self.unsubscribe), host_of(self.preferences)) if host)


# The keys of the reader's links among the values of a text; no variable has a dot in its name.
UNSUBSCRIBE, PREFERENCES = "links.unsubscribe", "links.preferences"


class RenderValues(dict[str, Any]):
    """The values of variables, by name. The reader's two links can be read as if they were among them, and are made then."""

    __slots__ = ("_links",)

    def __init__(self, links: ReaderLinks) -> None:
        self._links = links

    def __missing__(self, name: str) -> str:
        if name == UNSUBSCRIBE:
            return self._links.unsubscribe
        if name == PREFERENCES:
            return self._links.preferences
        raise KeyError(name)

    def with_links(self) -> dict[str, Any]:
        """All values, with the links."""
        return {**self, UNSUBSCRIBE: self._links.unsubscribe, PREFERENCES: self._links.preferences}


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """All that one rendering may use. `categories` are the data categories that the decision allows; other data is ignored.

    `data` holds the job's variables, by name; `profile` is data category -> variable -> value. The job's value takes
    precedence over the profile's.
    """

    channel: Channel
    language: Language
    mode: Mode
    categories: frozenset[str]
    data: Mapping[str, Any]
    sender: MessageSender
    links: ReaderLinks
    profile: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

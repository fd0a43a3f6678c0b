"""The input of one rendering. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from channels.base import Channel
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


@dataclass(frozen=True, slots=True)
class MessageLinks:
    """The reader's own two https links: one-click unsubscribe (RFC 8058) and the preference centre."""

    unsubscribe: str
    preferences: str


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
    links: MessageLinks
    profile: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

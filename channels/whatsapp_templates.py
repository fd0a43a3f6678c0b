"""WhatsApp templates at a provider: what is created, what the provider says about it, and the protocol of its client. Pure.

WhatsApp accepts a message outside the service window only as a template that it approved. The provider gives each template an id,
the ContentSid, which differs between accounts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from channels.base import ChannelError

BODY_CHARACTERS_MAX = 1_024  # Meta, "Message templates": the body of a template
BUTTONS_MAX = 10  # Meta: buttons of one template
BUTTON_CHARACTERS_MAX = 20  # Twilio, twilio/quick-reply: the title of a button; Meta allows 25
PAYLOAD_CHARACTERS_MAX = 200  # Twilio: the id of a button
URLS_MAX = 2  # Meta: buttons with a URL


class TemplateStatus(StrEnum):
    """What WhatsApp says about a template. Only an approved one can be sent."""

    UNSUBMITTED = "unsubmitted"  # created at the provider, and not submitted to WhatsApp
    RECEIVED = "received"
    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    PAUSED = "paused"  # people reported it too often; Meta may pause it again for longer
    DISABLED = "disabled"
    RECATEGORISED = "recategorised"  # approved, but not in the category that was submitted
    MISSING = "missing"  # the account does not have it any more
    UNKNOWN = "unknown"  # a status that this program does not know


class Category(StrEnum):
    """WhatsApp's category of a template. Marketing is never submitted as utility: that would be deception, and Meta bans for it."""

    MARKETING = "MARKETING"
    UTILITY = "UTILITY"


@dataclass(frozen=True, slots=True)
class TemplateButton:
    """A button below the text: a quick reply, whose `payload` comes back as an inbound message, or a link to a fixed `url`."""

    title: str
    payload: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class NewContent:
    """A template to be created. `examples` has a value for each placeholder, which the review needs; no data of a person."""

    name: str  # lower-case letters, digits and _: WhatsApp's own rule
    language: str
    text: str
    buttons: tuple[TemplateButton, ...] = ()
    examples: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProviderTemplate:
    """A template as the account has it. `category` is WhatsApp's, which may differ from the one that was submitted."""

    content_sid: str
    name: str
    language: str
    text: str
    buttons: tuple[TemplateButton, ...]
    status: TemplateStatus
    category: str = ""
    rejection_reason: str = ""


class TemplateClient(Protocol):
    """A provider's API for templates. Errors are returned. `account` names the account, and is no secret."""

    account: str

    def create(self, template: NewContent) -> str | ChannelError:
        """Create a template and return its ContentSid. It is not submitted yet."""
        ...

    def submit(self, content_sid: str, name: str, category: Category) -> ChannelError | None:
        """Submit a template for WhatsApp's approval."""
        ...

    def list_all(self) -> Sequence[ProviderTemplate] | ChannelError:
        """Return all templates of the account; an error unless the list is complete."""
        ...

"""The nouns of the house: frozen, plain, known to everyone. Pure: the standard library and `channels.base` only.

Words are those of GLOSSARY.md: a *job* is a request that may end in no message; a *message* is one leg of a job on one
channel; a *reason* says why not, with the evidence behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Any, TypeAlias

from channels.base import Channel

Language: TypeAlias = str  # "nl" | "fr" | "de" | "en"


LANGUAGES: tuple[Language, ...] = ("nl", "fr", "de", "en")


class Person(StrEnum):
    """How a person stands to the bank."""

    CUSTOMER = "customer"
    FORMER = "former"
    PLATFORM_USER = "platform_user"
    PROSPECT = "prospect"


class ChannelGroup(StrEnum):
    """What a customer switches."""

    EMAIL = "email"
    PUSH = "push"
    SMS_WHATSAPP = "sms_whatsapp"


GROUP_OF: Mapping[Channel, ChannelGroup] = {
    Channel.EMAIL: ChannelGroup.EMAIL,
    Channel.PUSH: ChannelGroup.PUSH,
    Channel.SMS: ChannelGroup.SMS_WHATSAPP,
    Channel.WHATSAPP: ChannelGroup.SMS_WHATSAPP,
}


class Source(StrEnum):
    """Where a choice was made or heard."""

    MOBILE = "mobile"
    TOUCH = "touch"
    LIVE = "live"
    BRANCH = "branch"
    IMPORT = "import"
    UNSUBSCRIBE = "unsubscribe"
    PREFERENCE_CENTRE = "preference_centre"
    INBOUND = "inbound"  # STOP by SMS or WhatsApp
    PROVIDER = "provider"  # the provider told us of a no
    ERASURE = "erasure"  # an erased person's offers end with it


# -- what is known of a recipient --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Choice:
    """A current value and the consent event that set it. `event` is the evidence, as "consent:<no>"."""

    value: str  # "tailored" | "standard" | "none" for offers; "on" | "off" for switches and objections
    event: str
    source: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Device:
    """One installed app."""

    token: str
    platform: str  # "android" | "ios" | "web"
    permission: bool


@dataclass(frozen=True, slots=True)
class SentMessage:
    """A commercial message that the person may have got, or will: reserved when it is claimed. `no` grows with each."""

    no: int
    at: datetime
    channel: Channel
    offer_type: str


@dataclass(frozen=True, slots=True)
class CoolDown:
    """A provider's own limit per person: until then it takes no more advertising for them. `code` is its word for it."""

    until: datetime
    code: str


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a decision may look at about one recipient, read in one go. `version` grows with every change that could matter."""

    recipient_id: str
    version: int
    known: bool = True
    erased: bool = False
    person: Person = Person.PROSPECT
    language: Language = "en"
    timezone: str | None = None
    birth_date: date | None = None
    entities: frozenset[str] = frozenset()
    has_current_account: bool = False
    email: str | None = None
    phone: str | None = None
    whatsapp: str | None = None
    devices: tuple[Device, ...] = ()
    partner_id: str | None = None  # registered as such by both
    purchased: frozenset[str] = frozenset()
    offers: Mapping[str, Choice] = field(default_factory=dict)  # by OfferType
    switches: Mapping[str, Choice] = field(default_factory=dict)  # by ChannelGroup
    object_marketing: Choice | None = None
    object_profiling: Choice | None = None
    suppressions: Mapping[str, str] = field(default_factory=dict)  # channel -> evidence, "suppression:<no>"
    repeat_of: str | None = None  # the message id of an earlier row for the person in the campaign, or of a leg that arrived
    partner_message: str | None = None  # the id of what the registered partner got, where a household gets one message
    cool_downs: Mapping[str, CoolDown] = field(default_factory=dict)  # by channel
    sent: tuple[SentMessage, ...] = ()  # as far back as the policy's caps look; the message that is being decided is not among them
    profile: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # data category -> variable -> value

    def address(self, channel: Channel) -> str | None:
        """The address for e-mail, SMS and WhatsApp; push has `devices`."""
        if channel is Channel.EMAIL:
            return self.email
        if channel is Channel.SMS:
            return self.phone
        return self.whatsapp if channel is Channel.WHATSAPP else None

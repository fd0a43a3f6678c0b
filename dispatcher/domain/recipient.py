"""Recipients: channel groups, choices, devices, and the facts that a decision uses. Pure: frozen types without input or output.

The types are msgspec's: each message needs a dozen of these objects, and frozen dataclasses take ten times as long to make. JSON
is read into them directly. `msgspec.structs.replace` copies one with other fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from enum import StrEnum
from typing import Any, TypeAlias

from msgspec import Struct

from channels.base import Channel

Language: TypeAlias = str  # "nl" | "fr" | "de" | "en"


LANGUAGES: tuple[Language, ...] = ("nl", "fr", "de", "en")


class Person(StrEnum):
    """How a recipient relates to the bank."""

    CUSTOMER = "customer"
    FORMER = "former"
    PLATFORM_USER = "platform_user"
    PROSPECT = "prospect"


class ChannelGroup(StrEnum):
    """What a customer switches on or off."""

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
    """Where a choice was made or reported."""

    MOBILE = "mobile"
    TOUCH = "touch"
    LIVE = "live"
    BRANCH = "branch"
    IMPORT = "import"
    UNSUBSCRIBE = "unsubscribe"
    PREFERENCE_CENTRE = "preference_centre"
    INBOUND = "inbound"  # STOP by SMS or WhatsApp
    PROVIDER = "provider"  # the provider reported an opt-out
    ERASURE = "erasure"  # an erasure sets all offers to "none"


class Choice(Struct, frozen=True):
    """A current value and the consent event that set it. `event` is the evidence: "consent:<no>".

    `dated` is False where `at` is only the time of an import that named none. Decisions do not need it: it is set where choices
    are shown.
    """

    value: str  # "tailored" | "standard" | "none" for offers; "on" | "off" for switches and objections
    event: str
    source: str
    at: datetime
    contract_version: str = ""  # of a tailored choice: the version that the person accepted; "" where nobody stated it
    dated: bool = True


class Device(Struct, frozen=True):
    """One installed app."""

    token: str
    platform: str  # "android" | "ios" | "web"
    permission: bool


class SentMessage(Struct, frozen=True):
    """A commercial message that counts for frequency caps from its claim on, sent or not yet. `no` grows with each.

    `own` is False for a message to another recipient at an address that this person has too.
    """

    no: int
    at: datetime
    channel: Channel
    offer_type: str
    own: bool = True


class CoolDown(Struct, frozen=True):
    """A provider's own limit per person: it takes no advertising for them until then. `code` is the provider's error code."""

    until: datetime
    code: str


class Facts(Struct, frozen=True):
    """All that a decision may use about one recipient, read at one moment.

    `version` grows with each change that could alter a decision.
    """

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
    partner_id: str | None = None  # both are registered as each other's partner
    purchased: frozenset[str] = frozenset()
    offers: Mapping[str, Choice] = {}  # by OfferType
    switches: Mapping[str, Choice] = {}  # by ChannelGroup
    object_marketing: Choice | None = None
    object_profiling: Choice | None = None
    suppressions: Mapping[str, str] = {}  # channel -> evidence, "suppression:<no>"
    unread_replies: Mapping[str, str] = {}  # channel -> evidence, "inbound:<id>": may be an opt-out
    repeat_of: str | None = None  # message id of the person's earlier row in the campaign, or of a leg that arrived
    partner_message: str | None = None  # message id of the registered partner, if the campaign sends one per household
    address_messages: Mapping[str, str] = {}  # channel -> id of the campaign's message to the same address
    cool_downs: Mapping[str, CoolDown] = {}  # by channel
    sent: tuple[SentMessage, ...] = ()  # as far back as the policy's caps count, without the message being decided
    profile: Mapping[str, Mapping[str, Any]] = {}  # data category -> variable -> value

    def address(self, channel: Channel) -> str | None:
        """The address for e-mail, SMS and WhatsApp; push has `devices`."""
        if channel is Channel.EMAIL:
            return self.email
        if channel is Channel.SMS:
            return self.phone
        return self.whatsapp if channel is Channel.WHATSAPP else None

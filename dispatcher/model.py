"""The nouns of the house: frozen, plain, known to everyone. Pure: the standard library and `channels.base` only.

Words are those of the README's glossary: a *job* is a request that may end in no message; a *message* is one leg of a job on one
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


class OfferType(StrEnum):
    """What kind of offers a choice is about."""

    OWN = "own"
    PARTNER = "partner"
    KATE = "kate"


class Mode(StrEnum):
    """What a customer chose for an offer type, and how a message is then written."""

    TAILORED = "tailored"
    STANDARD = "standard"
    NONE = "none"


class Kind(StrEnum):
    """Commercial or service: a property of the template, which no caller can change."""

    COMMERCIAL = "commercial"
    SERVICE = "service"


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


class State(StrEnum):
    """The states of a message; the README draws them."""

    PENDING = "pending"
    CLAIMED = "claimed"
    HELD = "held"
    WAITING = "waiting"
    ACCEPTED = "accepted"
    DELIVERED = "delivered"
    READ = "read"
    BOUNCED = "bounced"
    COMPLAINED = "complained"
    FAILED = "failed"
    UNRESOLVED = "unresolved"
    REFUSED = "refused"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    HELD_OUT = "held_out"
    DEAD = "dead"


class Code(StrEnum):
    """Why a message was refused or held, strongest first: when several rules object, the earliest here is the headline.

    Stable words; marketing tools count by them. A provider's refusal carries the provider's own code instead.
    """

    ERASED = "erased"
    UNKNOWN_RECIPIENT = "unknown_recipient"
    CANCELLED = "cancelled"
    DUPLICATE = "duplicate"
    EXPIRED = "expired"
    OBJECTED = "objected"
    CHOICE_NONE = "choice_none"
    NO_CHOICE = "no_choice"
    MODE_NOT_ALLOWED = "mode_not_allowed"
    NO_BASIS = "no_basis"
    MINOR = "minor"
    AGE_UNKNOWN = "age_unknown"
    NO_CURRENT_ACCOUNT = "no_current_account"
    CHANNEL_OFF = "channel_off"
    SUPPRESSED = "suppressed"
    NO_ADDRESS = "no_address"
    NO_OS_PERMISSION = "no_os_permission"
    WITHHELD_VARIABLE = "withheld_variable"
    MISSING_VARIABLE = "missing_variable"
    CONTENT_GUARD = "content_guard"
    TEMPLATE_NOT_APPROVED = "template_not_approved"
    HOUSEHOLD = "household"
    HELD_OUT = "held_out"
    FREQUENCY_CAPPED = "frequency_capped"
    QUIET_HOURS = "quiet_hours"
    FAULT = "fault"


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
class Sent:
    """A commercial message that the person may have got, or will: reserved when it is claimed. `no` grows with each."""

    no: int
    at: datetime
    channel: Channel
    offer_type: str


@dataclass(frozen=True, slots=True)
class Rest:
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
    rests: Mapping[str, Rest] = field(default_factory=dict)  # by channel
    sent: tuple[Sent, ...] = ()  # as far back as the policy's caps look; the message that is being decided is not among them
    profile: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # data category -> variable -> value

    def address(self, channel: Channel) -> str | None:
        """The address for e-mail, SMS and WhatsApp; push has `devices`."""
        if channel is Channel.EMAIL:
            return self.email
        if channel is Channel.SMS:
            return self.phone
        return self.whatsapp if channel is Channel.WHATSAPP else None


# -- what is asked -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Brief:
    """What a template declares about itself: the part of it that the policy looks at."""

    template: str
    kind: Kind
    offer_type: OfferType | None  # None for service messages
    modes: frozenset[Mode]  # the renderings that exist: tailored, standard or both
    topic: str | None = None  # regulated topic, such as "consumer_credit"
    coins: bool = False  # carries Kate Coins
    product: str | None = None  # what it sells, for the soft opt-in's "analogous"


@dataclass(frozen=True, slots=True)
class Job:
    """One request to reach one recipient; the same for all recipients of a campaign but `id` and `recipient_id`."""

    id: str  # message id of the job's first leg
    recipient_id: str
    entity: str
    brief: Brief
    channels: tuple[Channel, ...]  # in the order asked for
    route: str = "first"  # "first" | "all"
    campaign_id: str | None = None
    expires_at: datetime | None = None
    holdout_percent: float = 0.0
    approval: int | None = None  # the number of the approval that its exact text has; None without one


# -- what is decided ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reason:
    """One rule's objection on one channel. `evidence` names the fact behind it ("consent:12", "suppression:4", "policy:<key>")."""

    code: Code
    channel: Channel
    rule: str
    evidence: str


@dataclass(frozen=True, slots=True)
class Leg:
    """A permission: this channel, in this mode, on this basis. `evidence` names the choice or policy key it rests on."""

    channel: Channel
    mode: Mode
    basis: str  # "contract" | "legitimate_interest" | "soft_opt_in" | "consent" | "service"
    evidence: str
    categories: frozenset[str]  # data categories that may be used


@dataclass(frozen=True, slots=True)
class Send:
    """Leave now, on these legs (one for route "first"); `reasons` says why other asked channels were passed over."""

    legs: tuple[Leg, ...]
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class Hold:
    """Not now, but decide again at `until`."""

    until: datetime
    reasons: tuple[Reason, ...]

    @property
    def headline(self) -> Reason:
        """The reason that the balance counts."""
        return headline(self.reasons)


@dataclass(frozen=True, slots=True)
class Refuse:
    """Not, and not later. At least one reason per asked channel."""

    reasons: tuple[Reason, ...]

    @property
    def headline(self) -> Reason:
        """The reason that the balance counts."""
        return headline(self.reasons)


Decision: TypeAlias = Send | Hold | Refuse

_RANK = {code: rank for rank, code in enumerate(Code)}


def headline(reasons: tuple[Reason, ...]) -> Reason:
    """The strongest reason, by the order of `Code`; among equals the first asked channel's."""
    return min(reasons, key=lambda reason: _RANK[reason.code])


# -- what a campaign or a trigger asks ---------------------------------------------------------------------------------


class CampaignState(StrEnum):
    """The states of a campaign."""

    AWAITING_RELEASE = "awaiting_release"  # so large that a second person has to say yes
    SCHEDULED = "scheduled"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Spec:
    """What is asked for, of everyone in an audience alike. `offer_type` and `kind` are the template's, kept for the record."""

    template: str
    entity: str
    channels: tuple[Channel, ...]
    kind: Kind
    offer_type: OfferType | None = None
    route: str = "first"  # "first": the first allowed channel; "all": each allowed channel
    send_at: datetime | None = None
    expires_at: datetime | None = None
    rate_per_second: float | None = None
    holdout_percent: float = 0.0
    priority: int = 5  # 0 (first) to 9 (last)
    variants: tuple[tuple[str, str], ...] = ()  # names and templates of an A/B test; `template` is then the first one's
    one_per_household: bool = False  # of two registered partners, one
    fallback_after_seconds: float | None = None  # with route "first": how long a leg may go without a delivery report
    ttl_seconds: int | None = None  # how long a provider may go on trying to deliver a push or text
    collapse_key: str | None = None  # of several pushes with one key, a device keeps the last; None: as the template says

    @property
    def templates(self) -> tuple[str, ...]:
        """Every template that its messages may be written from."""
        return tuple(template for _, template in self.variants) or (self.template,)

    def after(self, channel: Channel) -> tuple[Channel, ...]:
        """The channels that come after this one in the order asked for."""
        return self.channels[self.channels.index(channel) + 1 :] if channel in self.channels else ()

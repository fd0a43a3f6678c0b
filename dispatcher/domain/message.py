"""The nouns of the house: frozen, plain, known to everyone. Pure: the standard library and `channels.base` only.

Words are those of GLOSSARY.md: a *job* is a request that may end in no message; a *message* is one leg of a job on one
channel; a *reason* says why not, with the evidence behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from channels.base import Channel


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


class State(StrEnum):
    """The states of a message."""

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


# -- what is asked -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TemplateInfo:
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
    info: TemplateInfo
    channels: tuple[Channel, ...]  # in the order asked for
    route: str = "first"  # "first" | "all"
    campaign_id: str | None = None
    expires_at: datetime | None = None
    holdout_percent: float = 0.0
    approval: int | None = None  # the number of the approval that its exact text has; None without one


@dataclass(frozen=True, slots=True)
class MessageStatus:
    """How a message stands when news of it comes. `returned` are the receipts of attempts that had reached nobody."""

    state: State
    attempts: int = 0
    returned: tuple[str, ...] = ()
    cancelled: bool = False  # its campaign: nothing of it leaves any more

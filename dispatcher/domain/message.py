"""Messages and jobs: states, kinds, modes, offer types, and what a template declares. Pure: frozen types without input or output.

A *job* is a request to reach one recipient and may end in no message; a *message* is one leg of a job, on one channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from channels.base import Channel


class OfferType(StrEnum):
    """The kind of offers that a choice is about."""

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


INTERNAL_STATES = frozenset({State.PENDING, State.CLAIMED})  # on the way to a state that is told outside


@dataclass(frozen=True, slots=True)
class TemplateInfo:
    """The part of a template's declaration that the policy uses."""

    template: str
    kind: Kind
    offer_type: OfferType | None  # None for service messages
    modes: frozenset[Mode]  # the modes in which it can be rendered: tailored, standard or both
    topic: str | None = None  # regulated topic, such as "consumer_credit"
    coins: bool = False  # carries Kate Coins
    product: str | None = None  # what it sells; the soft opt-in compares it with purchases


@dataclass(frozen=True, slots=True)
class Job:
    """A request to reach one recipient. The jobs of a campaign differ only in `id` and `recipient_id`."""

    id: str  # message id of the job's first leg
    recipient_id: str
    entity: str
    info: TemplateInfo
    channels: tuple[Channel, ...]  # in the requested order
    route: str = "first"  # "first" | "all"
    campaign_id: str | None = None
    expires_at: datetime | None = None
    holdout_percent: float = 0.0
    approval: int | None = None  # the number of the approval of its exact template version; None without one
    whatsapp_texts: frozenset[tuple[str, Mode]] = frozenset()  # the languages and modes whose text WhatsApp approved


@dataclass(frozen=True, slots=True)
class MessageStatus:
    """A message when a provider event about it arrives. `returned` are the receipts of attempts that reached nobody."""

    state: State
    attempts: int = 0
    returned: tuple[str, ...] = ()
    cancelled: bool = False  # its campaign is cancelled: it must not be sent again

"""The nouns of the house: frozen, plain, known to everyone. Pure: the standard library and `channels.base` only.

Words are those of GLOSSARY.md: a *job* is a request that may end in no message; a *message* is one leg of a job on one
channel; a *reason* says why not, with the evidence behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from channels.base import Channel
from dispatcher.domain.message import Kind, OfferType

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

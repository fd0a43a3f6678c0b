"""Campaigns: their states, and the spec of a campaign or trigger. Pure: frozen types without input or output."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from channels.base import Channel
from dispatcher.domain.message import Kind, OfferType


class CampaignState(StrEnum):
    """The states of a campaign."""

    AWAITING_RELEASE = "awaiting_release"  # so large that a second person has to release it
    SCHEDULED = "scheduled"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Spec:
    """What a campaign or trigger requests for all its jobs. `offer_type` and `kind` are copied from the template."""

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
    variants: tuple[tuple[str, str], ...] = ()  # (name, template) of each variant of an A/B test; `template` is the first one's
    one_per_household: bool = False  # at most one message for two registered partners
    fallback_after_seconds: float | None = None  # with route "first": how long a leg waits for a delivery report
    ttl_seconds: int | None = None  # how long a provider may try to deliver a push or text message
    collapse_key: str | None = None  # of several pushes with one key, a device shows the last; None: the template's key

    @property
    def templates(self) -> tuple[str, ...]:
        """All templates of the variants, or the one template."""
        return tuple(template for _, template in self.variants) or (self.template,)

    def after(self, channel: Channel) -> tuple[Channel, ...]:
        """The channels that come after this one in the requested order."""
        return self.channels[self.channels.index(channel) + 1 :] if channel in self.channels else ()

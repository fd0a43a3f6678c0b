"""Campaigns: their states, and the spec of a campaign or trigger. Pure: frozen types without input or output."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from channels.base import Channel
from dispatcher.domain.campaign_options import CampaignOptions
from dispatcher.domain.message import Kind, OfferType


class CampaignState(StrEnum):
    """The states of a campaign."""

    AWAITING_RELEASE = "awaiting_release"  # large, with seeds, or with many unreadable rows: a second person has to release it
    SCHEDULED = "scheduled"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Spec(CampaignOptions):
    """What a campaign or trigger requests for all its jobs. `offer_type` and `kind` are copied from the template."""

    template: str
    entity: str
    channels: tuple[Channel, ...]
    kind: Kind
    offer_type: OfferType | None = None
    variants: tuple[tuple[str, str], ...] = ()  # (name, template) of each variant of an A/B test; `template` is the first one's
    # The trace of the submission, a W3C `traceparent`: what happens to the messages joins it. It is no part of what was submitted.
    trace: str | None = field(default=None, compare=False)

    @property
    def templates(self) -> tuple[str, ...]:
        """All templates of the variants, or the one template."""
        return tuple(template for _, template in self.variants) or (self.template,)

    @property
    def messages_per_job(self) -> int:
        """How many messages a job asks for at once."""
        return len(self.channels) if self.route == "all" else 1

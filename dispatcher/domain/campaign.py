"""Campaigns: their states, their options, and the spec of a campaign or trigger. Pure: frozen types without input or output."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal

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


# -- options -----------------------------------------------------------------------------------------------------------
# An option is declared here and nowhere else. The form, its checks, the stored JSON, the API and the reference pages follow from
# the declaration. `metadata` holds the limits that the form checks, under pydantic's names. Every option has a default, so that
# campaigns that were stored before it can still be read.


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerOptions:
    """What a trigger may request beside its template and channels, and a campaign too."""

    expires_at: datetime | None = None
    # With route "first": how long a leg waits for a delivery report.
    fallback_after_seconds: float | None = field(default=None, metadata={"ge": 1, "le": 30 * 86_400})


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignOptions(TriggerOptions):
    """What a campaign may request beside its template, channels and audience."""

    route: Literal["first", "all"] = "first"  # "first": the first allowed channel; "all": each allowed channel
    send_at: datetime | None = None
    rate_per_second: float | None = field(default=None, metadata={"ge": 0.001, "le": 1_000_000})  # at least one in 17 minutes
    holdout_percent: float = field(default=0.0, metadata={"ge": 0, "le": 100})
    priority: int = field(default=5, metadata={"ge": 0, "le": 9})  # 0 (first) to 9 (last)
    one_per_household: bool = False  # at most one message for two registered partners
    # How long a provider may try to deliver a push or text message.
    ttl_seconds: int | None = field(default=None, metadata={"ge": 1, "le": 28 * 86_400})
    # Of several pushes with one key, a device shows the last; None: the template's key. The pattern is web push's for Topic, the
    # narrowest of all.
    collapse_key: str | None = field(default=None, metadata={"pattern": r"^[A-Za-z0-9_-]{1,32}$"})


@dataclass(frozen=True, slots=True)
class Spec(CampaignOptions):
    """What a campaign or trigger requests for all its jobs. `offer_type` and `kind` are copied from the template."""

    template: str
    entity: str
    channels: tuple[Channel, ...]
    kind: Kind
    offer_type: OfferType | None = None
    variants: tuple[tuple[str, str], ...] = ()  # (name, template) of each variant of an A/B test; `template` is the first one's

    @property
    def templates(self) -> tuple[str, ...]:
        """All templates of the variants, or the one template."""
        return tuple(template for _, template in self.variants) or (self.template,)

    @property
    def messages_per_job(self) -> int:
        """How many messages a job asks for at once."""
        return len(self.channels) if self.route == "all" else 1

    def after(self, channel: Channel) -> tuple[Channel, ...]:
        """The channels that come after this one in the requested order."""
        return self.channels[self.channels.index(channel) + 1 :] if channel in self.channels else ()

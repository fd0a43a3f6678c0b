"""The options of campaigns and triggers. An option is declared here and nowhere else. Pure: frozen types without input or output.

The form, its checks, the stored JSON, the API and the reference pages follow from the declaration. `metadata` holds the limits that
the form checks, under pydantic's names. Every option has a default, so that campaigns that were stored before it can still be read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NewType

# What can be changed while a campaign does not run; and of this, what a person who releases it must have seen.
EDITABLE = ("send_at", "rate_per_second", "expires_at", "priority")
MATERIAL = frozenset({"send_at", "rate_per_second", "expires_at"})

# Labels of campaigns and triggers. They are in events and exports: their form leaves no room for an address or a phone number.
Tag = NewType("Tag", str)
CostCentre = NewType("CostCentre", str)
TAG_PATTERN = r"^[a-z]([0-9]{0,6}[a-z_-])*[0-9]{0,6}$"
TAG_LENGTH_MAX = 30
TAGS_MAX = 10
COST_CENTRE_PATTERN = r"^([A-Za-z]|[0-9]{1,8}$|[0-9]{1,8}[A-Za-z._/-])([0-9]{0,8}[A-Za-z._/-])*[0-9]{0,8}$"
COST_CENTRE_LENGTH_MAX = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerOptions:
    """The options that triggers and campaigns share."""

    send_at: datetime | None = None
    expires_at: datetime | None = None
    # With route "first": how long a leg waits for a delivery report.
    fallback_after_seconds: float | None = field(default=None, metadata={"ge": 1, "le": 30 * 86_400})
    tags: tuple[Tag, ...] = field(default=(), metadata={"max_length": TAGS_MAX})
    cost_centre: CostCentre | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignOptions(TriggerOptions):
    """The options of a campaign."""

    route: Literal["first", "all"] = "first"  # "first": the first allowed channel; "all": each allowed channel
    rate_per_second: float | None = field(
        default=None, metadata={"ge": 0.001, "le": 1_000_000}
    )  # the minimum is one message in 17 minutes
    holdout_percent: float = field(default=0.0, metadata={"ge": 0, "le": 100})
    priority: int = field(default=5, metadata={"ge": 0, "le": 9})  # 0 (first) to 9 (last)
    one_per_household: bool = False  # at most one message for two registered partners
    # How long a provider may try to deliver a push or text message.
    ttl_seconds: int | None = field(default=None, metadata={"ge": 1, "le": 28 * 86_400})
    # Of several pushes with one key, a device shows the last; None: the template's key. The pattern is web push's for Topic, the
    # narrowest of all.
    collapse_key: str | None = field(default=None, metadata={"pattern": r"^[A-Za-z0-9_-]{1,32}$"})
    # Testers of the policy who get it, with example values, before it is released: a campaign with seeds waits for its release.
    seeds: tuple[str, ...] = field(default=(), metadata={"max_length": 20})
    sender: str | None = field(default=None, metadata={"max_length": 30})  # of the policy's campaign_senders of its entity
    reply_to: str | None = field(default=None, metadata={"max_length": 200})  # of the policy's reply_to of its entity

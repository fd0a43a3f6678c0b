"""Responses about campaigns."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel

from channels.base import Channel
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.message import State
from dispatcher.web.api.schemas.audiences import AudienceErrorBody


class CampaignAccepted(BaseModel):
    """A campaign that is completely in the ledger, unless it is `loading`: then `audience` counts the rows so far.

    `faults` has the first rows that could not be read.
    """

    id: str
    audience: int
    invalid: int
    loading: bool
    faults: list[AudienceErrorBody]


class SmsCostBody(BaseModel):
    """What the text messages would cost by the policy's prices. `unpriced` has the segments by country that have no price."""

    currency: str
    total: float
    unpriced: dict[str, int]


class DryRunBody(BaseModel):
    """What a campaign would do. `states` adds up to `audience`: `sendable`, or the state in which the others would end.

    `reasons` counts recipients by reason code, `channels` and `variants` messages, `sms` text messages by their length, and
    `segments` their segments by country. `needs` says what people have to do before it can start. Nothing was sent or kept.
    """

    id: str
    state: Literal["dry_run"]
    audience: int
    invalid: int
    states: dict[str, int]
    reasons: dict[str, int]
    channels: dict[Channel, int]
    variants: dict[str, int]
    sms: dict[str, int]
    segments: dict[str, int]
    cost: SmsCostBody | None
    needs: list[str]
    tags: list[str]
    cost_centre: str | None
    sender: str | None  # of the policy's campaign_senders; null: the entity's own
    reply_to: str | None


class CampaignSummary(BaseModel):
    """A campaign in a list."""

    id: str
    state: CampaignState
    template: str
    audience: int
    invalid: int
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    tags: list[str]
    cost_centre: str | None


class CampaignList(BaseModel):
    """The newest campaigns, newest first."""

    campaigns: list[CampaignSummary]


class CampaignEditBody(BaseModel):
    """One edit of a campaign: each option with its value before and after."""

    version: int
    at: AwareDatetime
    by: str
    changes: dict[str, list[Any]]


class CampaignBody(BaseModel):
    """A campaign and the states of its audience; `balance` adds up to `audience`."""

    id: str
    state: CampaignState
    template: str
    entity: str
    audience: int
    invalid: int
    balance: dict[State, int]
    reasons: dict[str, int]
    channels: dict[Channel, dict[State, int]]
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    messages_per_second: float | None
    variants: dict[str, dict[State, int]]
    submitted_by: str
    released_by: str | None
    note: str
    loading: bool  # its audience is not complete yet: `audience` counts the rows so far, and nothing is sent
    send_at: AwareDatetime | None
    expires_at: AwareDatetime | None
    rate_per_second: float | None
    priority: int
    tags: list[str]
    cost_centre: str | None
    sender: str | None  # of the policy's campaign_senders; null: the entity's own
    reply_to: str | None
    version: int  # the number of its edits, and its ETag
    edits: list[CampaignEditBody]


class RowsAdded(BaseModel):
    """How many rows were added to a campaign; `faults` has the first that could not be read. `audience` counts all its rows."""

    id: str
    state: CampaignState
    audience: int
    added: int
    invalid: int
    faults: list[AudienceErrorBody]


class CampaignStateBody(BaseModel):
    """A campaign's state after a release, pause, resume or cancel."""

    id: str
    state: CampaignState

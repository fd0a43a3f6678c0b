"""Responses about messages."""

from __future__ import annotations

from typing import Any

from pydantic import AwareDatetime, BaseModel

from channels.base import Channel
from dispatcher.domain.message import State
from dispatcher.domain.recipient import Language


class MessageAccepted(BaseModel):
    """A message that will be decided and, if it is allowed, sent."""

    id: str


class DeliveryReportBody(BaseModel):
    """A provider's report about a message."""

    provider: str
    kind: str
    code: str | None
    at: AwareDatetime
    extra: dict[str, str]  # fields that no rule uses; kept for a short time


class MessageBody(BaseModel):
    """A message: its state, and the decision behind it as the ledger stores it."""

    id: str
    campaign: str | None
    recipient: str
    template: str
    channel: Channel | None
    state: State
    reason: str | None
    until: AwareDatetime | None
    attempts: int
    provider: str | None
    receipt: str | None
    claimed_at: AwareDatetime | None
    accepted_at: AwareDatetime | None
    updated_at: AwareDatetime | None
    decision: dict[str, Any]
    events: list[DeliveryReportBody]


class MessageLine(BaseModel):
    """A message in a list. A job that is not decided yet is `pending`, without a time."""

    id: str
    campaign: str | None
    recipient: str
    channel: Channel | None
    state: State
    reason: str | None
    attempts: int
    updated_at: AwareDatetime | None


class MessageList(BaseModel):
    """A page of messages, newest first; perhaps with fewer than `limit`. `next` is the next page's cursor, null at the end."""

    messages: list[MessageLine]
    next: str | None


class ExplanationBody(BaseModel):
    """Why a message was sent or not: sentences by subject, and `text`, which is all of them."""

    id: str
    recipient: str
    state: State
    reason: str | None
    language: Language
    at: AwareDatetime | None
    what: list[str]
    why: list[str]
    data: list[str]
    change: list[str]
    who: list[str]
    contact: list[str]
    text: str

"""Responses about endpoints that events are delivered to."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, Field


class EndpointRange(BaseModel):
    """Events by number, from the first to the last, that are dead or are delivered again. `error` is that of the last attempt."""

    number: int
    from_: int = Field(alias="from")
    to: int
    attempts: int
    error: str | None
    since: AwareDatetime


class EndpointChangeBody(BaseModel):
    """Who changed an endpoint, when and how. `detail` has names of fields and numbers of events; `reason` is of a skip."""

    endpoint: str
    at: AwareDatetime
    by: str
    action: str
    reason: str
    detail: dict[str, Any]


class EndpointBody(BaseModel):
    """An endpoint that events are delivered to. `cursor` is the last event that is done; `dead` could not be delivered."""

    id: str
    url: str
    state: Literal["active", "disabled"]
    disabled_reason: str | None
    types: list[str]
    entities: list[str]
    campaigns: list[str]
    batch_max: int
    cursor: int
    lag_events: int
    lag_seconds: float
    attempts: int
    error: str | None
    failing_since: AwareDatetime | None
    next_try_at: AwareDatetime | None
    delivered_at: AwareDatetime | None
    secret_version: int
    old_secret_until: AwareDatetime | None
    created_by: str
    created_at: AwareDatetime
    replays: list[EndpointRange]
    dead: list[EndpointRange]
    changes: list[EndpointChangeBody]


class EndpointAdded(EndpointBody):
    """A new endpoint, and the secret that its receiver needs."""

    secret: str


class EndpointList(BaseModel):
    """All endpoints."""

    endpoints: list[EndpointBody]


class EndpointTest(BaseModel):
    """What a receiver answered to a test event; `error` is null for a status of 2xx, `status` is null without an answer."""

    webhook_id: str
    status: int | None
    error: str | None
    milliseconds: int


class EndpointSecret(BaseModel):
    """The newest secret of an endpoint."""

    id: str
    secret: str

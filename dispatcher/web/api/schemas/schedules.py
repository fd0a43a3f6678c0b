"""Responses about recurring campaigns."""

from __future__ import annotations

from typing import Any

from pydantic import AwareDatetime, BaseModel

from dispatcher.campaigns.schedules import RunState, ScheduleState


class ScheduleLine(BaseModel):
    """A recurring campaign in a list. `next_at` is null while it is paused or waits for its approval, and at its end."""

    id: str
    state: ScheduleState
    cron: str
    zone: str
    next_at: AwareDatetime | None
    submitted_by: str
    approved_by: str | None


class ScheduleList(BaseModel):
    """All recurring campaigns; those that ended come last."""

    schedules: list[ScheduleLine]


class NextRunBody(BaseModel):
    """A run that is to come, and the id that its campaign will have."""

    at: AwareDatetime
    campaign: str


class ScheduleRunBody(BaseModel):
    """A run: the campaign that it started, or why it was skipped or failed. `upload` is its audience."""

    at: AwareDatetime
    campaign: str
    state: RunState
    reason: str | None
    message: str
    upload: str | None


class ScheduleChangeBody(BaseModel):
    """What somebody did with a recurring campaign, and its state after that."""

    at: AwareDatetime
    by: str
    action: str
    state: ScheduleState


class ScheduleBody(ScheduleLine):
    """A recurring campaign with its next runs, its latest ones, and who did what."""

    campaign: dict[str, Any]
    ends_at: AwareDatetime | None
    expires_after_minutes: int | None
    audience_max: int | None
    created_at: AwareDatetime
    next_runs: list[NextRunBody]
    runs: list[ScheduleRunBody]
    changes: list[ScheduleChangeBody]

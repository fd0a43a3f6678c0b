"""Recurring campaigns from YAML and JSON: checked as the campaigns that they will become."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints, field_validator

from dispatcher.domain.audience_urls import LENGTH_MAX
from dispatcher.domain.local_times import zone_names
from dispatcher.domain.run_times import BadCron, check_cron
from dispatcher.domain.spelling import did_you_mean
from dispatcher.intake.campaign import CampaignRequest, SubmissionDigest, ValidationContext, check_campaign, parse_request
from dispatcher.intake.errors import BadInput, InputError, Moment, StrictModel, validate
from dispatcher.intake.yaml_file import read_yaml

FILE = "schedule"  # how errors name JSON
OF_ONE_RUN = ("id", "send_at", "expires_at")  # fields of a campaign that each run has for itself
DATE = "{date}"

ScheduleId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,79}$")]


class ScheduleForm(StrictModel):
    """A recurring campaign as people write it. Each run takes the newest upload that `campaign.audience.upload` describes, or what
    `campaign.audience.url` has at its time."""

    id: ScheduleId = Field(description="its name; a run's campaign is called weekly-2026-12-01T0900")
    cron: str = Field(max_length=100, description="minute, hour, day of the month, month, day of the week: 0 9 * * 1")
    zone: str = Field(max_length=60, description="the time zone in which that is read, such as Europe/Brussels")
    campaign: dict[str, Any] = Field(
        description='a campaign without id, send_at and expires_at; its audience is {"upload": "weekly-*"}: the newest upload'
        ' whose id begins so, or one with {date}, the day of the run; or {"url": "https://…"}, fetched at each run'
    )
    ends_at: Moment | None = Field(default=None, description="no run after this")
    expires_after_minutes: int | None = Field(
        default=None, ge=1, le=525_600, description="what a run has not sent by then expires; it counts from the run's time"
    )
    audience_max: int | None = Field(
        default=None, ge=1, description="with approval of the definition: a run with more recipients waits for its release"
    )

    @field_validator("cron")
    @classmethod
    def _cron(cls, text: str) -> str:
        try:
            check_cron(text)
        except BadCron as error:
            raise ValueError(str(error)) from None
        return " ".join(text.split())

    @field_validator("zone")
    @classmethod
    def _zone(cls, name: str) -> str:
        zones = zone_names()
        if name not in zones:
            raise ValueError(f"unknown time zone{did_you_mean(name, zones)}; such as Europe/Brussels")
        return name


class AudiencePattern(StrictModel):
    """Which upload is a run's audience: `*` at the end stands for any text, {date} for the day of the run."""

    upload: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._:-]|\{date\}){0,99}\*?$")]

    @property
    def is_fresh(self) -> bool:
        """Whether another run can get another upload: an upload does not change once it is complete."""
        return self.upload.endswith("*") or DATE in self.upload

    def regex(self, day: date) -> re.Pattern[str]:
        """The ids of uploads that a run of this day can take."""
        text = self.upload.replace(DATE, day.isoformat())
        return re.compile(re.escape(text[:-1]) + ".*" if text.endswith("*") else re.escape(text), re.ASCII)


class AudienceUrlPattern(StrictModel):
    """From where each run fetches its audience: {date} stands for the day of the run."""

    url: Annotated[str, StringConstraints(min_length=1, max_length=LENGTH_MAX)]

    def at(self, day: date) -> str:
        """The URL of a run of this day."""
        return self.url.replace(DATE, day.isoformat())


@dataclass(frozen=True, slots=True)
class Schedule:
    """A checked definition."""

    form: ScheduleForm
    audience: AudiencePattern | AudienceUrlPattern

    @property
    def definition(self) -> dict[str, Any]:
        """The form as JSON, without defaults."""
        return self.form.model_dump(mode="json", exclude_defaults=True)


def read_schedule(path: Path, context: ValidationContext) -> Schedule:
    """A recurring campaign from its YAML file. Raises `BadInput`."""
    form, lines = read_yaml(path)
    return _checked(validate(ScheduleForm, form, str(path), lines), context, str(path), lines)


def parse_schedule(form: Mapping[str, Any], context: ValidationContext) -> Schedule:
    """A recurring campaign from JSON. Raises `BadInput`."""
    return _checked(validate(ScheduleForm, form, FILE), context, FILE, {})


def stored_schedule(definition: Mapping[str, Any]) -> Schedule:
    """A definition as the ledger has it: it was checked when it came in."""
    form = validate(ScheduleForm, definition, FILE)
    named = form.campaign["audience"]
    return Schedule(form, _pattern(named))


def _checked(form: ScheduleForm, context: ValidationContext, file: str, lines: Mapping[str, int]) -> Schedule:
    """Raises `BadInput` where the policy, the templates or the clock refuse it now."""
    line = lines.get("campaign", 0)
    faults = [
        InputError(file, line, f"campaign.{name}", "is each run's own; leave it out")
        for name in OF_ONE_RUN
        if form.campaign.get(name) is not None
    ]
    if form.ends_at is not None and form.ends_at <= context.now:
        faults.append(InputError(file, lines.get("ends_at", 0), "ends_at", "lies in the past"))
    try:
        audience = _audience(form)
        check_campaign(_without_rows(form), context)
    except BadInput as error:
        faults += [InputError(file, line, f"campaign.{each.field}".rstrip("."), each.message) for each in error.faults]
    if faults:
        raise BadInput(*faults)
    return Schedule(form, audience)


def _audience(form: ScheduleForm) -> AudiencePattern | AudienceUrlPattern:
    named = form.campaign.get("audience")
    if not isinstance(named, dict):
        expected = 'should be {"upload": "weekly-*"}: each run takes the newest upload of that name; or {"url": "https://…"}'
        raise BadInput(InputError(FILE, 0, "audience", expected))
    try:
        pattern = _pattern(named)
    except BadInput as error:
        raise BadInput(*(InputError(FILE, 0, f"audience.{each.field}", _readable(each)) for each in error.faults)) from None
    if isinstance(pattern, AudienceUrlPattern):
        if "?" in pattern.url:
            message = "must have no query: the definition is stored and shown, and a query can hold a token"
            raise BadInput(InputError(FILE, 0, "audience.url", message))
    elif not pattern.is_fresh:
        message = "should end in * or have {date} in it: an upload does not change, so each run would have the same audience"
        raise BadInput(InputError(FILE, 0, "audience.upload", message))
    return pattern


def _pattern(named: Mapping[str, Any]) -> AudiencePattern | AudienceUrlPattern:
    return validate(AudienceUrlPattern, named, FILE) if "url" in named else validate(AudiencePattern, named, FILE)


def _readable(error: InputError) -> str:
    if "pattern" not in error.message:
        return error.message
    return "should be the id of an upload, with {date} in it or * at its end, such as weekly-*"


def _without_rows(form: ScheduleForm) -> CampaignRequest:
    """The campaign of some run, to be checked."""
    fields = {name: value for name, value in form.campaign.items() if name not in (*OF_ONE_RUN, "audience")}
    request = parse_request({**fields, "id": form.id, "audience": []})
    return CampaignRequest(request.form, (), SubmissionDigest(), FILE, {})


def run_form(schedule: Schedule, campaign_id: str, upload: str, at: datetime) -> dict[str, Any]:
    """The form of the campaign of a run at this time."""
    minutes = schedule.form.expires_after_minutes
    expires_at = at + timedelta(minutes=minutes) if minutes else None
    expiry = {"expires_at": expires_at.isoformat()} if expires_at else {}
    return {**schedule.form.campaign, "id": campaign_id, "audience": {"upload": upload}, **expiry}

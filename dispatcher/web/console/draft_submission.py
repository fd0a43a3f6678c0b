"""The last pages of a draft: when it is sent, and its submission."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from dispatcher.campaigns import draft_checks, drafts, overview, scheduler
from dispatcher.campaigns.drafts import Draft, SubmitStatus
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.intake.errors import BadInput
from dispatcher.runtime.services import Services
from dispatcher.web import auditing
from dispatcher.web.console.day_plan import QuietRow, quiet_on, same_day
from dispatcher.web.console.draft_forms import (
    CHANGED_ELSEWHERE,
    LOOK_AGAIN,
    NO_ERRORS,
    DraftNo,
    Errors,
    OwnDraft,
    PostedForm,
    by_field,
    entity_of,
    is_outdated,
    mark_of,
    mark_of_all,
    own_draft,
    without_commands,
)
from dispatcher.web.console.login import Operator
from dispatcher.web.console.session import ConsoleSession
from dispatcher.web.console.time_fields import TIME_FIELDS, read_times, shown_times
from dispatcher.web.dependencies import PublisherDependency, ServicesDependency, publish_or_defer
from dispatcher.web.pages.console import page

router = APIRouter(prefix="/drafts/{no}", default_response_class=HTMLResponse)


@router.get("/schedule")
def schedule_page(operator: Operator, services: ServicesDependency, draft: OwnDraft) -> str:
    """When the campaign starts, how fast it is, and when it ends."""
    return _schedule_page(operator, services, draft, draft.form, shown_times(draft.form, services.policy.default_zone), NO_ERRORS)


@router.post("/schedule")
def change_schedule(operator: Operator, services: ServicesDependency, draft: OwnDraft, posted: PostedForm) -> Response:
    """Take the times and the rate. "Show the day" only shows what else is planned then."""
    zone = services.policy.default_zone
    values, entered, errors = read_times(posted, zone)
    form = {**{name: value for name, value in draft.form.items() if name not in TIME_FIELDS}, **values}
    if is_outdated(posted, mark_of(draft, TIME_FIELDS)):
        errors = {**errors, "": [CHANGED_ELSEWHERE]}
    if not errors:
        try:
            drafts.change_time(services, draft, form)
        except BadInput as error:
            errors = by_field(error.faults, TIME_FIELDS)
    if errors:
        text = _schedule_page(operator, services, draft, form, entered, errors)
        return HTMLResponse(text, HTTPStatus.UNPROCESSABLE_ENTITY)
    to = "schedule" if posted.text("then") == "show" else "submit"
    return RedirectResponse(f"/console/drafts/{draft.no}/{to}", HTTPStatus.SEE_OTHER)


def _schedule_page(
    operator: ConsoleSession,
    services: Services,
    draft: Draft,
    form: Mapping[str, Any],
    entered: Mapping[str, str],
    errors: Errors,
) -> str:
    start = start_of(services, form)
    return page(
        "draft_schedule.html",
        operator=operator,
        draft=draft,
        entered=entered,
        shown=mark_of(draft, TIME_FIELDS),
        errors=errors,
        zone=services.policy.default_zone,
        quiet=_quiet(services, form, start),
        start=start,
        others=same_day(operator, services, start),
        seconds=draft_checks.seconds_at_rate(dict(draft.dry_run), form.get("rate_per_second")) if draft.dry_run else None,
    )


def start_of(services: Services, form: Mapping[str, Any]) -> datetime:
    """When a campaign with this form starts."""
    text = form.get("send_at")
    return datetime.fromisoformat(text) if text else services.clock()


def _quiet(services: Services, form: Mapping[str, Any], start: datetime) -> list[QuietRow]:
    """The quiet hours of the campaign's channels."""
    try:
        channels = drafts.check_form(services, {**form, "send_at": None, "expires_at": None}).channels
    except BadInput:
        return []
    return quiet_on(services, channels, start)


@router.get("/submit")
def summary_page(operator: Operator, services: ServicesDependency, draft: OwnDraft) -> str:
    """All of the campaign on one page, and what keeps it from being submitted."""
    return _summary_page(operator, services, draft, [])


def _summary_page(operator: ConsoleSession, services: Services, draft: Draft, messages: list[str]) -> str:
    obstacles = [without_commands(each) for each in drafts.obstacles(services, draft)]
    return page(
        "draft_submit.html",
        operator=operator,
        draft=draft,
        shown=mark_of_all(draft),
        messages=messages,
        obstacles=obstacles,
        templates=drafts.check_names(draft.form),
        entity=entity_of(services, draft.form),
        zone=services.policy.default_zone,
        times=shown_times(draft.form, services.policy.default_zone),
        four_eyes_min=services.policy.four_eyes_audience_min,
        awaits_release=drafts.awaits_release(services, draft),
    )


@router.post("/submit")
def submit_draft(
    operator: Operator,
    request: Request,
    services: ServicesDependency,
    broker: PublisherDependency,
    no: DraftNo,
    posted: PostedForm,
) -> Response:
    """Submit the campaign in the name of the signed-in person. A second press of the button leads to the same campaign."""
    before = _submitted(services, operator, posted.text("campaign"))
    if before and drafts.find(services, no, operator.principal.id) is None:
        return RedirectResponse(f"/console/campaigns/{before}", HTTPStatus.SEE_OTHER)
    draft = own_draft(operator, services, no)
    if is_outdated(posted, mark_of_all(draft)):
        return HTMLResponse(_summary_page(operator, services, draft, [LOOK_AGAIN]), HTTPStatus.CONFLICT)
    if drafts.obstacles(services, draft):  # the page lists them
        return HTMLResponse(_summary_page(operator, services, draft, []), HTTPStatus.UNPROCESSABLE_ENTITY)
    campaign_id = str(draft.form["id"])
    auditing.note(request, AuditNote(AuditAction.SUBMIT, "campaign", campaign_id, entity=entity_of(services, draft.form)))
    try:
        result = drafts.submit(services, draft, operator.principal.id)
    except BadInput as error:
        auditing.refused(request)
        messages = [
            without_commands(f"{fault.field}: {fault.message}" if fault.field else fault.message) for fault in error.faults[:20]
        ]
        return HTMLResponse(_summary_page(operator, services, draft, messages), HTTPStatus.UNPROCESSABLE_ENTITY)
    if result.status is SubmitStatus.CONFLICT:
        auditing.refused(request)
        taken = f"Another campaign has the name {campaign_id} already: choose another one in the first step."
        return HTMLResponse(_summary_page(operator, services, draft, [taken]), HTTPStatus.CONFLICT)
    publish_or_defer(broker.publish, scheduler.due_chunks(services))
    if result.load is not None:
        publish_or_defer(broker.publish_load, result.load)
    return RedirectResponse(f"/console/campaigns/{campaign_id}", HTTPStatus.SEE_OTHER)


def _submitted(services: Services, operator: ConsoleSession, campaign_id: str) -> str:
    """The campaign of this name, where this person submitted it; else ""."""
    found = overview.find(services, campaign_id, operator.principal.entities) if campaign_id and "\0" not in campaign_id else None
    return found.id if found is not None and found.submitted_by == operator.principal.id else ""

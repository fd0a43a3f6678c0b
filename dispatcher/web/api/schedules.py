"""`/v1/schedules`: recurring campaigns."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Path, Request, Response

from dispatcher.campaigns import schedules
from dispatcher.campaigns.schedules import ScheduleAction
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.principal import is_same_principal, require
from dispatcher.intake.schedule import ScheduleForm
from dispatcher.web import auditing
from dispatcher.web.api.authorization import CallerEntities, needs
from dispatcher.web.api.openapi import body
from dispatcher.web.api.schemas.schedules import ScheduleBody, ScheduleList
from dispatcher.web.api_keys import ApiKey, Right
from dispatcher.web.dependencies import JsonObject, ServicesDependency
from dispatcher.web.errors import problem_responses
from dispatcher.web.serializers.schedules import schedule_line, schedule_view

ScheduleId = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,79}$", description="The id of the recurring campaign.")]
Action = Annotated[ScheduleAction, Path(description="What to do.")]
CampaignsKey = Annotated[ApiKey, Depends(needs(Right.CAMPAIGNS))]

router = APIRouter(prefix="/schedules", tags=["schedules"], dependencies=[Depends(needs(Right.CAMPAIGNS))])


@router.get("", response_model=ScheduleList)
def list_schedules(services: ServicesDependency, entities: CallerEntities) -> dict[str, Any]:
    """All recurring campaigns, with the time of the next run."""
    return {"schedules": [schedule_line(each) for each in schedules.every(services, entities)]}


@router.post(
    "",
    status_code=201,
    response_model=ScheduleBody,
    responses=problem_responses(409, 422),
    openapi_extra=body(ScheduleForm, "Schedule"),
)
def add_schedule(
    caller: CampaignsKey, request: Request, form: JsonObject, services: ServicesDependency, response: Response
) -> dict[str, Any]:
    """Add a recurring campaign: a cron expression in a time zone, and a campaign whose audience describes an upload.

    Each run is a campaign of its own. The same definition again gets the same answer; another one under this id, 409. Where the
    policy wants it, the definition waits for approval by another key than the one that submitted it.
    """
    schedule = schedules.parse(services, form)
    require(caller.principal, Right.CAMPAIGNS, schedules.entity_of(services, schedule.definition))
    auditing.note(request, AuditNote(AuditAction.ADD, "schedule", schedule.form.id))
    status = schedules.add(services, schedule, caller.name)
    response.headers["Location"] = f"/v1/schedules/{status.schedule.id}"
    return schedule_view(status)


@router.get("/{schedule_id}", response_model=ScheduleBody, responses=problem_responses(404))
def show_schedule(schedule_id: ScheduleId, services: ServicesDependency, entities: CallerEntities) -> dict[str, Any]:
    """A recurring campaign with its next runs, its latest ones, and who did what."""
    return schedule_view(schedules.status(services, schedule_id, entities))


@router.post("/{schedule_id}/{action}", response_model=ScheduleBody, responses=problem_responses(404, 409))
def act_on_schedule(caller: CampaignsKey, schedule_id: ScheduleId, action: Action, services: ServicesDependency) -> dict[str, Any]:
    """Approve, pause, resume or end. One already in the wanted state gets the same answer; what is not possible, 409.

    Only another key than the submitter's approves; only the submitter's pauses, resumes and ends: to others the answer is 403.
    Runs that fall into a pause do not take place. Campaigns that have started go on.
    """
    submitted_by = schedules.status(services, schedule_id, caller.entities).schedule.submitted_by
    if action is not ScheduleAction.APPROVE and not is_same_principal(submitted_by, caller.name):
        raise HTTPException(HTTPStatus.FORBIDDEN, f"it was submitted by {submitted_by}, who alone can do this")
    return schedule_view(schedules.act(services, schedule_id, action, caller.name, caller.entities))

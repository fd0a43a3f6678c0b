"""`/v1/campaigns`."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from threading import Lock
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime

from dispatcher.campaigns import actions, audience_fetch, dry_run, editing, overview, row_addition, scheduler, submission
from dispatcher.campaigns.actions import CampaignAction
from dispatcher.campaigns.drafts import submitted_entity
from dispatcher.campaigns.overview import CampaignFilter
from dispatcher.campaigns.row_addition import RowSource
from dispatcher.campaigns.submission import SubmitStatus
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.principal import require
from dispatcher.intake.campaign import CampaignForm, CampaignRequest, RowsForm, check_campaign, parse_request, parse_rows
from dispatcher.intake.campaign_edit import CampaignEditForm, parse_edit
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.runtime.services import Services
from dispatcher.web import auditing
from dispatcher.web.api.authorization import CallerEntities, needs
from dispatcher.web.api.etags import etag, expected_version
from dispatcher.web.api.openapi import body
from dispatcher.web.api.schemas.audiences import AudienceErrorBody
from dispatcher.web.api.schemas.campaigns import (
    CampaignAccepted,
    CampaignBody,
    CampaignList,
    CampaignStateBody,
    DryRunBody,
    RowsAdded,
)
from dispatcher.web.api_keys import ApiKey, Right
from dispatcher.web.dependencies import CampaignObject, JsonObject, PublisherDependency, ServicesDependency, publish_or_defer
from dispatcher.web.errors import problem_responses
from dispatcher.web.serializers.campaigns import campaign_line, campaign_view, dry_run_view

CampaignId = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$", description="The id of the campaign.")]
IfMatch = Annotated[str | None, Header(alias="If-Match", description="The ETag of the campaign that the person saw.")]
Action = Annotated[CampaignAction, Path(description="What to do.")]
CampaignsKey = Annotated[ApiKey, Depends(needs(Right.CAMPAIGNS))]
ERRORS_SHOWN = 20
LOADING_SECONDS = 2  # until a caller should ask again
UPLOAD_SECONDS = 10  # how long a call loads an uploaded audience; workers go on
DRY_RUN_LOCK = Lock()  # of this process

router = APIRouter(prefix="/campaigns", tags=["campaigns"], dependencies=[Depends(needs(Right.CAMPAIGNS))])


class DryRunParameters:
    """The query parameters of a dry run, and the call itself."""

    def __init__(
        self,
        call: Request,
        dry_run: Annotated[bool, Query(description="Decide and render every message; send and keep nothing.")] = False,
        as_of: Annotated[AwareDatetime | None, Query(description="With `dry_run`: decide as at this moment.")] = None,
    ) -> None:
        if as_of is not None and not dry_run:
            raise BadInput(InputError("query", 0, "as_of", "needs dry_run=true: a real campaign is sent now"))
        self.dry_run, self.as_of, self.call = dry_run, as_of, call


@router.post(
    "",
    status_code=201,
    response_model=CampaignAccepted,
    responses={
        200: {"model": DryRunBody, "description": "The result of a dry run"},
        202: {"model": CampaignAccepted, "description": "Another call loads the same audience: ask again"},
        **problem_responses(403, 409, 422, 429),
    },
    openapi_extra=body(CampaignForm, "Campaign"),
)
def submit_campaign(
    caller: CampaignsKey,
    form: CampaignObject,
    services: ServicesDependency,
    broker: PublisherDependency,
    parameters: Annotated[DryRunParameters, Depends()],
    response: Response,
) -> CampaignAccepted | JSONResponse:
    """Accept a campaign with its whole audience: inline as rows such as `{"recipient": "c-1", "data": {…}}`, uploaded before to
    `/v1/audiences` and named as `{"upload": "ID"}`, or fetched now from `{"url": "https://…"}`, where the server allows that URL.
    An upload of another key is refused: 403.

    The same id with the same content gets the same answer, and nothing is done again; with other content, 409. While another call
    is loading the same large audience the answer is 202 with `loading`: call again until it is 201. If that call was lost, one of
    these goes on with its work.

    With `dry_run=true` every message is decided and rendered, nothing is sent or kept, and the answer is 200 with the counts.
    One dry run runs at a time; to a second one the answer is 429.
    """
    sources = audience_fetch.sources(services, caller.name, caller.name)
    request = parse_request(form, sources, services.policy.files, uploads_only=True)
    _require_entity(services, caller, request)
    if parameters.dry_run:
        return JSONResponse(_dry_run(services, request, parameters.as_of).model_dump())
    auditing.note(parameters.call, AuditNote(AuditAction.SUBMIT, "campaign", request.id, entity=request.form.entity))
    seconds_max = UPLOAD_SECONDS if request.source else None
    result = submission.accept(services, request, by=caller.name, seconds_max=seconds_max)
    if result.status is SubmitStatus.CONFLICT:
        raise HTTPException(HTTPStatus.CONFLICT, "this id was used before, with other content")
    publish_or_defer(broker.publish, scheduler.due_chunks(services))
    response.headers["Location"] = f"/v1/campaigns/{request.id}"
    campaign = overview.find(services, request.id)
    if campaign is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    if result.load is not None:
        publish_or_defer(broker.publish_load, result.load)
    if result.status is SubmitStatus.LOADING:
        response.status_code = HTTPStatus.ACCEPTED
        response.headers["Retry-After"] = str(LOADING_SECONDS)
    errors = overview.unreadable_rows(services, campaign, ERRORS_SHOWN)
    return CampaignAccepted(
        id=campaign.id,
        audience=campaign.audience,
        invalid=campaign.invalid,
        loading=campaign.is_loading,
        faults=[AudienceErrorBody(line=line, field=field, message=message) for line, field, message in errors],
    )


def _require_entity(services: Services, caller: ApiKey, request: CampaignRequest) -> None:
    """Check the right for the campaign's entity."""
    entity = submitted_entity(services, request)
    if entity is not None:  # or else the check of the form refuses it
        require(caller.principal, Right.CAMPAIGNS, entity)


def _dry_run(services: Services, request: CampaignRequest, as_of: datetime | None) -> DryRunBody:
    """One at a time: a dry run holds a connection to the ledger until its end."""
    if not DRY_RUN_LOCK.acquire(blocking=False):
        wait = {"Retry-After": str(LOADING_SECONDS)}
        raise HTTPException(HTTPStatus.TOO_MANY_REQUESTS, "another dry run is under way; try again after it", wait)
    try:
        checked = check_campaign(request, submission.validation_context(services, as_of))
        return DryRunBody(**dry_run_view(request.id, dry_run.dry_run(services, checked, as_of)))
    finally:
        DRY_RUN_LOCK.release()
        audience_fetch.discard(services, request)


@router.get("", response_model=CampaignList, responses=problem_responses(422))
def list_campaigns(
    services: ServicesDependency,
    entities: CallerEntities,
    tag: Annotated[list[str], Query(description="Only campaigns with this tag; may be repeated: with all of them.")] = [],  # noqa: B006
    cost_centre: Annotated[str | None, Query(description="Only campaigns of this cost centre.")] = None,
    limit: Annotated[int, Query(ge=1, le=500, description="At most so many campaigns.")] = 50,
) -> dict[str, Any]:
    """The newest campaigns, newest first."""
    wanted = CampaignFilter(tuple(tag), cost_centre, entities)
    return {"campaigns": [campaign_line(campaign) for campaign in overview.newest(services, limit, wanted)]}


@router.get("/{campaign_id}", response_model=CampaignBody, responses=problem_responses(404))
def show_campaign(
    campaign_id: CampaignId, services: ServicesDependency, response: Response, entities: CallerEntities
) -> dict[str, Any]:
    """A campaign with its balance. The ETag is its version."""
    found = overview.status(services, campaign_id, entities)
    if found is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    response.headers["ETag"] = etag(found.campaign.version)
    return campaign_view(found, services.clock())


@router.patch(
    "/{campaign_id}",
    response_model=CampaignBody,
    responses=problem_responses(404, 409, 412),
    openapi_extra=body(CampaignEditForm, "CampaignEdit"),
)
def edit_campaign(
    caller: CampaignsKey,
    campaign_id: CampaignId,
    form: JsonObject,
    services: ServicesDependency,
    response: Response,
    if_match: IfMatch = None,
) -> dict[str, Any]:
    """Change the time, rate, expiry or priority of a campaign that is scheduled, awaiting release or paused; else 409.

    What is left out does not change; null removes an option. With `If-Match`, only if nobody edited it since: else 412. A change of
    time, rate or expiry voids a release, and whoever made it cannot release the campaign.
    """
    _require_visible(services, caller, campaign_id)
    result = editing.edit(services, campaign_id, parse_edit(form), caller.name, expected_version(if_match))
    if result is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    if result.refusal is not None:
        raise HTTPException(HTTPStatus.CONFLICT, result.refusal)
    return show_campaign(campaign_id, services, response, caller.entities)


@router.post("/{campaign_id}/rows", responses=problem_responses(404, 409, 422), openapi_extra=body(RowsForm, "Rows"))
def add_campaign_rows(
    caller: CampaignsKey, campaign_id: CampaignId, form: CampaignObject, services: ServicesDependency
) -> RowsAdded:
    """Add rows to a campaign that waits for its release, such as those that could not be read before; in any other state, 409.

    Only the key that submitted the campaign can add rows. A recipient whom the campaign has already gets no second message.
    """
    _require_visible(services, caller, campaign_id)
    result = row_addition.add_rows(services, campaign_id, RowSource(parse_rows(form), "rows"), caller.name)
    campaign = overview.find(services, campaign_id)
    if result is None or campaign is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    if result.refusal is not None:
        raise HTTPException(HTTPStatus.CONFLICT, result.refusal)
    faults = [AudienceErrorBody(line=error.line, field=error.field, message=error.message) for error in result.errors]
    return RowsAdded(
        id=campaign.id, state=campaign.state, audience=campaign.audience, added=result.added, invalid=result.invalid, faults=faults
    )


@router.post("/{campaign_id}/{action}", response_model=CampaignStateBody, responses=problem_responses(404, 409))
def act_on_campaign(
    caller: CampaignsKey, campaign_id: CampaignId, action: Action, services: ServicesDependency, broker: PublisherDependency
) -> dict[str, Any]:
    """Release, pause, resume or cancel. A campaign already in the wanted state gets the same answer; what is not possible, 409.

    A campaign with a large audience is released by another key than the one that submitted it.
    """
    _require_visible(services, caller, campaign_id)
    result = actions.apply(services, campaign_id, action, caller.name)
    if result is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    if result.refusal is not None:
        raise HTTPException(HTTPStatus.CONFLICT, result.refusal)
    publish_or_defer(broker.publish, scheduler.due_chunks(services))
    return {"id": result.campaign.id, "state": result.campaign.state}


def _require_visible(services: Services, caller: ApiKey, campaign_id: str) -> None:
    """404 for a campaign of another entity than the key's, as for an unknown one."""
    if caller.entities is not None and overview.find(services, campaign_id, caller.entities) is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)

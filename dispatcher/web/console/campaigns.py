"""The console's page of a campaign, and its actions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path, PurePath
from shutil import copyfileobj
from tempfile import TemporaryDirectory
from typing import Annotated

from fastapi import APIRouter, File, Form, HTTPException, Request, Response, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BaseModel

from dispatcher.campaigns import actions, drafts, overview, row_addition, scheduler
from dispatcher.campaigns.actions import CHANGED_BEFORE_RELEASE, CampaignAction
from dispatcher.campaigns.row_addition import AddedRows, RowSource
from dispatcher.domain.audit import AuditOutcome
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.principal import Right, require
from dispatcher.identity import audit
from dispatcher.identity.audit import AuditFilter, AuditRow
from dispatcher.intake.audience import read_audience
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.maintenance.standstills import halts
from dispatcher.runtime.services import Services
from dispatcher.web import auditing
from dispatcher.web.console.live import LIVE
from dispatcher.web.console.login import Operator, check_form_token, confirm_first
from dispatcher.web.console.overview import refresh_seconds
from dispatcher.web.console.release_view import release_view
from dispatcher.web.console.session import ConsoleSession
from dispatcher.web.dependencies import ServicesDependency, TaskPublisher, publish_or_defer
from dispatcher.web.pages.console import page
from dispatcher.web.serializers.campaigns import messages_per_second

router = APIRouter(prefix="/campaigns", default_response_class=HTMLResponse)

ERRORS_SHOWN = 20
ACTS_SHOWN = 20
ACTION_RIGHTS = {
    CampaignAction.RELEASE: Right.RELEASE,
    CampaignAction.PAUSE: Right.PAUSE,
    CampaignAction.RESUME: Right.PAUSE,
    CampaignAction.CANCEL: Right.PAUSE,
}
ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")  # the form of campaign and recipient ids


class ActionForm(BaseModel):
    """What an action's form sends. `shown`: the mark of the campaign that the page showed to whoever releases it."""

    form_token: str = ""
    shown: str = ""


@router.get("/{campaign_id}", dependencies=[LIVE])
def campaign_page(operator: Operator, campaign_id: str, services: ServicesDependency, still: bool = False) -> str:
    """A campaign: its balance, reasons and channels."""
    return campaign_text(operator, valid_id(campaign_id), services, still)


@router.post("/{campaign_id}/rows")
def add_rows(
    operator: Operator,
    request: Request,
    campaign_id: str,
    services: ServicesDependency,
    file: Annotated[UploadFile | None, File()] = None,
    form_token: Annotated[str, Form()] = "",
) -> Response:
    """Add the rows of a file to a campaign that waits for its release, then show the campaign; or why no row was added."""
    check_form_token(operator, form_token)
    _require(operator, services, valid_id(campaign_id), Right.CAMPAIGNS)
    try:
        result = _add(services, valid_id(campaign_id), file, operator.principal.id)
    except BadInput as error:
        auditing.refused(request)
        messages = [str(fault) for fault in error.faults[:ERRORS_SHOWN]]
        return HTMLResponse(campaign_text(operator, campaign_id, services, True, messages), HTTPStatus.UNPROCESSABLE_ENTITY)
    if result is None:
        raise not_found()
    if result.refusal is not None:
        auditing.refused(request)
        return HTMLResponse(campaign_text(operator, campaign_id, services, True, [result.refusal]), HTTPStatus.CONFLICT)
    return RedirectResponse(f"/console/campaigns/{campaign_id}", HTTPStatus.SEE_OTHER)


def _add(services: Services, campaign_id: str, file: UploadFile | None, by: str) -> AddedRows | None:
    """Add the rows of an uploaded file, which is deleted at once. Its columns are assigned as for the draft. Raises `BadInput` with
    the name that the operator knows."""
    name = PurePath((file.filename if file else None) or "").name
    if file is None or not name:
        raise BadInput(InputError("file", 0, "", "is missing: choose a .jsonl, .csv or .xlsx file"))
    with TemporaryDirectory(prefix="dispatcher-rows-") as folder:
        path = Path(folder, f"rows{PurePath(name).suffix[:8]}")
        with path.open("wb") as copy:
            copyfileobj(file.file, copy)
        try:
            found = overview.find(services, campaign_id, None)
            columns = drafts.remembered_columns(services, by, found.spec, path) if found else []
            rows = read_audience(path, services.policy.files, assigned=columns)
            return row_addition.add_rows(services, campaign_id, RowSource(rows, name), by)
        except BadInput as error:
            raise BadInput(*(replace(fault, file=name) for fault in error.faults)) from None


def campaign_text(
    operator: ConsoleSession,
    campaign_id: str,
    services: Services,
    still: bool,
    messages: Sequence[str] = (),
    problems: Sequence[str] = (),
) -> str:
    """The page of a campaign. `messages` say why no row was added, `problems` why no dry run was made."""
    found = overview.status(services, campaign_id, operator.principal.entities)
    if found is None:
        raise not_found()
    return page(
        "campaign.html",
        operator=operator,
        campaign=found.campaign,
        balance=found.balance,
        faults=overview.unreadable_rows(services, found.campaign, ERRORS_SHOWN),
        per_second=messages_per_second(found.campaign, found.balance, services.clock()),
        refresh_seconds=refresh_seconds(still, [found.campaign]),
        messages=messages,
        problems=problems,
        release=release_view(operator, services, found.campaign),
        halts=halts(services) if found.campaign.state not in (CampaignState.FINISHED, CampaignState.CANCELLED) else [],
        acts=_acts(services, campaign_id),
    )


def _acts(services: Services, campaign_id: str) -> list[AuditRow]:
    """Who did what with a campaign, each act once."""
    rows = audit.page(services, AuditFilter(object_type="campaign", object_id=campaign_id), None, 2 * ACTS_SHOWN)
    return [row for row in rows if row.outcome != AuditOutcome.DONE][:ACTS_SHOWN]


@router.post("/{campaign_id}/{action}")
def act_on_campaign(
    operator: Operator,
    request: Request,
    campaign_id: str,
    action: CampaignAction,
    services: ServicesDependency,
    form: Annotated[ActionForm, Form()],
) -> Response:
    """Release, pause, resume or cancel, then show the campaign in the state that it has. What has changed since the page was shown
    is not released: the second person has to see it first."""
    check_form_token(operator, form.form_token)
    _require(operator, services, valid_id(campaign_id), ACTION_RIGHTS[action])
    if action is CampaignAction.RELEASE:
        confirm_first(services, operator, f"/console/campaigns/{campaign_id}")
    # A form without a mark is of a page from before marks: it showed no dry run, so it counts as one that is out of date.
    seen = form.shown or "none" if action is CampaignAction.RELEASE else ""
    result = actions.apply(services, campaign_id, action, operator.principal.id, seen)
    if result is None:
        raise not_found()
    if result.refusal is not None:
        auditing.refused(request)
    if result.refusal == CHANGED_BEFORE_RELEASE:
        text = campaign_text(operator, campaign_id, services, still=True, problems=[CHANGED_BEFORE_RELEASE])
        return HTMLResponse(text, HTTPStatus.CONFLICT)
    broker: TaskPublisher = request.app.state.broker
    publish_or_defer(broker.publish, scheduler.due_chunks(services))
    return RedirectResponse(f"/console/campaigns/{result.campaign.id}", HTTPStatus.SEE_OTHER)


def _require(operator: ConsoleSession, services: Services, campaign_id: str, right: Right) -> None:
    """Check the right; a campaign of another entity is answered like an unknown one."""
    require(operator.principal, right)
    if overview.find(services, campaign_id, operator.principal.entities) is None:
        raise not_found()


def valid_id(campaign_id: str) -> str:
    """The id, if it has the form of one; else 404, because PostgreSQL refuses some characters."""
    if not ID_PATTERN.fullmatch(campaign_id):
        raise not_found()
    return campaign_id


def not_found() -> HTTPException:
    return HTTPException(HTTPStatus.NOT_FOUND, "there is no such campaign")

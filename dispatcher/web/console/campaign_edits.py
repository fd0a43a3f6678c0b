"""The console's page on which the time, rate and expiry of a submitted campaign are changed."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from dispatcher.campaigns import editing, overview
from dispatcher.campaigns.overview import Campaign
from dispatcher.domain.errors import VersionConflict
from dispatcher.domain.principal import Right, require
from dispatcher.intake.campaign_edit import parse_edit
from dispatcher.intake.errors import BadInput
from dispatcher.runtime.services import Services
from dispatcher.web import auditing
from dispatcher.web.console.draft_forms import NO_ERRORS, Errors, PostedForm, by_field
from dispatcher.web.console.login import Operator
from dispatcher.web.console.session import ConsoleSession
from dispatcher.web.console.time_fields import TIME_FIELDS, read_times, shown_times, unchanged
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.pages.console import page

router = APIRouter(prefix="/campaigns/{campaign_id}/edit", default_response_class=HTMLResponse)

CHANGED_MEANWHILE = "Somebody else has changed the campaign since you opened this page. Look at it again."


@router.get("")
def edit_page(operator: Operator, services: ServicesDependency, campaign_id: str) -> str:
    """The time, rate and expiry of a campaign."""
    campaign = _campaign(operator, services, campaign_id)
    return _page(operator, services, campaign, {}, NO_ERRORS)


@router.post("")
def edit_campaign(
    operator: Operator, request: Request, services: ServicesDependency, campaign_id: str, posted: PostedForm
) -> Response:
    """Change the time, rate and expiry, where nobody has done so meanwhile; then show the campaign."""
    campaign = _campaign(operator, services, campaign_id)
    values, entered, errors = read_times(posted, services.policy.default_zone)
    version = posted.text("version")
    refusal = None
    if not errors:
        try:
            same = unchanged(entered, _times_of(campaign), services.policy.default_zone)
            changes = parse_edit({**dict.fromkeys(TIME_FIELDS), **values, **same})
            known = int(version) if version.isascii() and version.isdigit() and len(version) < 10 else None
            result = editing.edit(services, campaign.id, changes, operator.principal.id, known)
            refusal = result.refusal if result else None
        except BadInput as error:
            errors = by_field(error.faults, TIME_FIELDS)
        except VersionConflict:
            refusal = CHANGED_MEANWHILE
    if errors or refusal:
        auditing.refused(request)
        text = _page(operator, services, campaign, entered, {**errors, **({"": [refusal]} if refusal else {})})
        return HTMLResponse(text, HTTPStatus.CONFLICT if refusal else HTTPStatus.UNPROCESSABLE_ENTITY)
    return RedirectResponse(f"/console/campaigns/{campaign.id}", HTTPStatus.SEE_OTHER)


def _campaign(operator: ConsoleSession, services: Services, campaign_id: str) -> Campaign:
    require(operator.principal, Right.CAMPAIGNS)
    campaign = overview.find(services, campaign_id, operator.principal.entities) if "\0" not in campaign_id else None
    if campaign is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, "there is no such campaign")
    return campaign


def _times_of(campaign: Campaign) -> dict[str, Any]:
    return {name: getattr(campaign.spec, name) for name in TIME_FIELDS}


def _page(operator: ConsoleSession, services: Services, campaign: Campaign, entered: dict[str, str], errors: Errors) -> str:
    zone = services.policy.default_zone
    return page(
        "campaign_edit.html",
        operator=operator,
        campaign=campaign,
        entered=entered or shown_times(_times_of(campaign), zone),
        errors=errors,
        zone=zone,
        can_edit=campaign.state in editing.EDITABLE_STATES and not campaign.is_loading,
    )

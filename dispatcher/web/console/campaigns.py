"""The console's page of a campaign, and its actions."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from dispatcher.campaigns import actions, overview, scheduler
from dispatcher.campaigns.actions import CampaignAction
from dispatcher.web.console.login import Operator, check_form_token
from dispatcher.web.console.overview import refresh_seconds
from dispatcher.web.dependencies import PublisherDependency, ServicesDependency, publish_or_defer
from dispatcher.web.pages.console import page
from dispatcher.web.serializers import messages_per_second

router = APIRouter(prefix="/campaigns", default_response_class=HTMLResponse)

ERRORS_SHOWN = 20
ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")  # the form of campaign and recipient ids


@router.get("/{campaign_id}")
def campaign_page(operator: Operator, campaign_id: str, services: ServicesDependency, still: bool = False) -> str:
    """A campaign: its balance, reasons and channels."""
    found = overview.status(services, _valid_id(campaign_id))
    if found is None:
        raise _not_found()
    return page(
        "campaign.html",
        operator=operator,
        campaign=found.campaign,
        balance=found.balance,
        faults=overview.unreadable_rows(services, found.campaign, ERRORS_SHOWN),
        per_second=messages_per_second(found.campaign, found.balance, services.clock()),
        refresh_seconds=refresh_seconds(still, [found.campaign]),
    )


@router.post("/{campaign_id}/{action}")
def act_on_campaign(
    operator: Operator,
    campaign_id: str,
    action: CampaignAction,
    services: ServicesDependency,
    broker: PublisherDependency,
    form_token: Annotated[str, Form()] = "",
) -> Response:
    """Release, pause, resume or cancel, then show the campaign in the state that it has."""
    check_form_token(operator, form_token)
    result = actions.apply(services, _valid_id(campaign_id), action, operator.key.name)
    if result is None:
        raise _not_found()
    publish_or_defer(broker.publish, scheduler.due_chunks(services))
    return RedirectResponse(f"/console/campaigns/{result.campaign.id}", HTTPStatus.SEE_OTHER)


def _valid_id(campaign_id: str) -> str:
    """The id, if it has the form of one; else 404, because PostgreSQL refuses some characters."""
    if not ID_PATTERN.fullmatch(campaign_id):
        raise _not_found()
    return campaign_id


def _not_found() -> HTTPException:
    return HTTPException(HTTPStatus.NOT_FOUND, "there is no such campaign")

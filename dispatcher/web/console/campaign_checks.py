"""A dry run of a submitted campaign, and examples of its messages: for whoever releases it."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from dispatcher.campaigns import campaign_checks, overview
from dispatcher.campaigns.message_examples import EXAMPLE_ROWS_MAX
from dispatcher.campaigns.overview import Campaign
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.principal import Right, require
from dispatcher.intake.errors import BadInput
from dispatcher.runtime.services import Services
from dispatcher.web import auditing
from dispatcher.web.api.campaigns import DRY_RUN_LOCK
from dispatcher.web.console.campaigns import campaign_text, not_found, valid_id
from dispatcher.web.console.draft_checks import BUSY
from dispatcher.web.console.draft_forms import PostedForm
from dispatcher.web.console.login import Operator
from dispatcher.web.console.release_view import is_submitter, may_run_dry, may_see_examples
from dispatcher.web.console.session import ConsoleSession
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.pages.console import page

router = APIRouter(prefix="/campaigns/{campaign_id}", default_response_class=HTMLResponse)


@router.post("/dry-run")
def run_dry(
    operator: Operator,
    request: Request,
    services: ServicesDependency,
    campaign_id: str,
    posted: PostedForm,  # noqa: ARG001
) -> Response:
    """Decide and render every message of the campaign; send nothing, and keep nothing but the counts."""
    campaign = _campaign(operator, services, campaign_id)
    if not may_run_dry(operator.principal, campaign):
        require(operator.principal, Right.RELEASE, campaign.spec.entity)
    if not DRY_RUN_LOCK.acquire(blocking=False):
        return _problem(operator, request, services, campaign.id, (HTTPStatus.TOO_MANY_REQUESTS, BUSY))
    try:
        campaign_checks.run(services, campaign, operator.principal.id)
    except BadInput as error:
        return _problem(operator, request, services, campaign.id, (HTTPStatus.CONFLICT, error.faults[0].message))
    finally:
        DRY_RUN_LOCK.release()
    return RedirectResponse(f"/console/campaigns/{campaign.id}#dry-run", HTTPStatus.SEE_OTHER)


def _problem(
    operator: ConsoleSession, request: Request, services: Services, campaign_id: str, problem: tuple[HTTPStatus, str]
) -> Response:
    auditing.refused(request)
    status, message = problem
    return HTMLResponse(campaign_text(operator, campaign_id, services, still=True, problems=[message]), status)


@router.get("/examples")
def examples_page(operator: Operator, request: Request, services: ServicesDependency, campaign_id: str) -> Response:
    """A message for each language and channel, from the campaign's rows. Each look at a recipient is recorded."""
    campaign = _campaign(operator, services, campaign_id)
    entity = campaign.spec.entity
    if not may_see_examples(operator.principal, campaign):
        require(operator.principal, Right.RELEASE, entity)
    with_profiles = operator.principal.may(Right.PEOPLE, entity)
    if not DRY_RUN_LOCK.acquire(blocking=False):
        return _problem(operator, request, services, campaign.id, (HTTPStatus.TOO_MANY_REQUESTS, BUSY))
    try:
        found = campaign_checks.examples(services, campaign, with_profiles)
    except BadInput as error:
        return _problem(operator, request, services, campaign.id, (HTTPStatus.CONFLICT, error.faults[0].message))
    finally:
        DRY_RUN_LOCK.release()
    for recipient in sorted({each.recipient for each in found}):
        reason = f"examples of campaign {campaign.id}"
        auditing.note(
            request, AuditNote(AuditAction.LOOK, "recipient", recipient, recipient=recipient, entity=entity, reason=reason)
        )
    text = page(
        "campaign_examples.html",
        operator=operator,
        campaign=campaign,
        examples=found,
        with_profiles=with_profiles,
        with_ids=with_profiles or is_submitter(operator.principal, campaign),
        rows_max=EXAMPLE_ROWS_MAX,
    )
    return HTMLResponse(text)


def _campaign(operator: ConsoleSession, services: Services, campaign_id: str) -> Campaign:
    found = overview.find(services, valid_id(campaign_id), operator.principal.entities)
    if found is None:
        raise not_found()
    return found

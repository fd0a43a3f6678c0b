"""The console's search: a message or campaign by its id, or a campaign's messages for one recipient."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from dispatcher.campaigns import overview
from dispatcher.delivery import messages
from dispatcher.delivery.messages import Message
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.message_id import BadMessageId, MessageId
from dispatcher.domain.principal import Principal, Right
from dispatcher.runtime.services import Services
from dispatcher.web import auditing
from dispatcher.web.console.campaigns import ID_PATTERN
from dispatcher.web.console.login import Operator
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.pages.console import page

router = APIRouter(prefix="/search", default_response_class=HTMLResponse)


@router.get("")
def search(
    operator: Operator, request: Request, services: ServicesDependency, q: str = "", campaign: str = "", recipient: str = ""
) -> Any:
    """Redirect to the only result, or show a list."""
    q, campaign, recipient = q.strip(), campaign.strip(), recipient.strip()
    if path := _path_of(services, operator.principal, q):
        return RedirectResponse(path, HTTPStatus.SEE_OTHER)
    found: Sequence[Message] = ()
    if operator.principal.may(Right.PEOPLE) and ID_PATTERN.fullmatch(campaign) and ID_PATTERN.fullmatch(recipient):
        auditing.note(request, AuditNote(AuditAction.LOOK, "recipient", recipient, recipient=recipient))
        found = messages.of_campaign(services, campaign, recipient, operator.principal.entities)
    if len(found) == 1:
        return RedirectResponse(f"/console/messages/{found[0].ref}", HTTPStatus.SEE_OTHER)
    return page("search.html", operator=operator, found=found, q=q, campaign=campaign, recipient=recipient)


def _path_of(services: Services, principal: Principal, text: str) -> str | None:
    """The page of the message or campaign that has this id."""
    try:
        return f"/console/messages/{MessageId.parse(text)}"
    except BadMessageId:
        known = ID_PATTERN.fullmatch(text) and overview.find(services, text, principal.entities)
        return f"/console/campaigns/{text}" if known else None

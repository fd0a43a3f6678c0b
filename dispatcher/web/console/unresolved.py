"""The console's list of unresolved messages, and resolving them by hand."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from dispatcher.delivery import messages, reconciliation
from dispatcher.domain.message_id import MessageId
from dispatcher.web.console.login import Operator, check_form_token
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.pages.console import page

router = APIRouter(prefix="/unresolved", default_response_class=HTMLResponse)

MESSAGES_SHOWN = 200


@router.get("")
def unresolved_page(operator: Operator, services: ServicesDependency) -> str:
    """The unresolved messages, oldest first."""
    return page("unresolved.html", operator=operator, lines=messages.list_unresolved(services, None, MESSAGES_SHOWN))


@router.post("/{message_id}")
def settle(
    operator: Operator,
    message_id: str,
    services: ServicesDependency,
    was: Annotated[Literal["accepted", "failed"], Form()],
    form_token: Annotated[str, Form()] = "",
) -> Response:
    """Resolve a message by hand. One that a provider event has resolved meanwhile does not change."""
    check_form_token(operator, form_token)
    reconciliation.settle_by_hand(services, MessageId.parse(message_id), was == "accepted", f"console:{operator.key.name}")
    return RedirectResponse("/console/unresolved", HTTPStatus.SEE_OTHER)

"""The console's page of a message."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import HTMLResponse

from dispatcher.delivery import messages
from dispatcher.delivery.explanation import explain_to_customer, recorded_decision
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.principal import Right, require
from dispatcher.runtime.tracing import page_of_trace
from dispatcher.web import auditing
from dispatcher.web.console.login import Operator
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.pages.console import page

router = APIRouter(prefix="/messages", default_response_class=HTMLResponse)

LanguageChoice = Literal["en", "nl", "fr", "de"]


@router.get("/{message_id}")
def message_page(
    operator: Operator,
    request: Request,
    message_id: str,
    services: ServicesDependency,
    language: Annotated[LanguageChoice | None, Query()] = None,
) -> str:
    """A message: its state, its decision, the explanation for the customer, the provider's reports. The explanation is in the
    reader's language at first."""
    require(operator.principal, Right.PEOPLE)
    message = messages.find(services, MessageId.parse(message_id), operator.principal.entities)
    if message is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, "there is no such message")
    auditing.look(request, message)
    chosen = language or operator.viewer.language
    return page(
        "message.html",
        operator=operator,
        message=message,
        recorded=recorded_decision(services, message),
        explanation=explain_to_customer(services, message, chosen),
        language=chosen,
        languages=("en", "nl", "fr", "de"),
        trace_url=page_of_trace(services.trace_page, message.spec.trace),
    )

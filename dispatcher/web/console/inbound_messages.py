"""The console's list of inbound messages that are not a keyword: close one, apply it as a STOP, or answer it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Form, HTTPException, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from dispatcher.domain.principal import Right
from dispatcher.inbound import agent_reply, customer_replies
from dispatcher.web.console.login import check_form_token, operator_with
from dispatcher.web.console.session import ConsoleSession
from dispatcher.web.dependencies import PublisherDependency, ServicesDependency
from dispatcher.web.pages.console import page

router = APIRouter(prefix="/inbound-messages", default_response_class=HTMLResponse)

Operator = Annotated[ConsoleSession, Depends(operator_with(Right.INBOUND))]
PATH = "/console/inbound-messages"
MESSAGES_SHOWN = 100


@router.get("")
def inbound_messages_page(operator: Operator, services: ServicesDependency) -> str:
    """The messages that wait for an operator."""
    return page(
        "inbound_messages.html",
        operator=operator,
        messages=customer_replies.waiting(services, MESSAGES_SHOWN, operator.principal.entities),
        kept_for=services.policy.retention.answers,
    )


@router.post("/{message_id}")
def close(
    operator: Operator,
    message_id: str,
    services: ServicesDependency,
    broker: PublisherDependency,
    was: Annotated[Literal["stop", "nothing"], Form()],
    form_token: Annotated[str, Form()] = "",
) -> Response:
    """Take a message off the list, as a STOP or as one that asks for nothing. One that is off the list already does not change."""
    check_form_token(operator, form_token)
    principal = operator.principal
    customer_replies.close_unclear_message(services, broker.publish, message_id, principal.id, was == "stop", principal.entities)
    return RedirectResponse(PATH, HTTPStatus.SEE_OTHER)


@router.post("/{message_id}/answer")
def answer(
    operator: Operator,
    message_id: str,
    services: ServicesDependency,
    text: Annotated[str, Form()],
    form_token: Annotated[str, Form()] = "",
) -> Response:
    """Answer a message and take it off the list. If the answer cannot be sent, say why and leave the message on the list."""
    check_form_token(operator, form_token)
    objection = agent_reply.answer(services, message_id, text, operator.principal.id, operator.principal.entities)
    if objection is not None:
        raise HTTPException(HTTPStatus.CONFLICT, objection)
    return RedirectResponse(PATH, HTTPStatus.SEE_OTHER)

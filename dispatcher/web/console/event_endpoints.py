"""The console's page of webhooks: the endpoints that events are delivered to, how far behind they are, what is dead."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from dispatcher.domain.principal import Right, require, require_unlimited
from dispatcher.events import event_endpoints
from dispatcher.web.console.login import Operator, check_form_token
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.pages.console import page

router = APIRouter(prefix="/webhooks", default_response_class=HTMLResponse)


@router.get("")
def endpoints_page(operator: Operator, services: ServicesDependency) -> str:
    """All endpoints: they get the events of all entities."""
    require_unlimited(operator.principal)
    return page(
        "webhooks.html",
        operator=operator,
        statuses=event_endpoints.statuses(services),
        tested=None,
        result=None,
        may_manage=_may_manage(operator),
    )


@router.post("/{endpoint_id}/test")
def send_test(operator: Operator, endpoint_id: str, services: ServicesDependency, form_token: Annotated[str, Form()] = "") -> str:
    """Send a test event, and show the answer."""
    check_form_token(operator, form_token)
    _check_right(operator)
    result = event_endpoints.send_test(services, endpoint_id)
    return page(
        "webhooks.html",
        operator=operator,
        statuses=event_endpoints.statuses(services),
        tested=endpoint_id,
        result=result,
        may_manage=True,
    )


@router.post("/{endpoint_id}/{action}")
def act_on_endpoint(
    operator: Operator,
    endpoint_id: str,
    action: Literal["enable", "disable", "replay", "skip"],
    services: ServicesDependency,
    form_token: Annotated[str, Form()] = "",
    reason: Annotated[str, Form()] = "",
) -> Response:
    """Stop deliveries, start them, deliver the dead list again, or move past a delivery that is failing."""
    check_form_token(operator, form_token)
    _check_right(operator)
    actor = operator.principal.id
    if action == "replay":
        event_endpoints.replay_dead(services, endpoint_id, actor)
    elif action == "skip":
        event_endpoints.skip(services, endpoint_id, actor, reason)
    else:
        (event_endpoints.enable if action == "enable" else event_endpoints.disable)(services, endpoint_id, actor)
    return RedirectResponse("/console/webhooks", HTTPStatus.SEE_OTHER)


def _check_right(operator: Operator) -> None:
    """403 for somebody who may look at the console and not manage endpoints."""
    require(operator.principal, Right.WEBHOOKS)


def _may_manage(operator: Operator) -> bool:
    return operator.principal.may(Right.WEBHOOKS)

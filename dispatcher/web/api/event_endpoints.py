"""`/v1/webhooks`: the endpoints that events are delivered to."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import Field

from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.events import event_endpoints
from dispatcher.events.event_endpoints import EndpointChange, EndpointForm
from dispatcher.intake.errors import BadInput, InputError, StrictModel, validate
from dispatcher.web import auditing
from dispatcher.web.api.authorization import actor, needs
from dispatcher.web.api.openapi import body
from dispatcher.web.api.schemas.event_endpoints import EndpointAdded, EndpointBody, EndpointList, EndpointSecret, EndpointTest
from dispatcher.web.api_keys import ApiKey, Right
from dispatcher.web.dependencies import JsonObject, ServicesDependency
from dispatcher.web.errors import problem_responses
from dispatcher.web.serializers.event_endpoints import endpoint_view, webhook_test_view

WebhooksKey = Annotated[ApiKey, Depends(needs(Right.WEBHOOKS))]
EndpointId = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="The id of the endpoint.")]
AtOnce = Annotated[bool, Query(description="The old secret ends now.")]
EndpointAction = Annotated[Literal["enable", "disable"], Path(description="What to do.")]
Number = Annotated[int, Field(ge=1, lt=2**63)]

router = APIRouter(prefix="/webhooks", tags=["webhooks"], dependencies=[Depends(needs(Right.WEBHOOKS))])


class ReplayForm(StrictModel):
    """Which events to deliver again: by number, a range of the dead list, or (empty) the whole dead list."""

    first: Number | None = Field(default=None, alias="from", description="the number of the first event")
    last: Number | None = Field(default=None, alias="to", description="the number of the last event")
    dead: Number | None = Field(default=None, description="the number of a range on the dead list")


@router.get("", response_model=EndpointList)
def list_endpoints(services: ServicesDependency) -> dict[str, Any]:
    """All endpoints, how far behind each is, its last error and its dead list."""
    return {"endpoints": [endpoint_view(each) for each in event_endpoints.statuses(services)]}


@router.post(
    "",
    status_code=201,
    response_model=EndpointAdded,
    responses=problem_responses(422),
    openapi_extra=body(EndpointForm, "Endpoint"),
)
def add_endpoint(
    caller: WebhooksKey, request: Request, form: JsonObject, services: ServicesDependency, response: Response
) -> dict[str, Any]:
    """Add an endpoint. The answer has the secret with which its receiver verifies each call."""
    parsed = event_endpoints.parse_form(form)
    auditing.note(request, AuditNote(AuditAction.ADD, "webhook", parsed.id))
    status = event_endpoints.add(services, parsed, actor(caller))
    response.headers["Location"] = f"/v1/webhooks/{status.endpoint.id}"
    return {**endpoint_view(status), "secret": event_endpoints.secret(services, status.endpoint.id)}


@router.get("/{endpoint_id}", response_model=EndpointBody, responses=problem_responses(404))
def show_endpoint(endpoint_id: EndpointId, services: ServicesDependency) -> dict[str, Any]:
    """One endpoint. `url` is without its query, which can hold a token."""
    return endpoint_view(event_endpoints.status(services, endpoint_id))


@router.patch(
    "/{endpoint_id}",
    response_model=EndpointBody,
    responses=problem_responses(404, 422),
    openapi_extra=body(EndpointChange, "EndpointChange"),
)
def change_endpoint(caller: WebhooksKey, endpoint_id: EndpointId, form: JsonObject, services: ServicesDependency) -> dict[str, Any]:
    """Change an endpoint; what is left out stays as it is."""
    return endpoint_view(event_endpoints.change(services, endpoint_id, event_endpoints.parse_change(form), actor(caller)))


@router.delete(
    "/{endpoint_id}",
    status_code=204,
    response_class=Response,
    response_description="The endpoint is deleted",
    responses=problem_responses(404),
)
def remove_endpoint(caller: WebhooksKey, endpoint_id: EndpointId, services: ServicesDependency) -> None:
    """Delete an endpoint and its dead list."""
    event_endpoints.remove(services, endpoint_id, actor(caller))


@router.post("/{endpoint_id}/test", response_model=EndpointTest, responses=problem_responses(404))
def send_test_event(endpoint_id: EndpointId, services: ServicesDependency) -> dict[str, Any]:
    """Send a test event of the type `dispatcher.test` now, and say what the receiver answered."""
    return webhook_test_view(event_endpoints.send_test(services, endpoint_id))


@router.post("/{endpoint_id}/rotate", response_model=EndpointSecret, responses=problem_responses(404, 409))
def rotate_secret(
    caller: WebhooksKey, endpoint_id: EndpointId, services: ServicesDependency, at_once: AtOnce = False
) -> dict[str, Any]:
    """Make a new secret. The old one signs too for 24 hours; with `at_once`, no more."""
    return {"id": endpoint_id, "secret": event_endpoints.rotate(services, endpoint_id, actor(caller), at_once)}


@router.post(
    "/{endpoint_id}/replay",
    response_model=EndpointBody,
    responses=problem_responses(404, 422),
    openapi_extra=body(ReplayForm, "Replay"),
)
def replay_events(caller: WebhooksKey, endpoint_id: EndpointId, form: JsonObject, services: ServicesDependency) -> dict[str, Any]:
    """Deliver again: events by number, a range of the dead list, or the whole dead list."""
    wanted = validate(ReplayForm, form, "replay")
    if (wanted.first is None) != (wanted.last is None) or (wanted.first is not None and wanted.dead is not None):
        raise BadInput(InputError("replay", 0, "", "needs `from` and `to`, or `dead`, or none of them"))
    if wanted.first is not None and wanted.last is not None:
        event_endpoints.replay_range(services, endpoint_id, wanted.first, wanted.last, actor(caller))
    else:
        event_endpoints.replay_dead(services, endpoint_id, actor(caller), wanted.dead)
    return endpoint_view(event_endpoints.status(services, endpoint_id))


class SkipForm(StrictModel):
    """Why the receiver does not get these events."""

    reason: Annotated[str, Field(min_length=1, max_length=event_endpoints.REASON_LENGTH_MAX)]


@router.post(
    "/{endpoint_id}/skip",
    response_model=EndpointBody,
    responses=problem_responses(404, 409, 422),
    openapi_extra=body(SkipForm, "Skip"),
)
def skip_delivery(caller: WebhooksKey, endpoint_id: EndpointId, form: JsonObject, services: ServicesDependency) -> dict[str, Any]:
    """Move past the delivery that is failing. Its events are on the dead list as `skipped`; without a failing one, 409."""
    reason = validate(SkipForm, form, "skip").reason
    return endpoint_view(event_endpoints.skip(services, endpoint_id, actor(caller), reason))


@router.post("/{endpoint_id}/{action}", response_model=EndpointBody, responses=problem_responses(404))
def act_on_endpoint(
    caller: WebhooksKey, endpoint_id: EndpointId, action: EndpointAction, services: ServicesDependency
) -> dict[str, Any]:
    """Stop deliveries, or start them where they stopped; `enable` also makes a failing endpoint be tried at once."""
    act = event_endpoints.enable if action == "enable" else event_endpoints.disable
    return endpoint_view(act(services, endpoint_id, actor(caller)))

"""The audit log of HTTP calls. The tables say which calls are recorded, and as what; a test asks that each call is in one of them.

A call is recorded once it is known who calls, before anything happens; afterwards a second row says that the act was done or
refused. Calls whose body or result names the object are recorded by their handlers, with `note`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from dispatcher.delivery.messages import Message
from dispatcher.domain.audit import LOOKS, AuditAction, AuditNote, AuditOutcome
from dispatcher.domain.errors import (
    EndpointConflict,
    NotAllowed,
    PolicyNotInForce,
    ScheduleConflict,
    UnknownEndpoint,
    UnknownRecipient,
    UnknownSchedule,
    VersionConflict,
)
from dispatcher.domain.message_id import BadMessageId
from dispatcher.domain.preferences import BadChoice
from dispatcher.domain.principal import Principal
from dispatcher.identity import audit
from dispatcher.identity.sessions import CONSOLE, Origin
from dispatcher.intake.errors import BadInput
from dispatcher.web.access_log import route_of

API = "api"
# What is raised before anything is changed. After any other error, such as a lost ledger, the act may have been done.
REFUSALS = (
    *(HTTPException, RequestValidationError, BadInput, BadChoice, BadMessageId, NotAllowed, PolicyNotInForce),
    *(UnknownRecipient, UnknownEndpoint, UnknownSchedule, EndpointConflict, ScheduleConflict, VersionConflict),
)


@dataclass(frozen=True, slots=True)
class AuditedCall:
    """How a call is recorded. Without an action, the path's parameter `action` names it; `parameter` has the object's id."""

    object_type: str
    action: AuditAction | None = None
    parameter: str = ""


Calls = Mapping[tuple[str, str], AuditedCall]

API_CALLS: Calls = {
    ("PATCH", "/v1/campaigns/{campaign_id}"): AuditedCall("campaign", AuditAction.CHANGE, "campaign_id"),
    ("POST", "/v1/campaigns/{campaign_id}/rows"): AuditedCall("campaign", AuditAction.ADD_ROWS, "campaign_id"),
    ("POST", "/v1/campaigns/{campaign_id}/conversions"): AuditedCall("campaign", AuditAction.IMPORT, "campaign_id"),
    ("POST", "/v1/campaigns/{campaign_id}/{action}"): AuditedCall("campaign", None, "campaign_id"),
    ("POST", "/v1/schedules/{schedule_id}/{action}"): AuditedCall("schedule", None, "schedule_id"),
    ("PUT", "/v1/audiences/{upload_id}"): AuditedCall("audience", AuditAction.ADD, "upload_id"),
    ("DELETE", "/v1/audiences/{upload_id}"): AuditedCall("audience", AuditAction.REMOVE, "upload_id"),
    ("POST", "/v1/messages/{message_id}/cancel"): AuditedCall("message", AuditAction.CANCEL, "message_id"),
    ("GET", "/v1/recipients/{recipient_id}"): AuditedCall("recipient", AuditAction.LOOK, "recipient_id"),
    ("GET", "/v1/recipients/{recipient_id}/export"): AuditedCall("recipient", AuditAction.EXPORT, "recipient_id"),
    ("PUT", "/v1/recipients/{recipient_id}"): AuditedCall("recipient", AuditAction.CHANGE, "recipient_id"),
    ("POST", "/v1/recipients/bulk"): AuditedCall("recipients", AuditAction.IMPORT),
    ("POST", "/v1/preferences/bulk"): AuditedCall("preferences", AuditAction.IMPORT),
    ("GET", "/v1/suppressions/export"): AuditedCall("suppressions", AuditAction.EXPORT),
    ("POST", "/v1/suppressions/search"): AuditedCall("suppressions", AuditAction.SEARCH),
    ("POST", "/v1/suppressions/import"): AuditedCall("suppressions", AuditAction.IMPORT),
    ("POST", "/v1/suppressions/{number}/lift"): AuditedCall("suppression", AuditAction.LIFT, "number"),
    ("POST", "/v1/templates/{name}/{action}"): AuditedCall("template", None, "name"),
    ("POST", "/v1/templates/{name}/test"): AuditedCall("template", AuditAction.TEST, "name"),
    ("PATCH", "/v1/webhooks/{endpoint_id}"): AuditedCall("webhook", AuditAction.CHANGE, "endpoint_id"),
    ("DELETE", "/v1/webhooks/{endpoint_id}"): AuditedCall("webhook", AuditAction.REMOVE, "endpoint_id"),
    ("POST", "/v1/webhooks/{endpoint_id}/test"): AuditedCall("webhook", AuditAction.TEST, "endpoint_id"),
    ("POST", "/v1/webhooks/{endpoint_id}/rotate"): AuditedCall("webhook", AuditAction.ROTATE, "endpoint_id"),
    ("POST", "/v1/webhooks/{endpoint_id}/replay"): AuditedCall("webhook", AuditAction.REPLAY, "endpoint_id"),
    ("POST", "/v1/webhooks/{endpoint_id}/skip"): AuditedCall("webhook", AuditAction.SKIP, "endpoint_id"),
    ("POST", "/v1/webhooks/{endpoint_id}/{action}"): AuditedCall("webhook", None, "endpoint_id"),
    ("GET", "/v1/audit"): AuditedCall("audit", AuditAction.LOOK),
}

CONSOLE_CALLS: Calls = {
    ("POST", "/console/campaigns/new"): AuditedCall("draft", AuditAction.ADD),
    ("POST", "/console/campaigns/{campaign_id}/copy"): AuditedCall("campaign", AuditAction.COPY, "campaign_id"),
    ("POST", "/console/campaigns/{campaign_id}/edit"): AuditedCall("campaign", AuditAction.CHANGE, "campaign_id"),
    ("POST", "/console/campaigns/{campaign_id}/dry-run"): AuditedCall("campaign", AuditAction.DRY_RUN, "campaign_id"),
    ("POST", "/console/drafts/{no}"): AuditedCall("draft", AuditAction.CHANGE, "no"),
    ("POST", "/console/drafts/{no}/audience"): AuditedCall("draft", AuditAction.ADD_ROWS, "no"),
    ("POST", "/console/drafts/{no}/columns"): AuditedCall("draft", AuditAction.CHANGE, "no"),
    ("POST", "/console/drafts/{no}/check"): AuditedCall("draft", AuditAction.DRY_RUN, "no"),
    ("POST", "/console/drafts/{no}/test"): AuditedCall("draft", AuditAction.TEST, "no"),
    ("POST", "/console/drafts/{no}/schedule"): AuditedCall("draft", AuditAction.CHANGE, "no"),
    ("POST", "/console/drafts/{no}/delete"): AuditedCall("draft", AuditAction.REMOVE, "no"),
    ("POST", "/console/campaigns/{campaign_id}/rows"): AuditedCall("campaign", AuditAction.ADD_ROWS, "campaign_id"),
    ("POST", "/console/campaigns/{campaign_id}/conversions"): AuditedCall("campaign", AuditAction.IMPORT, "campaign_id"),
    ("POST", "/console/campaigns/{campaign_id}/{action}"): AuditedCall("campaign", None, "campaign_id"),
    ("GET", "/console/inbound-messages"): AuditedCall("inbound_messages", AuditAction.LOOK),
    ("POST", "/console/inbound-messages/{message_id}"): AuditedCall("inbound_message", AuditAction.CLOSE, "message_id"),
    ("POST", "/console/inbound-messages/{message_id}/answer"): AuditedCall("inbound_message", AuditAction.ANSWER, "message_id"),
    ("GET", "/console/unresolved"): AuditedCall("unresolved_messages", AuditAction.LOOK),
    ("POST", "/console/unresolved"): AuditedCall("unresolved_messages", AuditAction.SETTLE),
    ("POST", "/console/unresolved/{message_id}"): AuditedCall("message", AuditAction.SETTLE, "message_id"),
    ("POST", "/console/operations/alerts/{number}"): AuditedCall("alert", AuditAction.ACKNOWLEDGE, "number"),
    ("POST", "/console/refused-jobs/{number}"): AuditedCall("refused_job", AuditAction.CLOSE, "number"),
    ("POST", "/console/templates/{name}/test"): AuditedCall("template", AuditAction.TEST, "name"),
    ("POST", "/console/templates/{name}/{action}"): AuditedCall("template", None, "name"),
    ("POST", "/console/webhooks/{endpoint_id}/test"): AuditedCall("webhook", AuditAction.TEST, "endpoint_id"),
    ("POST", "/console/webhooks/{endpoint_id}/{action}"): AuditedCall("webhook", None, "endpoint_id"),
    ("POST", "/console/sessions/{id_hash}"): AuditedCall("session", AuditAction.END),
    ("GET", "/console/audit"): AuditedCall("audit", AuditAction.LOOK),
}

# The handler records them, because the path does not name the object.
BY_HANDLER = frozenset(
    {
        ("POST", "/v1/campaigns"),
        ("POST", "/v1/schedules"),
        ("POST", "/v1/webhooks"),
        ("POST", "/v1/messages/cancel"),
        ("GET", "/v1/messages/{message_id}"),
        ("GET", "/v1/messages/{message_id}/explanation"),
        ("POST", "/v1/recipients/search"),
        ("DELETE", "/v1/recipients/{recipient_id}"),
        ("GET", "/console/messages/{message_id}"),
        ("GET", "/console/search"),
        ("POST", "/console/drafts/{no}/submit"),
        ("POST", "/console/people"),
        ("GET", "/console/people/{customer_id}"),
        ("POST", "/console/people/{customer_id}/addresses"),
        ("POST", "/console/people/{customer_id}/export"),
        ("POST", "/console/people/{customer_id}/erasure"),
        ("POST", "/console/people/{customer_id}/erasure/approve"),
        ("POST", "/console/people/{customer_id}/erasure/reject"),
        ("POST", "/console/desk"),
        ("GET", "/console/desk/{customer_id}"),
        ("POST", "/console/desk/{customer_id}"),
        ("POST", "/console/desk/{customer_id}/link"),
        ("POST", "/console/login"),
        ("POST", "/console/logout"),
        ("POST", "/console/password"),
        ("POST", "/console/sessions"),
        ("POST", "/console/second-factor"),
    }
)

# Each of these has a record of its own that says who: the job, the consent event. They come by the hundred in a second, and the
# audit log takes one row at a time. A kept form is only shown again: what it does is recorded when it is sent.
OWN_RECORD = frozenset(
    {
        ("POST", "/v1/messages"),
        ("PUT", "/v1/recipients/{recipient_id}/preferences"),
        ("POST", "/console/confirm"),
        ("POST", "/console/kept-form"),
    }
)


def origin_of(request: Request) -> Origin:
    """Where a call comes from."""
    place = CONSOLE if request.url.path.startswith("/console") else API
    return Origin(place, request.client.host if request.client else "")


def begin(request: Request, principal: Principal) -> None:
    """Record a call that is in a table, once; remember who calls, for `note`."""
    if getattr(request.state, "principal", None) is not None:
        return
    request.state.principal, request.state.noted = principal, None
    key = (request.method, route_of(request.scope))
    call = API_CALLS.get(key) or CONSOLE_CALLS.get(key)
    act = _note_of(call, request.path_params) if call is not None else None
    if act is not None:
        note(request, act)


def _note_of(call: AuditedCall, parameters: Mapping[str, str]) -> AuditNote | None:
    """The note of a call; None for a path that names no action or cannot be an id, which the handler answers with 404."""
    action = call.action or parameters["action"]
    object_id = str(parameters.get(call.parameter, ""))
    if action not in list(AuditAction) or "\0" in object_id:
        return None
    action = AuditAction(action)
    return AuditNote(action, call.object_type, object_id, recipient=object_id if call.object_type == "recipient" else None)


def note(request: Request, act: AuditNote) -> None:
    """Record what a call does, before it does it."""
    principal: Principal = request.state.principal
    number = audit.note(request.app.state.services, principal, origin_of(request), act)
    request.state.noted = (number, act)


def refused(request: Request) -> None:
    """Record that a call was refused after it was recorded."""
    _conclude(request, AuditOutcome.REFUSED)


def done(request: Request) -> None:
    """Record that the act of a call was done. A look has no second row."""
    noted: tuple[int, AuditNote] | None = getattr(request.state, "noted", None)
    if noted is not None and noted[1].action not in LOOKS:
        _conclude(request, AuditOutcome.DONE)


def failed(request: Request, error: Exception) -> None:
    """Record that a call was refused, where the error says so. After any other the row stays without an outcome."""
    if isinstance(error, REFUSALS):
        refused(request)


def _conclude(request: Request, outcome: AuditOutcome) -> None:
    noted: tuple[int, AuditNote] | None = getattr(request.state, "noted", None)
    if noted is not None:
        request.state.noted = None
        audit.conclude(request.app.state.services, request.state.principal, origin_of(request), noted, outcome)


def look(request: Request, message: Message) -> None:
    """Record a look at a message."""
    note(
        request,
        AuditNote(AuditAction.LOOK, "message", str(message.ref), recipient=message.recipient_id, entity=message.spec.entity),
    )

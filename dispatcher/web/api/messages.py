"""`/v1/messages`."""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, HTTPException, Path, Query, Request, Response
from pydantic import AwareDatetime, StringConstraints

from channels.base import Channel
from dispatcher.campaigns import submission, trigger_cancellation
from dispatcher.campaigns.submission import KeyConflict
from dispatcher.campaigns.trigger_cancellation import CancelResult
from dispatcher.delivery import messages
from dispatcher.delivery.explanation import explain_to_customer
from dispatcher.delivery.messages import Message, MessageFilter
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.message import State
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.principal import Entities
from dispatcher.intake.errors import BadInput, InputError, StrictModel, validate
from dispatcher.intake.trigger import TriggerForm
from dispatcher.runtime.services import Services
from dispatcher.web import auditing
from dispatcher.web.api.authorization import CallerEntities, needs
from dispatcher.web.api.openapi import body
from dispatcher.web.api.schemas.messages import ExplanationBody, MessageAccepted, MessageBody, MessageList
from dispatcher.web.api_keys import Right
from dispatcher.web.dependencies import JsonObject, PublisherDependency, ServicesDependency, publish_or_defer
from dispatcher.web.errors import problem_responses
from dispatcher.web.serializers.messages import explanation_view, message_page, message_view

IdempotencyKey = Annotated[
    str | None,
    Header(alias="Idempotency-Key", pattern=r'^"?[!#-~]{1,200}"?$', description="The key, where the body has none."),
]
MessageIdText = Annotated[str, Path(description="The id of the message, such as `202611-1-2-0`.")]

SentenceLanguage = Annotated[Literal["nl", "fr", "de", "en"], Query(description="The language of the sentences.")]

ID = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$"

router = APIRouter(prefix="/messages", tags=["messages"], dependencies=[Depends(needs(Right.MESSAGES))])


@router.post(
    "", status_code=202, responses=problem_responses(409, 422), openapi_extra=body(TriggerForm, "Message", optional=("key",))
)
def send_message(
    form: JsonObject,
    services: ServicesDependency,
    broker: PublisherDependency,
    response: Response,
    entities: CallerEntities,
    idempotency_key: IdempotencyKey = None,
) -> MessageAccepted:
    """Accept one message, to be sent at once or at its `send_at`; its key is in the body or in `Idempotency-Key`.

    The same key with the same content gets the same answer, and nothing is done again; with other content, 409.
    """
    if idempotency_key is not None:
        key = idempotency_key.strip('"')
        if form.setdefault("key", key) != key:
            raise BadInput(InputError("job", 0, "key", "is not the one in the header Idempotency-Key"))
    try:
        place = submission.accept_trigger(services, form, entities)
    except KeyConflict as error:
        raise HTTPException(HTTPStatus.CONFLICT, "this key was used before, with other content") from error
    if place.fresh and submission.is_due(services, place):
        publish_or_defer(broker.publish, [submission.chunk_of(place)])
    message_id = str(submission.message_id_of(place))
    response.headers["Location"] = f"/v1/messages/{message_id}"
    return MessageAccepted(id=message_id)


class MessageFilterParameters:
    """The query parameters of a list of messages."""

    def __init__(
        self,
        recipient: Annotated[str | None, Query(pattern=ID, description="The id of a recipient.")] = None,
        campaign: Annotated[str | None, Query(pattern=ID, description="The id of a campaign.")] = None,
        state: Annotated[State | None, Query(description="The state of the message.")] = None,
        channel: Annotated[Channel | None, Query(description="The channel of the message.")] = None,
        since: Annotated[AwareDatetime | None, Query(description="Changed at this time or later.")] = None,
        until: Annotated[AwareDatetime | None, Query(description="Changed before this time.")] = None,
    ) -> None:
        self.filter = MessageFilter(recipient, campaign, state, channel, since, until)


@router.get("", response_model=MessageList)
def list_messages(
    services: ServicesDependency,
    entities: CallerEntities,
    parameters: Annotated[MessageFilterParameters, Depends()],
    cursor: Annotated[str | None, Query(description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=1_000, description="At most so many messages.")] = 100,
) -> dict[str, Any]:
    """The messages that match, newest first, in pages; read on while `next` is set, also after a page with few messages.

    The order does not change while you read: no message is listed twice or left out because others are added or change.
    """
    return message_page(messages.list_page(services, replace(parameters.filter, entities=entities), cursor, limit))


@router.get("/{message_id}", response_model=MessageBody, responses=problem_responses(404))
def show_message(
    request: Request, message_id: MessageIdText, services: ServicesDependency, entities: CallerEntities
) -> dict[str, Any]:
    """A message, the decision behind it, and the provider's delivery reports."""
    message = _message(services, message_id, entities)
    auditing.look(request, message)
    return message_view(message)


class TriggerKeyForm(StrictModel):
    """The key of a trigger."""

    key: Annotated[str, StringConstraints(min_length=1, max_length=200)]


@router.post(
    "/cancel",
    response_model=MessageBody,
    responses=problem_responses(404, 409),
    openapi_extra=body(TriggerKeyForm, "TriggerKey"),
)
def cancel_message_by_key(
    request: Request, form: JsonObject, services: ServicesDependency, entities: CallerEntities
) -> dict[str, Any]:
    """Cancel a trigger by its key, as `POST /v1/messages/{message_id}/cancel` does by its message."""
    key = validate(TriggerKeyForm, form, "job").key
    auditing.note(request, AuditNote(AuditAction.CANCEL, "trigger", key))
    return _cancelled(trigger_cancellation.cancel_by_key(services, key, entities))


@router.post("/{message_id}/cancel", response_model=MessageBody, responses=problem_responses(404, 409))
def cancel_message(message_id: MessageIdText, services: ServicesDependency, entities: CallerEntities) -> dict[str, Any]:
    """Cancel a trigger that is not sent yet: one with `send_at`, a held or a waiting one. One that is cancelled already gets
    the same answer; one that is being sent, or was sent, 409.
    """
    return _cancelled(trigger_cancellation.cancel(services, MessageId.parse(message_id), entities))


def _cancelled(result: CancelResult | None) -> dict[str, Any]:
    if result is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    if result.refusal is not None:
        raise HTTPException(HTTPStatus.CONFLICT, result.refusal)
    return message_view(result.message)


@router.get("/{message_id}/explanation", response_model=ExplanationBody, responses=problem_responses(404, 422))
def explain_message(
    request: Request,
    message_id: MessageIdText,
    services: ServicesDependency,
    entities: CallerEntities,
    language: SentenceLanguage = "en",
) -> dict[str, Any]:
    """Why a message was sent or not, in sentences for the customer, by the decision as it was taken."""
    message = _message(services, message_id, entities)
    auditing.look(request, message)
    return explanation_view(message, explain_to_customer(services, message, language))


def _message(services: Services, message_id: str, entities: Entities) -> Message:
    message = messages.find(services, MessageId.parse(message_id), entities)
    if message is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return message

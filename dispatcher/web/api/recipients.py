"""`/v1/recipients`."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Path, Response

from dispatcher.consent import erasure, recipients
from dispatcher.consent.recipients import PutStatus
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.intake.recipient_import import ERASED, BadRecipient, RecipientForm, parse
from dispatcher.web.api import schemas
from dispatcher.web.api.authorization import actor, needs
from dispatcher.web.api.openapi import body
from dispatcher.web.api_keys import ApiKey, Right
from dispatcher.web.dependencies import JsonObject, ServicesDependency
from dispatcher.web.errors import problem_responses

RecipientId = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$")]
RecipientsKey = Annotated[ApiKey, Depends(needs(Right.RECIPIENTS))]

router = APIRouter(prefix="/recipients", tags=["recipients"])


@router.put(
    "/{recipient_id}",
    responses={**problem_responses(409, 422), 201: {"model": schemas.RecipientResult}},
    openapi_extra=body(RecipientForm, "Recipient", optional=("id",)),
)
def put_recipient(
    caller: RecipientsKey, recipient_id: RecipientId, form: JsonObject, services: ServicesDependency, response: Response
) -> schemas.RecipientResult:
    """Add a recipient, in the form of the import file, or replace what was known of them. 201 for a new one."""
    if form.setdefault("id", recipient_id) != recipient_id:
        raise BadInput(InputError("recipient", 0, "id", "is not the one in the path"))
    try:
        recipient = parse(form, services.clock(), services.policy.files.default_region)
    except BadRecipient as error:
        raise BadInput(InputError("recipient", 0, error.field, error.reason)) from None
    result = recipients.put(services, recipient, actor(caller))
    if result.status is PutStatus.ERASED:
        raise HTTPException(HTTPStatus.CONFLICT, ERASED)
    if result.status is PutStatus.NEW:
        response.status_code = HTTPStatus.CREATED
    return schemas.RecipientResult(id=recipient_id, outcome=result.status, version=result.version)


@router.delete("/{recipient_id}", status_code=204, responses=problem_responses(404))
def erase_recipient(caller: RecipientsKey, recipient_id: RecipientId, services: ServicesDependency) -> None:
    """Erase a person. Decisions stay, without content; suppressions stay, without the address."""
    erasure.erase(services, recipient_id, actor(caller))

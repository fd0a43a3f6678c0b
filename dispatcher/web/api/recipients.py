"""`/v1/recipients`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import StringConstraints

from dispatcher.consent import erasure_requests, recipient_stream, recipients
from dispatcher.consent.erasure_requests import ErasureResult
from dispatcher.consent.recipient_stream import LineResult, StreamLine
from dispatcher.consent.recipients import PutStatus
from dispatcher.delivery import people
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.principal import require_unlimited
from dispatcher.intake.errors import BadInput, InputError, StrictModel, validate
from dispatcher.intake.recipient_import import ERASED, BadRecipient, RecipientForm, parse
from dispatcher.web import auditing, ndjson
from dispatcher.web.api import line_uploads
from dispatcher.web.api.authorization import actor, needs
from dispatcher.web.api.line_uploads import UploadDependency
from dispatcher.web.api.openapi import body
from dispatcher.web.api.schemas.recipients import ErasureWaiting, RecipientBody, RecipientIds, RecipientResult
from dispatcher.web.api.strict_json import read_object
from dispatcher.web.api_keys import ApiKey, Right
from dispatcher.web.dependencies import JsonObject, ServicesDependency
from dispatcher.web.errors import problem_responses

RecipientId = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$", description="The id of the recipient.")]
Include = Annotated[
    str,
    Query(pattern=r"^(addresses|profile)(,(addresses|profile))?$|^$", description="What to add: `addresses`, `profile`, or both."),
]
Reason = Annotated[
    str, Query(min_length=1, max_length=erasure_requests.REASON_LENGTH_MAX, description="Why; the second person reads it.")
]
RecipientsKey = Annotated[ApiKey, Depends(needs(Right.RECIPIENTS))]

router = APIRouter(prefix="/recipients", tags=["recipients"])


class RecipientSearchForm(StrictModel):
    """An e-mail address or a telephone number. It is in the body, because addresses in a URL end up in logs."""

    address: Annotated[str, StringConstraints(min_length=1, max_length=320)]


@router.post("/search", response_model=RecipientIds, openapi_extra=body(RecipientSearchForm, "RecipientSearch"))
def search_recipients(caller: RecipientsKey, request: Request, form: JsonObject, services: ServicesDependency) -> dict[str, Any]:
    """The ids of all who have this address. A number counts for SMS and for WhatsApp."""
    found = recipients.with_address(services, validate(RecipientSearchForm, form, "search").address)
    ids = [each for each in found if people.may_see(services, caller.principal, each)]
    auditing.note(request, AuditNote(AuditAction.SEARCH, "recipients", detail={"found": ids[:100]}))
    return {"ids": ids}


@router.post(
    "/bulk",
    response_class=Response,
    responses=line_uploads.responses(LineResult, "RecipientLineResult"),
    openapi_extra=line_uploads.request_body(RecipientForm, "Recipient"),
)
async def put_recipients(
    caller: RecipientsKey, request: Request, services: ServicesDependency, upload: UploadDependency
) -> Response:
    """Add or replace recipients, one JSON object per line, in the form of the import file. Each line is answered by a line.

    With an `Upload-Id` an interrupted client goes on where it was: it sends the lines without an answer again, with the number of
    the first in `Upload-Line`. A line that was applied is not applied again. Without one it sends all lines again, or those
    without an answer: a line that was applied is unchanged.
    """
    require_unlimited(caller.principal)
    name = actor(caller)
    begin = await run_in_threadpool(line_uploads.start, services, caller, "recipients", upload)

    def put(lines: Sequence[StreamLine]) -> Iterable[dict[str, Any]]:
        return map(asdict, recipient_stream.put_lines(services, lines, name, begin.upload))

    return ndjson.answer(request, stream_line, put, begin.first_line, begin.headers)


def stream_line(number: int, text: bytes) -> StreamLine:
    """A line of a stream as data, or with the reason why it is none."""
    problem = f"is longer than {ndjson.LINE_BYTES_MAX} bytes"
    if len(text) <= ndjson.LINE_BYTES_MAX:
        try:
            return StreamLine(number, read_object(text))
        except BadInput as error:
            fault = error.faults[0]
            problem = f"{fault.field}: {fault.message}" if fault.field else fault.message
    return StreamLine(number, {}, problem, text.decode("utf-8", "surrogateescape"))


@router.get("/{recipient_id}", response_model=RecipientBody, responses=problem_responses(404))
def show_recipient(
    caller: RecipientsKey,
    recipient_id: RecipientId,
    services: ServicesDependency,
    response: Response,
    include: Include = "",
) -> dict[str, Any]:
    """What is on record about a person. Addresses and profile are left out unless `include` names them: `addresses,profile`."""
    people.require_visible(services, caller.principal, recipient_id)
    record = recipients.show_part(services, recipient_id, frozenset(include.split(",")))
    response.headers["ETag"] = f'"{record["version"]}"'
    return record


@router.get(
    "/{recipient_id}/export",
    response_model=dict[str, Any],
    response_description="What is on record",
    responses=problem_responses(404),
)
def export_recipient(caller: RecipientsKey, recipient_id: RecipientId, services: ServicesDependency) -> dict[str, Any]:
    """Everything on record about a person, for an access request: addresses, profile, history, messages, jobs, inbound messages."""
    people.require_all_entities(caller.principal, people.view(services, caller.principal, recipient_id))
    return recipients.export(services, recipient_id)


@router.put(
    "/{recipient_id}",
    responses={**problem_responses(409, 422), 201: {"model": RecipientResult}},
    openapi_extra=body(RecipientForm, "Recipient", optional=("id",)),
)
def put_recipient(
    caller: RecipientsKey, recipient_id: RecipientId, form: JsonObject, services: ServicesDependency, response: Response
) -> RecipientResult:
    """Add a recipient, in the form of the import file, or replace what was known of them. 201 for a new one.

    A key that is limited to entities cannot do this: 403.
    """
    require_unlimited(caller.principal)
    if form.setdefault("id", recipient_id) != recipient_id:
        raise BadInput(InputError("recipient", 0, "id", "is not the one in the path"))
    try:
        rules = services.policy.files
        recipient = parse(form, services.clock(), rules.default_region, rules.contract_versions)
    except BadRecipient as error:
        raise BadInput(InputError("recipient", 0, error.field, error.reason)) from None
    result = recipients.put(services, recipient, actor(caller))
    if result.status is PutStatus.ERASED:
        raise HTTPException(HTTPStatus.CONFLICT, ERASED)
    if result.status is PutStatus.NEW:
        response.status_code = HTTPStatus.CREATED
    return RecipientResult(id=recipient_id, outcome=result.status, version=result.version)


@router.delete(
    "/{recipient_id}",
    status_code=204,
    response_description="The person is erased",
    responses={202: {"model": ErasureWaiting, "description": "Another key or person has to approve it"}, **problem_responses(404)},
)
def erase_recipient(
    caller: RecipientsKey, recipient_id: RecipientId, request: Request, services: ServicesDependency, reason: Reason = "by API"
) -> Response:
    """Erase a person, as another key or person requested; else request it, and the answer is 202. Decisions stay, without
    content; suppressions stay, without the address.

    The same call with another key, or a person in the console or at the command line, approves it. Where the policy lets one
    person erase, the first call does.
    """
    people.require_visible(services, caller.principal, recipient_id)
    auditing.note(request, erasure_requests.act_of(services, recipient_id, reason, actor(caller)))
    if caller.entities is not None:
        people.require_all_entities(caller.principal, people.view(services, caller.principal, recipient_id))
    result = erasure_requests.request_or_approve(services, recipient_id, reason, actor(caller))
    if result is ErasureResult.WAITING:
        return JSONResponse(ErasureWaiting(id=recipient_id).model_dump(), HTTPStatus.ACCEPTED)
    return Response(status_code=HTTPStatus.NO_CONTENT)

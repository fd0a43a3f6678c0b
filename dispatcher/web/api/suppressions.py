"""`/v1/suppressions`."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import fastapi
from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, StringConstraints

from channels.base import Channel
from dispatcher.consent import suppressions
from dispatcher.consent.suppressions import SuppressionFilter, SuppressionRequest
from dispatcher.intake.errors import BadInput, StrictModel, validate
from dispatcher.web.api.authorization import actor, needs
from dispatcher.web.api.openapi import body
from dispatcher.web.api.schemas.suppressions import SuppressionBody, SuppressionImportBody, SuppressionPage
from dispatcher.web.api_keys import ApiKey, Right
from dispatcher.web.dependencies import JsonObject, ServicesDependency
from dispatcher.web.errors import problem_responses

SuppressionsKey = Annotated[ApiKey, Depends(needs(Right.SUPPRESSIONS))]
NUMBER_MAX = 2**63 - 1
SUFFIX_OF = {"text/csv": ".csv", "application/x-ndjson": ".jsonl"}

ReasonWord = Annotated[str | None, Query(pattern=suppressions.WORD, description="Why: a word such as `hard_bounce`.")]
SourceWord = Annotated[str | None, Query(pattern=suppressions.WORD, description="From where: a word such as `sendgrid`.")]
SuppressionNumber = Annotated[int, fastapi.Path(description="The number of the suppression.")]

router = APIRouter(prefix="/suppressions", tags=["suppressions"])


class SuppressionSearchForm(StrictModel):
    """An e-mail address or a telephone number. It is in the body, because addresses in a URL end up in logs."""

    address: Annotated[str, StringConstraints(min_length=1, max_length=320)]


class SuppressionLiftForm(StrictModel):
    """Why a suppression is lifted."""

    reason: Annotated[str, StringConstraints(min_length=1, max_length=suppressions.REASON_LENGTH_MAX)]


def _filter(
    channel: Annotated[Channel | None, Query(description="Of this channel only.")] = None,
    reason: ReasonWord = None,
    source: SourceWord = None,
    since: Annotated[AwareDatetime | None, Query(description="Recorded at this time or later.")] = None,
    lifted: Annotated[bool, Query(description="Lifted ones too.")] = False,
) -> SuppressionFilter:
    return SuppressionFilter(channel, reason, source, since, lifted)


FilterDependency = Annotated[SuppressionFilter, Depends(_filter)]


@router.get("", response_model=SuppressionPage, dependencies=[Depends(needs(Right.SUPPRESSIONS))])
def list_suppressions(
    services: ServicesDependency,
    wanted: FilterDependency,
    after: Annotated[int, Query(ge=0, le=NUMBER_MAX, description="The number of the last one that you have.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1_000, description="At most so many suppressions.")] = 100,
) -> dict[str, Any]:
    """Suppressions by number; the next page begins `after` the last one's. An address is shown as its keyed hash."""
    return {"suppressions": [suppressions.view(record) for record in suppressions.page(services, wanted, after, limit)]}


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses={200: {"description": "The list", "content": {"text/csv": {"schema": {"type": "string"}}}}},
    dependencies=[Depends(needs(Right.SUPPRESSIONS))],
)
def export_suppressions(services: ServicesDependency, wanted: FilterDependency) -> StreamingResponse:
    """Suppressions as CSV: hashes, reasons and dates, never addresses."""
    return StreamingResponse(suppressions.export_csv(services, wanted), media_type="text/csv")


@router.post("/search", response_model=SuppressionPage, openapi_extra=body(SuppressionSearchForm, "SuppressionSearch"))
def search_suppressions(caller: SuppressionsKey, form: JsonObject, services: ServicesDependency) -> dict[str, Any]:
    """The suppressions of an address, newest first, lifted ones too. The ledger records who looked, and not the address."""
    parsed = validate(SuppressionSearchForm, form, "search")
    return {"suppressions": [suppressions.view(record) for record in suppressions.find(services, parsed.address, actor(caller))]}


@router.post(
    "/{number}/lift",
    response_model=SuppressionBody,
    responses=problem_responses(404),
    openapi_extra=body(SuppressionLiftForm, "SuppressionLift"),
)
def lift_suppression(
    caller: SuppressionsKey, number: SuppressionNumber, form: JsonObject, services: ServicesDependency
) -> dict[str, Any]:
    """Lift a suppression. It permits nothing by itself: a person's own opt-out stays. One lifted before stays as it is."""
    parsed = validate(SuppressionLiftForm, form, "lift")
    record = suppressions.lift(services, number, actor(caller), parsed.reason) if 0 < number <= NUMBER_MAX else None
    if record is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return suppressions.view(record)


def _options(
    list_format: Annotated[
        str | None, Query(alias="format", description="The format of the list; needed where its columns fit several.")
    ] = None,
    reason: ReasonWord = None,
    source: SourceWord = None,
    dry_run: Annotated[bool, Query(description="Count, and change nothing.")] = False,
) -> SuppressionRequest:
    return SuppressionRequest(Path(), "", None, list_format, reason, source, dry_run)


_LIST = {"requestBody": {"required": True, "content": {kind: {"schema": {"type": "string"}} for kind in SUFFIX_OF}}}


@router.post("/import", response_model=SuppressionImportBody, responses=problem_responses(415), openapi_extra=_LIST)
async def import_suppressions(
    caller: SuppressionsKey,
    request: Request,
    services: ServicesDependency,
    options: Annotated[SuppressionRequest, Depends(_options)],
) -> dict[str, Any]:
    """Suppress the addresses of a list, `text/csv` or `application/x-ndjson`. The same list again changes nothing.

    The import begins when the list is complete. Faults name lines and columns, and never an address.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in SUFFIX_OF:
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"should be {' or '.join(SUFFIX_OF)}")
    with TemporaryDirectory(prefix="dispatcher-") as folder:  # readable by this user only; deleted with the addresses in it
        path = Path(folder) / f"list{SUFFIX_OF[kind]}"
        with path.open("wb") as file:
            async for part in request.stream():
                file.write(part)
        wanted = replace(options, path=path, actor=actor(caller))
        try:
            imported = await asyncio.to_thread(suppressions.import_list, services, wanted)
        except BadInput as error:
            raise BadInput(*(replace(fault, file="list") for fault in error.faults)) from None
    return suppressions.import_view(imported, wanted.dry_run)

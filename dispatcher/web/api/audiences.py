"""`/v1/audiences`: uploaded audiences, which campaigns name by their id."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Header, HTTPException, Path, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from dispatcher.campaigns import audience_uploads
from dispatcher.campaigns.audience_uploads import Upload, UploadConflict, UploadRange, UploadTooLarge, UploadWriter
from dispatcher.intake.audience_uploads import TYPES, suffix_of
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.runtime.services import Services
from dispatcher.web.api.authorization import needs
from dispatcher.web.api.schemas.audiences import UploadBody, UploadList
from dispatcher.web.api_keys import ApiKey, Right
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.errors import problem_responses
from dispatcher.web.serializers.audiences import upload_view

log = structlog.get_logger()

UploadId = Annotated[
    str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$", description="The id of the upload, as its campaign will name it.")
]
NewUploadId = Annotated[
    str,
    Path(
        description="The id of the upload, as its campaign will name it.", json_schema_extra={"pattern": f"^{audience_uploads.ID}$"}
    ),
]
ContentEncoding = Annotated[
    str, Header(alias="Content-Encoding", pattern="^(gzip|identity)$", description="`gzip` for a packed body.")
]
ContentRange = Annotated[
    str | None,
    Header(
        alias="Content-Range",
        pattern=r"^bytes (\d{1,15}-\d{1,15}|\*)/(\d{1,15}|\*)$",
        description="Which bytes this call brings, for an upload in parts: `bytes 0-1048575/5000000`.",
    ),
]
_RANGE = re.compile(r"bytes (?:(?P<start>\d+)-(?P<end>\d+)|\*)/(?P<total>\d+|\*)")
_BINARY = {"schema": {"type": "string", "format": "binary"}}

CampaignsKey = Annotated[ApiKey, Depends(needs(Right.CAMPAIGNS))]

router = APIRouter(prefix="/audiences", tags=["campaigns"], dependencies=[Depends(needs(Right.CAMPAIGNS))])


@router.put(
    "/{upload_id}",
    status_code=201,
    response_model=UploadBody,
    responses={
        200: {"model": UploadBody, "description": "It was uploaded before"},
        202: {"model": UploadBody, "description": "More bytes are to come"},
        **problem_responses(403, 409, 415, 422, 507),
    },
    openapi_extra={"requestBody": {"required": True, "content": dict.fromkeys((*TYPES, "application/octet-stream"), _BINARY)}},
)
async def upload_audience(
    caller: CampaignsKey,
    upload_id: NewUploadId,
    request: Request,
    services: ServicesDependency,
    content_encoding: ContentEncoding = "identity",
    content_range: ContentRange = None,
) -> JSONResponse:
    """Upload an audience of any size as NDJSON, CSV or XLSX, also as gzip; a campaign names it as `{"upload": "ID"}`.

    The type is that of `Content-Type`, or else of the id's ending, such as `.csv.gz`. In parts, each call has a
    `Content-Range`, and the answer is 202 with the number of bytes received until it is complete. After an interruption `GET`
    has that number, and the upload goes on there. A complete upload does not change: the same bytes again are answered 200,
    others 409. The checksum in the answer is that of the bytes as they were sent. An upload belongs to the key that began it: to
    another key the answer is 403.
    """
    if not audience_uploads.is_id(upload_id):
        message = "should begin with a letter or digit, and have letters, digits and . _ : - only, at most 100"
        raise BadInput(InputError("path", 0, "upload_id", message))
    suffix = suffix_of(upload_id, request.headers.get("content-type", ""))
    if suffix is None:
        detail = f"the Content-Type should be one of {', '.join(TYPES)}, or the id should end in .jsonl, .csv, .tsv or .xlsx"
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail)
    await run_in_threadpool(_find, services, upload_id, caller)
    is_gzip = content_encoding == "gzip" or upload_id.endswith(".gz")
    upload = Upload(upload_id, suffix, is_gzip, submitted_by=caller.name)
    try:
        writer = await run_in_threadpool(audience_uploads.open_upload, services, upload, _range(request, content_range))
        try:
            async for data in request.stream():
                if data:
                    await run_in_threadpool(writer.write, data)
            return await run_in_threadpool(_finish, writer)
        finally:
            await run_in_threadpool(writer.close)
    except UploadConflict as error:
        raise HTTPException(HTTPStatus.CONFLICT, str(error)) from None
    except UploadTooLarge as error:
        raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error)) from None
    except ClientDisconnect:  # nobody reads this answer; what arrived stays
        raise HTTPException(HTTPStatus.BAD_REQUEST, "the call ended before its body") from None
    except OSError as error:
        log.error("an upload cannot be stored", upload=upload_id, fault=type(error).__name__, reason=error.strerror)
        raise HTTPException(HTTPStatus.INSUFFICIENT_STORAGE, "the upload cannot be stored here; the log says why") from None


def _range(request: Request, content_range: str | None) -> UploadRange:
    """The bytes of this call. A call without a range brings all; how many, its length says."""
    match = _RANGE.fullmatch(content_range or "")
    if match is None:
        length = request.headers.get("content-length", "")
        return UploadRange(0, int(length) if length.isascii() and length.isdigit() else None)
    total = None if match["total"] == "*" else int(match["total"])
    if match["start"] is None:  # no bytes: only to complete an upload that has all
        return UploadRange(-1, total, 0, is_whole=False)
    start, end = int(match["start"]), int(match["end"]) + 1
    if end <= start or (total is not None and end > total):
        raise BadInput(InputError("header", 0, "Content-Range", "should be bytes FIRST-LAST/TOTAL, counted from 0"))
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length) != end - start:  # before anything of the upload is changed
        raise BadInput(InputError("header", 0, "Content-Range", f"says {end - start} bytes, the body has {int(length)}"))
    return UploadRange(start, total, end - start, is_whole=False)


def _finish(writer: UploadWriter) -> JSONResponse:
    was_complete = writer.before is not None and writer.before.is_complete
    upload = writer.finish()
    status = HTTPStatus.OK if was_complete else HTTPStatus.CREATED if upload.is_complete else HTTPStatus.ACCEPTED
    return JSONResponse(upload_view(upload), status)


@router.get("", response_model=UploadList)
def list_uploads(caller: CampaignsKey, services: ServicesDependency) -> dict[str, Any]:
    """The uploaded audiences of this key and of the command line, by id."""
    return {"audiences": [upload_view(upload) for upload in audience_uploads.every(services) if _is_open(upload, caller)]}


@router.get("/{upload_id}", response_model=UploadBody, responses=problem_responses(404))
def show_upload(caller: CampaignsKey, upload_id: UploadId, services: ServicesDependency) -> dict[str, Any]:
    """How far an upload is: the next part starts at the byte `received`."""
    upload = _find(services, upload_id, caller)
    if upload is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return upload_view(upload)


def _find(services: Services, upload_id: str, caller: ApiKey) -> Upload | None:
    """The upload of this id. Raises `HTTPException` where it is another key's."""
    upload = audience_uploads.find(services, upload_id)
    if upload is not None and not _is_open(upload, caller):
        raise HTTPException(HTTPStatus.FORBIDDEN, "it belongs to another key")
    return upload


def _is_open(upload: Upload, caller: ApiKey) -> bool:
    """Whether it is the key's own, or of the command line; a key that is limited to entities has only its own."""
    return upload.is_open_to(caller.name) and (caller.entities is None or bool(upload.submitted_by))


@router.delete("/{upload_id}", status_code=204, response_description="The upload is deleted", responses=problem_responses(404, 409))
def delete_upload(caller: CampaignsKey, upload_id: UploadId, services: ServicesDependency) -> None:
    """Delete an upload, complete or not. While a campaign loads from it, 409."""
    _find(services, upload_id, caller)
    try:
        deleted = audience_uploads.delete(services, upload_id)
    except UploadConflict as error:
        raise HTTPException(HTTPStatus.CONFLICT, str(error)) from None
    if not deleted:
        raise HTTPException(HTTPStatus.NOT_FOUND)

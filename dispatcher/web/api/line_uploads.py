"""The headers by which a client resumes a stream of lines."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import Depends, Header, HTTPException

from dispatcher.consent import line_uploads
from dispatcher.consent.line_uploads import LineUpload
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.runtime.services import Services
from dispatcher.web.api.openapi import lines
from dispatcher.web.api_keys import ApiKey
from dispatcher.web.errors import problem_responses

TAKEN = "Upload-Taken"
TAKEN_HEADER: dict[str, Any] = {
    TAKEN: {
        "description": "With `Upload-Id`: the last line that was taken before this call; 0 for none.",
        "schema": {"type": "integer"},
    }
}

UploadIdHeader = Annotated[
    str | None,
    Header(
        alias="Upload-Id",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$",
        description="An id of this stream. With it the server remembers which lines it took, and takes none twice.",
    ),
]
UploadLineHeader = Annotated[
    int, Header(alias="Upload-Line", ge=1, lt=2**53, description="With `Upload-Id`: the number of the first line of this call.")
]


@dataclass(frozen=True, slots=True)
class UploadHeaders:
    """Which stream this is a part of, and the number of its first line."""

    id: UploadIdHeader = None
    first_line: UploadLineHeader = 1


def _headers(upload_id: UploadIdHeader = None, first_line: UploadLineHeader = 1) -> UploadHeaders:
    return UploadHeaders(upload_id, first_line)


UploadDependency = Annotated[UploadHeaders, Depends(_headers)]


@dataclass(frozen=True, slots=True)
class StreamStart:
    """Where a stream begins. Without an upload it begins at line 1."""

    upload: LineUpload | None
    first_line: int
    headers: dict[str, str]  # of the response


def request_body(form: type[Any], name: str) -> dict[str, Any]:
    """`openapi_extra` for a route that reads lines of this form."""
    return {"requestBody": {"required": True, "content": lines(form, name)}}


def responses(result: type[Any], name: str) -> dict[int | str, dict[str, Any]]:
    """The responses of a route that answers lines of this form."""
    content = lines(result, name, "serialization")
    answer = {"description": "A line for each line, in their order", "headers": TAKEN_HEADER, "content": content}
    return {200: answer, **problem_responses(409, 415)}


def start(services: Services, caller: ApiKey, kind: Literal["recipients", "preferences"], headers: UploadHeaders) -> StreamStart:
    """Where this call begins. Raises `HTTPException` where it leaves out lines."""
    if headers.id is None:
        if headers.first_line != 1:
            raise BadInput(InputError("header", 0, "Upload-Line", "needs an Upload-Id"))
        return StreamStart(None, 1, {})
    upload = LineUpload(caller.name, kind, headers.id)
    taken = line_uploads.lines_taken(services, upload)
    answer = {TAKEN: str(taken)}
    if headers.first_line > taken + 1:
        raise HTTPException(HTTPStatus.CONFLICT, f"this upload goes on at line {taken + 1}", answer)
    return StreamStart(upload, headers.first_line, answer)

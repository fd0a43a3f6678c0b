"""Errors as responses: RFC 9457 problem details for programs, a short page for people. They never repeat a value of the caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from dispatcher.domain.errors import (
    DraftConflict,
    EndpointConflict,
    LedgerUnavailable,
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
from dispatcher.intake.audience_uploads import ForeignUpload
from dispatcher.intake.errors import BadInput
from dispatcher.intake.json_limits import TooLarge
from dispatcher.web.console.labels import PROBLEMS
from dispatcher.web.pages.console import page

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 5
FIELD_LENGTH_MAX = 200  # the name of a field comes from the caller, too
MACHINES = ("/v1/", "/webhooks/", "/metrics", "/healthz", "/readyz")


class FieldError(BaseModel):
    """One field and what is wrong with it. `line` is there for a body of lines or rows."""

    field: str
    message: str
    line: int | None = None


class Problem(BaseModel):
    """What went wrong, by RFC 9457. `errors` names the wrong fields, if any."""

    title: str
    status: int
    detail: str
    errors: list[FieldError] | None = None


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: the problems with which a route may answer."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": schema}}} for status in statuses}


def problem(
    request: Request,
    status: int,
    detail: str = "",
    faults: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The response, in the form that the caller can use."""
    title = HTTPStatus(status).phrase
    if not request.url.path.startswith(MACHINES) and "text/html" in request.headers.get("accept", ""):
        operator = getattr(request.state, "operator", None)
        words = PROBLEMS.get(status, ("", ""))
        text = page("problem.html", title=title, words=words, detail=detail, operator=operator)
        return HTMLResponse(text, status, headers)
    body: dict[str, Any] = {"title": title, "status": status, "detail": detail or title}
    if faults:
        body["errors"] = [fault.model_dump(exclude_none=True) for fault in faults]
    return JSONResponse(body, status, headers, MEDIA_TYPE)


def _field_error(field: str, message: str, line: int | None = None) -> FieldError:
    return FieldError(field=field[:FIELD_LENGTH_MAX], message=message, line=line)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  registered for it
    return problem(request, error.status_code, str(error.detail), headers=error.headers)


async def _bad_input(request: Request, error: Exception) -> Response:
    assert isinstance(error, BadInput)  # noqa: S101
    if isinstance(error, ForeignUpload):
        return problem(request, HTTPStatus.FORBIDDEN, error.faults[0].message)
    if isinstance(error, TooLarge):
        return problem(request, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body {error.faults[0].message}")
    faults = [_field_error(fault.field, fault.message, fault.line or None) for fault in error.faults]
    return problem(request, HTTPStatus.UNPROCESSABLE_ENTITY, "nothing of this was accepted", faults)


async def _bad_choice(request: Request, error: Exception) -> Response:
    assert isinstance(error, BadChoice)  # noqa: S101
    field = "at" if error.field == "said_at" else error.field
    return problem(request, HTTPStatus.UNPROCESSABLE_ENTITY, "nothing of this was accepted", [_field_error(field, error.reason)])


async def _bad_parameter(request: Request, error: Exception) -> Response:
    """404 for a path that cannot name anything, 422 for other parameters."""
    assert isinstance(error, RequestValidationError)  # noqa: S101
    items = error.errors()
    if any(item["loc"][0] == "path" for item in items):
        return problem(request, HTTPStatus.NOT_FOUND)
    faults = [_field_error(".".join(str(part) for part in item["loc"][1:]), item["msg"]) for item in items]
    return problem(request, HTTPStatus.UNPROCESSABLE_ENTITY, "nothing of this was accepted", faults)


async def _unknown(request: Request, _: Exception) -> Response:
    return problem(request, HTTPStatus.NOT_FOUND)


async def _forbidden(request: Request, error: Exception) -> Response:
    return problem(request, HTTPStatus.FORBIDDEN, str(error))


async def _conflict(request: Request, error: Exception) -> Response:
    return problem(request, HTTPStatus.CONFLICT, str(error))


async def _version_conflict(request: Request, error: Exception) -> Response:
    assert isinstance(error, VersionConflict)  # noqa: S101
    return problem(request, HTTPStatus.PRECONDITION_FAILED, str(error), headers={"ETag": f'"{error.current}"'})


async def _unavailable(request: Request, _: Exception) -> Response:
    detail = "the database does not answer; try again in a moment"
    return problem(request, HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": str(RETRY_SECONDS)})


async def _not_in_force(request: Request, _: Exception) -> Response:
    """A rolling deploy is under way: another instance has the policy in force."""
    detail = "another policy is in force than this server was started with; nothing was accepted"
    return problem(request, HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": str(RETRY_SECONDS)})


def install(application: FastAPI) -> None:
    """Let the application answer every error that its routers raise."""
    application.add_exception_handler(HTTPException, _http)
    application.add_exception_handler(RequestValidationError, _bad_parameter)
    application.add_exception_handler(BadInput, _bad_input)
    application.add_exception_handler(BadChoice, _bad_choice)
    application.add_exception_handler(BadMessageId, _unknown)
    application.add_exception_handler(NotAllowed, _forbidden)
    application.add_exception_handler(UnknownRecipient, _unknown)
    application.add_exception_handler(UnknownEndpoint, _unknown)
    application.add_exception_handler(EndpointConflict, _conflict)
    application.add_exception_handler(UnknownSchedule, _unknown)
    application.add_exception_handler(ScheduleConflict, _conflict)
    application.add_exception_handler(DraftConflict, _conflict)
    application.add_exception_handler(VersionConflict, _version_conflict)
    application.add_exception_handler(LedgerUnavailable, _unavailable)
    application.add_exception_handler(PolicyNotInForce, _not_in_force)

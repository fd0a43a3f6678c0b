"""The audience of a draft: its file, which column is what, and the rows that cannot be read."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from http import HTTPStatus

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse

from dispatcher.campaigns import drafts
from dispatcher.campaigns.audience_uploads import UploadTooLarge
from dispatcher.campaigns.drafts import AudienceError, Draft
from dispatcher.domain.recipient import Language
from dispatcher.intake.errors import BadInput
from dispatcher.intake.rows import IGNORED
from dispatcher.runtime.services import Services
from dispatcher.web.console.draft_forms import OwnDraft, PostedForm, is_outdated
from dispatcher.web.console.login import Operator
from dispatcher.web.console.session import ConsoleSession
from dispatcher.web.console.translation import fault_words
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.pages.console import page

router = APIRouter(prefix="/drafts/{no}", default_response_class=HTMLResponse)


@router.get("/audience")
def audience_page(operator: Operator, services: ServicesDependency, draft: OwnDraft) -> str:
    """The file of a draft and its rows that cannot be read."""
    return _audience_page(operator, services, draft, [])


@router.post("/audience")
def upload_audience(operator: Operator, services: ServicesDependency, draft: OwnDraft, posted: PostedForm) -> Response:
    """Take a file. Where its columns are not known, ask for them."""
    file = posted.file("file")
    if file is None:
        text = _audience_page(operator, services, draft, ["Choose a file first."])
        return HTMLResponse(text, HTTPStatus.UNPROCESSABLE_ENTITY)
    try:
        draft = drafts.upload(services, draft, file.file, file.filename or "")
        asks = drafts.needs_assignment(services, draft)
    except (BadInput, UploadTooLarge) as error:
        messages = [fault.message for fault in error.faults] if isinstance(error, BadInput) else [str(error)]
        text = _audience_page(operator, services, draft, [f"The file {message}" for message in messages])
        return HTMLResponse(text, HTTPStatus.UNPROCESSABLE_ENTITY)
    return RedirectResponse(f"/console/drafts/{draft.no}/{'columns' if asks else 'audience'}", HTTPStatus.SEE_OTHER)


def _audience_page(operator: ConsoleSession, services: Services, draft: Draft, messages: list[str]) -> str:
    columns: dict[str, str] = {}
    is_gone = False
    if draft.upload:
        try:
            columns = _columns_of(services, draft)
        except BadInput:  # retention has deleted the file
            is_gone = True
    return page(
        "draft_audience.html",
        operator=operator,
        draft=draft,
        messages=messages,
        columns=columns,
        is_gone=is_gone,
        variables=drafts.variables_of(services, draft.form),
        bytes_max=services.upload_limits.bytes_max,
    )


def _columns_of(services: Services, draft: Draft) -> dict[str, str]:
    """The names that the file itself gives its columns, by what they stand for. Raises BadInput where the upload is gone."""
    choice = drafts.column_choice(services, draft)
    return {target: cell for target, cell in zip(choice.columns, choice.header, strict=True) if cell}


@router.get("/columns")
def columns_page(operator: Operator, services: ServicesDependency, draft: OwnDraft) -> Response:
    """Ask which column of the file is what. Without a file, or for one without columns, show the page of the audience."""
    try:
        has_columns = bool(drafts.column_choice(services, draft).header)
    except BadInput:
        has_columns = False
    if not has_columns:
        return RedirectResponse(f"/console/drafts/{draft.no}/audience", HTTPStatus.SEE_OTHER)
    return HTMLResponse(_columns_page(operator, services, draft, None, {}))


@router.post("/columns")
def assign_columns(operator: Operator, services: ServicesDependency, draft: OwnDraft, posted: PostedForm) -> Response:
    """Take the assignment, and show which rows can be read with it."""
    columns = posted.texts("columns")
    if is_outdated(posted, draft.upload or ""):
        errors = {"": "Another file was uploaded in another window: these are its columns."}
        return HTMLResponse(_columns_page(operator, services, draft, None, errors), HTTPStatus.CONFLICT)
    try:
        drafts.assign(services, draft, columns)
    except BadInput as error:
        errors = {fault.field: fault.message for fault in error.faults}
        return HTMLResponse(_columns_page(operator, services, draft, columns, errors), HTTPStatus.UNPROCESSABLE_ENTITY)
    return RedirectResponse(f"/console/drafts/{draft.no}/audience", HTTPStatus.SEE_OTHER)


def _columns_page(
    operator: ConsoleSession, services: Services, draft: Draft, columns: list[str] | None, errors: dict[str, str]
) -> str:
    choice = drafts.column_choice(services, draft)
    return page(
        "draft_columns.html",
        operator=operator,
        draft=draft,
        choice=choice,
        shown=draft.upload,
        columns=columns if columns is not None and len(columns) == len(choice.header) else choice.columns,
        errors=errors,
        ignored=IGNORED,
    )


@router.get("/faults.csv")
def unreadable_rows(operator: Operator, services: ServicesDependency, draft: OwnDraft) -> Response:
    """All rows that cannot be read, with their numbers and the reasons, as CSV."""
    headers = {"Content-Disposition": 'attachment; filename="rows-that-cannot-be-read.csv"'}
    rows = drafts.unreadable_rows(services, draft)  # raises here for a file that is gone
    text = _csv(rows, _columns_of(services, draft), operator.viewer.language)
    return StreamingResponse(text, media_type="text/csv; charset=utf-8", headers=headers)


def _as_text(cell: str) -> str:
    """A cell that no spreadsheet runs as a formula: files come from outside, and so do the names of their columns."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t")) else cell


def _csv(rows: Iterator[AudienceError], columns: Mapping[str, str], language: Language) -> Iterator[str]:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("line", "field", "reason", "column"))
    yield "\ufeff"  # spreadsheets read UTF-8 only with it
    for row in rows:
        cells = (row.field, fault_words(row.message, language), columns.get(row.field, ""))
        writer.writerow((row.line, *map(_as_text, cells)))
        yield text.getvalue()
        text.seek(0)
        text.truncate()
    yield text.getvalue()

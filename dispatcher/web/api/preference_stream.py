"""`/v1/preferences/bulk`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field, StrictInt, StringConstraints

from dispatcher.consent import preferences
from dispatcher.consent.acknowledgement import Publish
from dispatcher.consent.line_uploads import OTHER_CONTENT, LineUpload, line_hash, lines_taken, same_lines, take
from dispatcher.consent.preferences import LineTaken, UploadStep
from dispatcher.consent.recipient_stream import UPLOAD_FIELD, StreamLine
from dispatcher.domain.errors import UnknownRecipient, VersionConflict
from dispatcher.domain.preferences import BadChoice
from dispatcher.intake.errors import BadInput, validate
from dispatcher.runtime.services import Services
from dispatcher.web import ndjson
from dispatcher.web.api import line_uploads
from dispatcher.web.api.authorization import needs, no_limit
from dispatcher.web.api.line_uploads import UploadDependency
from dispatcher.web.api.preferences import PreferencesForm, preference_change
from dispatcher.web.api.recipients import stream_line
from dispatcher.web.api.schemas.preferences import LineOutcome, PreferencesLineResult
from dispatcher.web.api_keys import ApiKey, Right
from dispatcher.web.dependencies import PublisherDependency, ServicesDependency

router = APIRouter(prefix="/preferences", tags=["recipients"], dependencies=[Depends(needs(Right.PREFERENCES))])

PreferencesKey = Annotated[ApiKey, Depends(needs(Right.PREFERENCES))]

TAKES = ("recorded", "unchanged", "outranked")  # the outcomes that were committed together with the position


class PreferencesLine(PreferencesForm):
    """What one person said. With `version`, it is recorded only if the person still has that version."""

    recipient: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$")]
    version: Annotated[StrictInt, Field(ge=1)] | None = None


@router.post(
    "/bulk",
    response_class=Response,
    responses=line_uploads.responses(PreferencesLineResult, "PreferencesLineResult"),
    openapi_extra=line_uploads.request_body(PreferencesLine, "PreferencesLine"),
    dependencies=[Depends(no_limit)],
)
async def record_preferences(
    caller: PreferencesKey, request: Request, services: ServicesDependency, broker: PublisherDependency, upload: UploadDependency
) -> Response:
    """Record what people said, one JSON object per line: the fields of the preferences of one person, `recipient` and `version`.

    Each line is recorded by itself and answered by a line. Opt-outs are acknowledged. With an `Upload-Id` an interrupted client
    goes on where it was, as with recipients. Without one, a line that is sent again is unchanged, unless the person chose
    otherwise meanwhile and the line has no `at`.
    """
    begin = await run_in_threadpool(line_uploads.start, services, caller, "preferences", upload)

    def record(lines: Sequence[StreamLine]) -> Iterator[dict[str, Any]]:
        return (result.model_dump() for result in _record_all(services, broker.publish, lines, begin.upload))

    return ndjson.answer(request, stream_line, record, begin.first_line, begin.headers)


def _record_all(
    services: Services, publish: Publish, lines: Sequence[StreamLine], upload: LineUpload | None
) -> Iterator[PreferencesLineResult]:
    if upload is None:
        for line in lines:
            yield _record(services, publish, line, None)
        return
    contents = {line.number: line.data for line in lines}
    taken = lines_taken(services, upload)
    same = same_lines(services, upload, contents)
    hashes: dict[int, int] = {}  # of the lines after `taken`
    for line in lines:
        result = None
        while result is None and line.number > taken:
            hashes[line.number] = line_hash(services.secret.newest, line.data)
            try:
                result = _record(services, publish, line, UploadStep(upload, taken, hashes))
            except LineTaken:  # another call with the same id is under way
                taken, same = lines_taken(services, upload), same_lines(services, upload, contents)
                hashes = {number: each for number, each in hashes.items() if number > taken}
        if result and result.outcome in TAKES:
            taken, hashes = line.number, {}
        yield result or _repeat(line, line.number in same)
    if hashes:
        take(services, upload, taken, hashes)  # the last lines were rejected


def _repeat(line: StreamLine, is_same: bool) -> PreferencesLineResult:
    """The result of a line that was taken. One that cannot be read is rejected again: its first answer may have been lost. One that
    was another line then is rejected, too: it was never recorded.
    """
    try:
        validate(PreferencesLine, line.data, "preferences")
    except BadInput as error:
        return _rejected(line, error.faults[0].field, error.faults[0].message)
    return _result(line, "repeated") if is_same else _rejected(line, UPLOAD_FIELD, OTHER_CONTENT)


def _record(services: Services, publish: Publish, line: StreamLine, step: UploadStep | None) -> PreferencesLineResult:
    if line.problem:
        return _rejected(line, "", line.problem)
    try:
        form = validate(PreferencesLine, line.data, "preferences")
        recorded = preferences.record(services, publish, preference_change(form.recipient, form, form.version), step)
    except BadInput as error:
        return _rejected(line, error.faults[0].field, error.faults[0].message)
    except BadChoice as error:
        return _rejected(line, "at" if error.field == "said_at" else error.field, error.reason)
    except UnknownRecipient:
        return _result(line, "unknown", field="recipient", message="there is no such recipient")
    except VersionConflict as error:
        return _result(line, "conflict", version=error.current, field="version", message=str(error))
    outcome: LineOutcome = "recorded" if recorded.events else "outranked" if recorded.superseded else "unchanged"
    return _result(line, outcome, version=recorded.version)


def _rejected(line: StreamLine, field: str, message: str) -> PreferencesLineResult:
    return _result(line, "rejected", field=field, message=message)


def _result(line: StreamLine, outcome: LineOutcome, **more: Any) -> PreferencesLineResult:
    recipient = line.data.get("recipient")
    known = recipient if isinstance(recipient, str) else None
    return PreferencesLineResult(line=line.number, recipient=known, outcome=outcome, **more)

"""`/v1/preferences/bulk`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import Field, StrictInt, StringConstraints

from dispatcher.consent import preferences
from dispatcher.consent.acknowledgement import Publish
from dispatcher.consent.recipient_stream import StreamLine
from dispatcher.domain.errors import UnknownRecipient, VersionConflict
from dispatcher.domain.preferences import BadChoice
from dispatcher.intake.errors import BadInput, validate
from dispatcher.runtime.services import Services
from dispatcher.web import ndjson
from dispatcher.web.api.authorization import needs
from dispatcher.web.api.preferences import PreferencesForm, preference_change
from dispatcher.web.api.recipients import STREAM_BODY, STREAM_RESPONSES, stream_line
from dispatcher.web.api_keys import Right
from dispatcher.web.dependencies import PublisherDependency, ServicesDependency

router = APIRouter(prefix="/preferences", tags=["recipients"], dependencies=[Depends(needs(Right.PREFERENCES))])


class PreferencesLine(PreferencesForm):
    """What one person said. With `version`, it is recorded only if the person still has that version."""

    recipient: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$")]
    version: Annotated[StrictInt, Field(ge=1)] | None = None


@router.post("/bulk", response_class=Response, responses=STREAM_RESPONSES, openapi_extra=STREAM_BODY)
async def record_preferences(request: Request, services: ServicesDependency, broker: PublisherDependency) -> Response:
    """Record what people said, one JSON object per line: the fields of the preferences of one person, `recipient` and `version`.

    Each line is recorded by itself and answered by a line: `line`, `recipient`, `outcome` (recorded, unchanged, outranked, unknown,
    conflict, rejected), `version`, `field`, `message`. A line that is sent again is unchanged. Opt-outs are acknowledged.
    """
    return ndjson.answer(request, stream_line, lambda lines: _record_all(services, broker.publish, lines))


def _record_all(services: Services, publish: Publish, lines: Sequence[StreamLine]) -> Iterator[dict[str, Any]]:
    for line in lines:
        result = {
            "line": line.number,
            "recipient": line.data.get("recipient"),
            "version": None,
            "field": "",
            "message": line.problem,
        }
        yield result | ({"outcome": "rejected"} if line.problem else _record(services, publish, line.data))


def _record(services: Services, publish: Publish, data: dict[str, Any]) -> dict[str, Any]:
    try:
        form = validate(PreferencesLine, data, "preferences")
        recorded = preferences.record(services, publish, preference_change(form.recipient, form, form.version))
    except BadInput as error:
        return {"outcome": "rejected", "field": error.faults[0].field, "message": error.faults[0].message}
    except BadChoice as error:
        return {"outcome": "rejected", "field": "at" if error.field == "said_at" else error.field, "message": error.reason}
    except UnknownRecipient:
        return {"outcome": "unknown", "field": "recipient", "message": "there is no such recipient"}
    except VersionConflict as error:
        return {"outcome": "conflict", "field": "version", "version": error.current, "message": str(error)}
    outcome = "recorded" if recorded.events else "outranked" if recorded.superseded else "unchanged"
    return {"outcome": outcome, "version": recorded.version}

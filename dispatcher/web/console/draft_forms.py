"""What the pages of a draft share: the draft of a call, its posted form, and errors beside the fields that they are about."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Path, Request
from starlette.datastructures import FormData, UploadFile

from dispatcher.campaigns import drafts
from dispatcher.campaigns.drafts import Draft
from dispatcher.domain.principal import Right, require
from dispatcher.intake.errors import InputError
from dispatcher.runtime.services import Services
from dispatcher.web.console.login import Operator, check_form_token
from dispatcher.web.console.session import ConsoleSession
from dispatcher.web.dependencies import ServicesDependency

Errors = Mapping[str, list[str]]
NO_ERRORS: Errors = {}
CHANGED_ELSEWHERE = "This draft was changed in another window meanwhile. What you typed is below: save again to use it."
LOOK_AGAIN = "This draft was changed in another window meanwhile. Look at it again, as it is now."
WRONG_CHARACTERS = "has characters that are not allowed here: see the help above"  # in place of a regular expression
_COMMAND = re.compile(r": `dispatcher templates (\w+)[^`]*`")
_APPROVE, _OTHERS = "an approver approves it on the page Templates", "ask those who look after the templates"
FIELDS_MAX = 600  # a file may have so many columns


class Posted:
    """A posted form that came from a page of this session."""

    def __init__(self, data: FormData) -> None:
        self._data = data

    def text(self, name: str) -> str:
        """The value of a field; "" where it is empty or missing."""
        value = self._data.get(name)
        return value.strip() if isinstance(value, str) else ""

    def texts(self, name: str) -> list[str]:
        """All values of a field that are not empty."""
        return [value.strip() for value in self._data.getlist(name) if isinstance(value, str) and value.strip()]

    def file(self, name: str) -> UploadFile | None:
        """The file of a field, if one was chosen."""
        value = self._data.get(name)
        return value if isinstance(value, UploadFile) and value.filename else None


async def _posted(operator: Operator, request: Request) -> AsyncIterator[Posted]:
    """The form of a call. It is read after the session was checked: else strangers could fill the disk with large files."""
    async with request.form(max_files=1, max_fields=FIELDS_MAX) as data:
        check_form_token(operator, str(data.get("form_token", "")))
        yield Posted(data)


DraftNo = Annotated[int, Path(ge=1, le=2**62)]


def own_draft(operator: Operator, services: ServicesDependency, no: DraftNo) -> Draft:
    """The draft of this number. Raises 404 where it is not this person's."""
    draft = drafts.find(services, no, operator.principal.id)
    if draft is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, "you have no such draft; if you submitted it, look into the list of campaigns")
    require_entity(operator, services, draft.form)
    return draft


PostedForm = Annotated[Posted, Depends(_posted)]
OwnDraft = Annotated[Draft, Depends(own_draft)]


def require_entity(operator: ConsoleSession, services: Services, form: Mapping[str, Any]) -> None:
    """Check the right to make campaigns for the entity of a form."""
    require(operator.principal, Right.CAMPAIGNS, entity_of(services, form))


def entity_of(services: Services, form: Mapping[str, Any]) -> str | None:
    """The entity of a form: its own, or that of its template."""
    if form.get("entity"):
        return str(form["entity"])
    names = [name for name in drafts.check_names(form) if name in services.catalog]
    return services.catalog[names[0]].entity if names else None


def by_field(faults: Iterable[InputError], shown: Iterable[str]) -> Errors:
    """Errors by the fields that a page shows; "" has the others."""
    fields = set(shown)
    errors: dict[str, list[str]] = defaultdict(list)
    for fault in faults:
        name = fault.field.partition(".")[0]
        message = WRONG_CHARACTERS if "should match pattern" in fault.message else fault.message
        text = message if name in fields or not fault.field else f"{fault.field}: {message}"
        errors[name if name in fields else ""].append(text)
    return errors


def mark_of(draft: Draft, names: Iterable[str]) -> str:
    """A mark of these options of a draft: a page carries it, so that a form tells whether another window changed them since."""
    values = {name: draft.form.get(name) for name in names}
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]


def mark_of_all(draft: Draft) -> str:
    """A mark of a whole draft with its file."""
    return f"{mark_of(draft, draft.form)}.{draft.upload or ''}"


def is_outdated(posted: Posted, mark: str) -> bool:
    """Whether the page that a form was on showed something else than is stored now."""
    return posted.text("shown") not in ("", mark)


def without_commands(text: str) -> str:
    """What has to be done first, for somebody without a command line: who does it instead of the command that does it."""
    return _COMMAND.sub(lambda found: f": {_APPROVE if found[1] == 'approve' else _OTHERS}", text)


def number(text: str) -> Any:
    """A number as people write it, for the form's own check: with a comma or a point. Other text stays as it is."""
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return text

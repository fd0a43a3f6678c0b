"""Forms whose session ended before they were sent: what was typed is offered again after the sign-in.

The fields travel sealed through the page of the sign-in, bound to the person who signed in with this browser last. The server
stores nothing, and nobody else who signs in there sees them. A form that a browser does not mark as one of our own pages
(`Sec-Fetch-Site`) is never kept: another site could else have a signed-in person send it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from fastapi import HTTPException, Request
from starlette.formparsers import MultiPartException

from dispatcher.consent.link_tokens import BadToken, seal, unseal
from dispatcher.identity.users import user_id
from dispatcher.runtime.services import Services
from dispatcher.web.console.session import BROWSER_COOKIE, ConsoleSession, user_of_browser

BYTES_MAX = 200_000  # of a form; a file is chosen again
FIELDS_MAX = 600
NOT_KEPT = frozenset({"form_token", "password", "code", "new", "again", "sealed"})
_PURPOSE = "console-kept-form"


class SessionEnded(Exception):
    """A call without a session."""


class ForeignForm(HTTPException):
    """A form that is not from a page of this session, perhaps from one that has ended."""

    def __init__(self, operator: ConsoleSession) -> None:
        super().__init__(HTTPStatus.FORBIDDEN, "this form is not from a page of this session; go back, reload and try again")
        self.operator = operator


@dataclass(frozen=True, slots=True)
class KeptForm:
    """The fields of a form, in order, and the path that it was sent to."""

    path: str
    fields: tuple[tuple[str, str], ...]


def is_own(request: Request) -> bool:
    """Whether a browser sends a form of one of our own pages."""
    return request.method == "POST" and request.headers.get("sec-fetch-site") == "same-origin"


async def of_request(request: Request) -> KeptForm | None:
    """The form of a request; None for one from elsewhere, a large one, and one with a file or a secret."""
    size = request.headers.get("content-length", "")
    if not is_own(request) or not size.isdecimal() or int(size) > BYTES_MAX:
        return None
    fields = tuple(await _fields(request))
    if not fields or any(name in NOT_KEPT and name != "form_token" for name, _ in fields):
        return None
    return KeptForm(request.url.path, tuple((name, value) for name, value in fields if name != "form_token"))


async def _fields(request: Request) -> list[tuple[str, str]]:
    read: Mapping[str, Iterable[str]] | None = getattr(request.state, "fields", None)  # by a page with a parser of its own
    if read is not None:
        return [(name, value) for name, values in read.items() for value in values]
    try:
        form = await request.form(max_files=1, max_fields=FIELDS_MAX)
    except (HTTPException, MultiPartException, RuntimeError):  # unreadable, or read already
        return []
    items = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
    return items if len(items) == len(form.multi_items()) else []


def sealed(services: Services, request: Request, form: KeptForm) -> str:
    """The form as a field of the page of the sign-in; "" where the browser is not known to be a person's."""
    person = user_of_browser(services, request.cookies.get(BROWSER_COOKIE, ""))
    return seal(services.secret, _PURPOSE, json.dumps([person, form.path, form.fields]).encode()) if person else ""


def unsealed(services: Services, field: str, name: str) -> KeptForm | None:
    """The form of a sealed field, where it is this person's; else None."""
    try:
        person, path, fields = json.loads(unseal(services.secret, _PURPOSE, field))
    except BadToken:
        return None
    return KeptForm(path, tuple((key, value) for key, value in fields)) if person == user_id(name) else None

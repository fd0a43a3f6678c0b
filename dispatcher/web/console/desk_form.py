"""The form of the desk: what it remembers of an employee, the sealed field, and the choices as they were typed."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from fastapi import Depends, HTTPException, Request, Response

from dispatcher.consent.link_tokens import BadToken, seal, unseal
from dispatcher.domain.preferences import OBJECTIONS, OFFERS, SWITCHES
from dispatcher.domain.recipient import LANGUAGES, Choice, Language, Source
from dispatcher.runtime.services import Services
from dispatcher.web.console.login import SessionDependency
from dispatcher.web.public.link_route import PageError, SubmittedForm, accepted, read_form
from dispatcher.web.public.preferences import newest_event

FORM = "desk form"  # the purpose of the sealed field
COOKIE = "dispatcher_desk"
COOKIE_SECONDS = 180 * 86_400
UNREADABLE = "this form is not from a page of this desk; go back, reload and try again"
_EVENT_NO = struct.Struct(">Q")


class IdentityCheck(StrEnum):
    """How the employee made sure who the customer is. A closed list: a free text could hold personal data."""

    IDENTITY_CARD = "identity_card"
    ITSME = "itsme"
    CARD_READER = "card_reader"
    QUESTIONS = "questions"


SOURCES = (Source.BRANCH, Source.LIVE)


@dataclass(frozen=True, slots=True)
class Habits:
    """What the desk remembers of an employee: the language of the pages, and where the customers are ("" at first)."""

    language: Language
    source: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """What the page showed: the newest consent event and the version of the contract; and the version of the person now."""

    event_no: int
    contract_version: str
    version: int


def habits_of(found: SessionDependency, request: Request, language: str = "") -> Habits:
    """From the query, the person's own choice, or the cookie; the language at first from the browser's."""
    kept_language, _, source = request.cookies.get(COOKIE, "").partition(".")
    wanted = next((each for each in (language, found.signed_in.language, kept_language) if each in LANGUAGES), None)
    return Habits(wanted or accepted(request.headers.get("accept-language", "")), source if source in SOURCES else "")


@contextmanager
def readable() -> Iterator[None]:
    """The console's error for a form that the preference centre's code cannot read."""
    try:
        yield
    except PageError as error:
        raise HTTPException(error.status, UNREADABLE) from None


async def form_of(request: Request) -> SubmittedForm:
    """The form of the request."""
    with readable():
        form = await read_form(request)
    request.state.fields = form.fields  # a stream is read once: for a form whose session has ended
    return form


HabitsDependency = Annotated[Habits, Depends(habits_of)]
DeskForm = Annotated[SubmittedForm, Depends(form_of)]


def remembering(request: Request, response: Response, habits: Habits) -> Response:
    """The response, which keeps the employee's habits in a cookie of the desk."""
    response.set_cookie(
        COOKIE,
        f"{habits.language}.{habits.source}",
        max_age=COOKIE_SECONDS,
        path="/console/desk",
        secure=request.app.state.services.public_url.startswith("https://"),
        httponly=True,
        samesite="strict",
    )
    return response


def unsealed(services: Services, customer_id: str, form: SubmittedForm) -> tuple[int, str]:
    """The newest event and the contract's version on the page. Raises `PageError` for a form that we did not make, or of another
    customer.
    """
    try:
        opened = unseal(services.secret, FORM, form.one("page"))
    except BadToken:
        raise PageError("unreadable", 400) from None
    named, _, contract_version = opened[_EVENT_NO.size :].decode().partition(" ")
    if named != customer_id:
        raise PageError("unreadable", 400)
    return _EVENT_NO.unpack(opened[: _EVENT_NO.size])[0], contract_version


def typed(form: SubmittedForm, present: Mapping[str, str]) -> dict[str, str]:
    """The choices as they stand in a form that was not taken, so that nothing has to be typed twice."""
    offers = {subject: form.one(subject) or present.get(subject, "") for subject in OFFERS}
    return offers | {subject: "on" if form.one(subject) else "off" for subject in (*SWITCHES, *OBJECTIONS)}


def sealed_page(services: Services, customer_id: str, choices: Mapping[str, Choice]) -> str:
    """The sealed field of a page."""
    shown = _EVENT_NO.pack(newest_event(choices)) + f"{customer_id} {services.policy.contract.version}".encode()
    return seal(services.secret, FORM, shown)

"""The console's pages of one's own account: sessions, password, and the password again before an act that cannot be undone."""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Form, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BaseModel

from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.local_times import zone_names
from dispatcher.domain.principal import Right
from dispatcher.domain.recipient import LANGUAGES
from dispatcher.identity import sessions, users
from dispatcher.identity.passwords import LENGTH_MIN
from dispatcher.identity.sessions import WAIT_SECONDS_MAX, Credentials, TooManyFailures
from dispatcher.intake.errors import BadInput
from dispatcher.runtime.services import Services
from dispatcher.web import auditing
from dispatcher.web.console import session
from dispatcher.web.console.login import (
    TOO_MANY,
    FormToken,
    Operator,
    SessionDependency,
    address_of,
    check_form_token,
    inside,
)
from dispatcher.web.console.session import BROWSER_COOKIE, ConsoleSession
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.pages.console import DESK_TEXTS, page

router = APIRouter(default_response_class=HTMLResponse)

WRONG = "This is not your password, or the code is wrong."


class PasswordForm(BaseModel):
    """A new password, twice, and the present one."""

    old: str = ""
    new: str = ""
    again: str = ""
    form_token: str = ""


class ReadingForm(BaseModel):
    """The language of the console and the time zone of its times; "" for that of the browser, and of the bank."""

    language: str = ""
    zone: str = ""
    form_token: str = ""


class ConfirmForm(BaseModel):
    """The password again, and the page to go back to."""

    password: str = ""
    code: str = ""
    to: str = ""
    form_token: str = ""


@router.get("/sessions")
def sessions_page(operator: Operator, services: ServicesDependency) -> str:
    """Who one is, how pages are shown, and where one is signed in; for administrators, the sessions of all people."""
    return _sessions_page(operator, services, "")


def _sessions_page(operator: ConsoleSession, services: Services, wrong: str) -> str:
    return page(
        "sessions.html",
        operator=operator,
        current=_hash_of(operator),
        own=sessions.listed(services, operator.principal, of_all=False),
        others=[row for row in _all_sessions(services, operator) if row.user_id != operator.principal.id],
        wrong=wrong,
        languages={code: DESK_TEXTS[code]["language"] for code in LANGUAGES},
        zones=sorted(zone_names()),
        bank_zone=services.policy.default_zone,
    )


@router.post("/sessions")
def choose_reading(
    operator: Operator, request: Request, services: ServicesDependency, form: Annotated[ReadingForm, Form()]
) -> Response:
    """Choose the language of the console and the time zone of its times."""
    check_form_token(operator, form.form_token)
    auditing.note(request, AuditNote(AuditAction.CHANGE, "user", operator.principal.id, detail={"reading": "language and zone"}))
    try:
        users.set_reading(services, operator.principal.id, form.language, form.zone)
    except BadInput as error:
        auditing.refused(request)
        wrong = "; ".join(f"{fault.field}: {fault.message}" for fault in error.faults)
        return HTMLResponse(_sessions_page(operator, services, wrong), HTTPStatus.UNPROCESSABLE_ENTITY)
    return RedirectResponse("/console/sessions", HTTPStatus.SEE_OTHER)


def _all_sessions(services: Services, operator: ConsoleSession) -> list[sessions.SessionRow]:
    return sessions.listed(services, operator.principal, of_all=True) if operator.principal.may(Right.USERS) else []


@router.post("/sessions/{id_hash}")
def revoke(operator: Operator, id_hash: str, services: ServicesDependency, form_token: FormToken = "") -> Response:
    """End a session."""
    check_form_token(operator, form_token)
    try:
        sessions.revoke(services, operator.principal, bytes.fromhex(id_hash))
    except ValueError:
        raise HTTPException(HTTPStatus.NOT_FOUND, "there is no such session") from None
    return RedirectResponse("/console/sessions", HTTPStatus.SEE_OTHER)


@router.get("/password")
def password_page(operator: SessionDependency) -> str:
    """Ask for a new password."""
    return _password_page(operator, "")


def _password_page(operator: ConsoleSession, wrong: str) -> str:
    return page("password.html", operator=operator, wrong=wrong, must_change=operator.signed_in.must_change, length_min=LENGTH_MIN)


@router.post("/password")
def change_password(
    operator: SessionDependency, request: Request, services: ServicesDependency, form: Annotated[PasswordForm, Form()]
) -> Response:
    """Change one's own password. All other sessions end."""
    check_form_token(operator, form.form_token)
    auditing.begin(request, operator.principal)
    auditing.note(request, AuditNote(AuditAction.PASSWORD, "user", operator.principal.id))
    wrong = "" if form.new == form.again else "The two new passwords differ."
    if not wrong:  # guesses of the present password count as failed sign-ins do
        passed = sessions.attempt_in_session(
            services, operator.signed_in, lambda: users.has_password(services, operator.principal.id, form.old)
        )
        wrong = TOO_MANY if passed is None else "" if passed else WRONG
    if not wrong:
        try:
            users.change_password(services, operator.principal.id, form.old, form.new, _hash_of(operator))
        except BadInput as error:
            wrong = "; ".join(f"{fault.field}: {fault.message}" for fault in error.faults)
    if wrong:
        auditing.refused(request)
        return HTMLResponse(_password_page(operator, wrong), HTTPStatus.UNPROCESSABLE_ENTITY)
    auditing.done(request)
    return RedirectResponse("/console", HTTPStatus.SEE_OTHER)


@router.get("/confirm")
def confirm_page(operator: Operator, to: str = "/console") -> Response:
    """Ask for the password again, here or at the identity provider."""
    if not operator.signed_in.has_password:
        return RedirectResponse(f"/console/oidc?again=true&to={quote(inside(to), safe='/')}", HTTPStatus.SEE_OTHER)
    return HTMLResponse(page("confirm.html", operator=operator, to=inside(to), wrong=""))


@router.post("/confirm")
def confirm(operator: Operator, request: Request, services: ServicesDependency, form: Annotated[ConfirmForm, Form()]) -> Response:
    """Take the password, and go back to the page on which it was needed."""
    check_form_token(operator, form.form_token)
    given, to = Credentials(operator.principal.id, form.password, form.code), form.to
    origin = session.origin(services, given.name, address_of(request), request.cookies.get(BROWSER_COOKIE, ""))
    try:
        passed = sessions.confirm(services, operator.signed_in, given, origin)
    except TooManyFailures:
        text = page("confirm.html", operator=operator, to=inside(to), wrong=TOO_MANY)
        return HTMLResponse(text, HTTPStatus.TOO_MANY_REQUESTS, {"Retry-After": str(WAIT_SECONDS_MAX)})
    if not passed:
        return HTMLResponse(page("confirm.html", operator=operator, to=inside(to), wrong=WRONG), HTTPStatus.FORBIDDEN)
    return RedirectResponse(inside(to), HTTPStatus.SEE_OTHER)


def _hash_of(operator: ConsoleSession) -> bytes:
    return hashlib.sha256(operator.signed_in.id).digest()

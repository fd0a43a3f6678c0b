"""Sign in to the console and out of it; the session and form checks that all pages share."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from dispatcher.maintenance import console_sessions
from dispatcher.maintenance.console_sessions import WAIT_SECONDS_MAX
from dispatcher.web.console import session
from dispatcher.web.console.session import (
    BROWSER_COOKIE,
    BROWSER_SECONDS,
    COOKIE,
    SESSION_SECONDS,
    ConsoleSession,
    TooManyFailures,
)
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.pages.console import STYLE, page

router = APIRouter(default_response_class=HTMLResponse)
FormToken = Annotated[str, Form()]
UNKNOWN = "This key is unknown, or lacks the right console."
TOO_MANY = "Too many attempts failed. Try again in a minute."


def _session(request: Request, services: ServicesDependency) -> ConsoleSession:
    """The session of the request; without one, redirect to the login page."""
    found = session.resume(services, request.app.state.keys, request.cookies.get(COOKIE, ""))
    if found is None:
        to = quote(request.url.path, safe="/") if request.method == "GET" else "/console"
        raise HTTPException(HTTPStatus.SEE_OTHER, "sign in first", {"Location": f"/console/login?to={to}"})
    return found


Operator = Annotated[ConsoleSession, Depends(_session)]


def check_form_token(operator: ConsoleSession, form_token: str) -> None:
    """Refuse a form that did not come from a page of this session."""
    if not session.same(operator.form_token, form_token):
        raise HTTPException(HTTPStatus.FORBIDDEN, "this form is not from a page of this session; go back, reload and try again")


@router.get("/login")
def login_page(to: str = "/console") -> str:
    """Ask for a key."""
    return page("login.html", to=_inside(to), wrong="")


@router.post("/login")
def login(
    request: Request, services: ServicesDependency, key: Annotated[str, Form()] = "", to: Annotated[str, Form()] = ""
) -> Response:
    """Start a session for a key that has the right `console`."""
    address = request.client.host if request.client else ""
    try:
        cookies = session.begin(services, request.app.state.keys, key.strip(), address, request.cookies.get(BROWSER_COOKIE, ""))
    except TooManyFailures:
        headers = {"Retry-After": str(WAIT_SECONDS_MAX)}
        return HTMLResponse(page("login.html", to=_inside(to), wrong=TOO_MANY), HTTPStatus.TOO_MANY_REQUESTS, headers)
    if cookies is None:
        return HTMLResponse(page("login.html", to=_inside(to), wrong=UNKNOWN), HTTPStatus.FORBIDDEN)
    answer = RedirectResponse(_inside(to), HTTPStatus.SEE_OTHER)
    for name, value, seconds in zip((COOKIE, BROWSER_COOKIE), cookies, (SESSION_SECONDS, BROWSER_SECONDS), strict=True):
        answer.set_cookie(
            name,
            value,
            max_age=seconds,
            path="/console",
            secure=services.public_url.startswith("https://"),
            httponly=True,
            samesite="strict",
        )
    return answer


@router.post("/logout")
def logout(operator: Operator, services: ServicesDependency, form_token: FormToken = "") -> Response:
    """End the session, also for a copy of its cookie."""
    check_form_token(operator, form_token)
    console_sessions.end(services, operator.id)
    answer = RedirectResponse("/console/login", HTTPStatus.SEE_OTHER)
    answer.delete_cookie(COOKIE, path="/console")
    return answer


def _inside(to: str) -> str:
    """Where to go after signing in: always a page of the console, whatever the link says."""
    return to if re.fullmatch(r"/console(/[A-Za-z0-9][A-Za-z0-9._:-]*)*", to) else "/console"


@router.get("/style.css")
def style() -> Response:
    """The style sheet."""
    return Response(STYLE, media_type="text/css")

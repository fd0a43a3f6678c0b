"""Sign in to the console and out of it; the session and form checks that all pages share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, FastAPI, Form, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BaseModel, Field

from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.principal import Right, require
from dispatcher.identity import sessions
from dispatcher.identity.sessions import SESSION_SECONDS, WAIT_SECONDS_MAX, Credentials, TooManyFailures
from dispatcher.runtime.services import Services
from dispatcher.web import auditing
from dispatcher.web.console import kept_forms, session
from dispatcher.web.console.kept_forms import ForeignForm, KeptForm, SessionEnded
from dispatcher.web.console.live import AUTOMATIC
from dispatcher.web.console.session import BROWSER_COOKIE, BROWSER_SECONDS, COOKIE, ConsoleSession
from dispatcher.web.console.viewer import Viewer
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.errors import problem
from dispatcher.web.pages.console import STYLE, page
from dispatcher.web.public.link_route import accepted

router = APIRouter(default_response_class=HTMLResponse)
FormToken = Annotated[str, Form()]
UNKNOWN = "Name, password or code is wrong."
TOO_MANY = "Too many attempts failed. Try again in a minute."
NOT_SAVED = "Your session has ended. What you sent is not saved yet: sign in, and it is offered to you again."
NOT_TAKEN = "Your session has ended, and what you sent was not taken: sign in, and do it again."
PASSWORD_PAGE = "/console/password"  # noqa: S105  a path
TO_CHARACTERS_MAX = 1_000  # it travels in the cookie of a sign-in at an identity provider
_PATH = re.compile(r"/console(/[A-Za-z0-9][A-Za-z0-9._:-]*)*")
_QUERY = re.compile(r"(?:[A-Za-z0-9._~!$&()*+,;=:@/?-]|%[0-9A-Fa-f]{2})+")


class SignInForm(BaseModel):
    """Name, password and code, the page to go on to, and a form that came after the end of the last session."""

    name: str = ""
    password: str = Field("", repr=False)
    code: str = Field("", repr=False)
    to: str = ""
    kept: str = ""


def _session(request: Request, services: ServicesDependency) -> ConsoleSession:
    """The session of the request; without one, redirect to the login page."""
    found = session.resume(
        services, request.cookies.get(COOKIE, ""), is_automatic=AUTOMATIC in request.headers, languages=languages_of(request)
    )
    if found is None:
        raise SessionEnded
    request.state.operator = found  # for the page of an error
    return found


SessionDependency = Annotated[ConsoleSession, Depends(_session)]


def _operator(found: SessionDependency, request: Request) -> Iterator[ConsoleSession]:
    """A session that may see the console. Somebody with a password from another person has to change it first; somebody whose role
    needs a second factor has to set it up.

    The call is recorded in the audit log, and again where it is refused later.
    """
    password_first(found)
    if found.signed_in.needs_second_factor:
        raise HTTPException(HTTPStatus.SEE_OTHER, "set up your second factor first", {"Location": "/console/second-factor"})
    require(found.principal, Right.CONSOLE)
    auditing.begin(request, found.principal)
    try:
        yield found
    except Exception as error:
        auditing.failed(request, error)
        raise
    auditing.done(request)


def password_first(found: ConsoleSession) -> None:
    """Redirect somebody with a password from another person to the page on which it is changed."""
    if found.signed_in.must_change:
        raise HTTPException(HTTPStatus.SEE_OTHER, "change your password first", {"Location": PASSWORD_PAGE})


Operator = Annotated[ConsoleSession, Depends(_operator)]


def operator_with(right: Right) -> Callable[[ConsoleSession], ConsoleSession]:
    """A dependency that returns the session of somebody with this right; else 403."""

    def check(found: Operator) -> ConsoleSession:
        require(found.principal, right)
        return found

    return check


def check_form_token(operator: ConsoleSession, form_token: str) -> None:
    """Refuse a form that did not come from a page of this session."""
    if not session.same(operator.form_token, form_token):
        raise ForeignForm(operator)


def confirm_first(services: Services, operator: ConsoleSession, to: str) -> None:
    """For acts that cannot be undone: where the password was not given in the last minutes, redirect to the page that asks for it.

    `to` is the page to go on from.
    """
    if not sessions.is_recent(services, operator.signed_in):
        raise HTTPException(HTTPStatus.SEE_OTHER, "confirm who you are", {"Location": f"/console/confirm?to={quote(to, safe='/')}"})


def languages_of(request: Request) -> str:
    """The languages that the browser asks for."""
    return request.headers.get("accept-language", "")


def stranger(request: Request) -> Viewer:
    """How a page is shown to somebody who is not signed in: in the language of the browser."""
    return Viewer(accepted(languages_of(request)))


def address_of(request: Request) -> str:
    """The client's address."""
    return request.client.host if request.client else ""


@router.get("/login")
def login_page(request: Request, services: ServicesDependency, to: str = "/console") -> str:
    """Ask for name, password and code."""
    return _login_page(request, services, to)


def _login_page(request: Request, services: Services, to: str, wrong: str = "", name: str = "", kept: str = "") -> str:
    has_provider = services.oidc is not None
    viewer = stranger(request)
    return page("login.html", viewer=viewer, to=inside(to), wrong=wrong, login_name=name, has_provider=has_provider, kept=kept)


@router.post("/login")
def login(
    request: Request,
    services: ServicesDependency,
    form: Annotated[SignInForm, Form()],
) -> Response:
    """Start a session. Not from another site, which could else sign somebody in under a name of its own (login CSRF)."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise HTTPException(HTTPStatus.FORBIDDEN, "this form is not from a page of the console")
    given = Credentials(form.name, form.password, form.code)
    try:
        cookies = session.begin(services, given, address_of(request), request.cookies.get(BROWSER_COOKIE, ""))
    except TooManyFailures:
        headers = {"Retry-After": str(WAIT_SECONDS_MAX)}
        return HTMLResponse(
            _login_page(request, services, form.to, TOO_MANY, form.name, form.kept),
            HTTPStatus.TOO_MANY_REQUESTS,
            headers,
        )
    if cookies is None:
        return HTMLResponse(
            _login_page(request, services, form.to, UNKNOWN, form.name, form.kept),
            HTTPStatus.FORBIDDEN,
        )
    answer = signed_in(services, cookies, form.to)
    kept = kept_forms.unsealed(services, form.kept, form.name)
    operator = session.resume(services, cookies[0], languages=languages_of(request))
    if kept is None or operator is None:
        return answer
    answer = _kept_form_page(kept, operator)
    set_cookies(services, answer, cookies)
    return answer


@router.post("/kept-form")
def resume_form(operator: SessionDependency, services: ServicesDependency, kept: Annotated[str, Form()] = "") -> Response:
    """Offer a kept form to somebody who signed in in another window, as with an identity provider."""
    form = kept_forms.unsealed(services, kept, operator.principal.id)
    return _kept_form_page(form, operator) if form is not None else RedirectResponse("/console", HTTPStatus.SEE_OTHER)


def _kept_form_page(form: KeptForm, operator: ConsoleSession) -> Response:
    return HTMLResponse(page("kept_form.html", operator=operator, path=form.path, fields=form.fields))


async def _session_ended(request: Request, _: Exception) -> Response:
    """The page of the sign-in, with what was typed."""
    services: Services = request.app.state.services.current()
    form = await kept_forms.of_request(request)
    field = kept_forms.sealed(services, request, form) if form is not None else ""
    if kept_forms.is_own(request):
        text = _login_page(request, services, page_of(request.url.path), NOT_SAVED if field else NOT_TAKEN, kept=field)
        return HTMLResponse(text, HTTPStatus.FORBIDDEN)
    page_asked_for = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    to = inside(page_asked_for) if request.method == "GET" else "/console"
    return RedirectResponse(f"/console/login?to={quote(to, safe='/')}", HTTPStatus.SEE_OTHER)


async def _foreign_form(request: Request, error: Exception) -> Response:
    """The form again, with the token of the present session, where it comes from one of our pages."""
    assert isinstance(error, ForeignForm)  # noqa: S101  registered for it
    form = await kept_forms.of_request(request)
    return _kept_form_page(form, error.operator) if form is not None else problem(request, error.status_code, str(error.detail))


def install(application: FastAPI) -> None:
    """Let the application answer calls without a session, and forms of another one."""
    application.add_exception_handler(SessionEnded, _session_ended)
    application.add_exception_handler(ForeignForm, _foreign_form)


def signed_in(services: Services, cookies: tuple[str, str], to: str) -> Response:
    """The redirect that sets the cookies of a new session."""
    answer = RedirectResponse(inside(to), HTTPStatus.SEE_OTHER)
    set_cookies(services, answer, cookies)
    return answer


def set_cookies(services: Services, answer: Response, cookies: tuple[str, str]) -> None:
    """Set the cookies of a new session."""
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


@router.post("/logout")
def logout(operator: SessionDependency, request: Request, services: ServicesDependency, form_token: FormToken = "") -> Response:
    """End the session, also for a copy of its cookie."""
    check_form_token(operator, form_token)
    auditing.begin(request, operator.principal)
    auditing.note(request, AuditNote(AuditAction.SIGN_OUT, "session"))
    sessions.end(services, operator.signed_in.id)
    auditing.done(request)
    answer = RedirectResponse("/console/login", HTTPStatus.SEE_OTHER)
    answer.delete_cookie(COOKIE, path="/console")
    return answer


def page_of(path: str) -> str:
    """The page of a form that cannot be kept: that of a draft's file has its path, that of rows is the campaign's."""
    return path.removesuffix("/rows") if path.endswith(("/audience", "/rows")) else "/console"


def inside(to: str) -> str:
    """Where to go after signing in: always a page of the console, whatever the link says. A query stays where it is short and in
    the form of RFC 3986, without the quotation mark that would end an attribute."""
    path, _, query = to.partition("?")
    if not _PATH.fullmatch(path):
        return "/console"
    return to if query and len(to) <= TO_CHARACTERS_MAX and _QUERY.fullmatch(query) else path


@router.get("/style.css")
def style() -> Response:
    """The style sheet."""
    return Response(STYLE, media_type="text/css")

"""Sign-in to the console with the identity provider."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from dispatcher.domain.errors import NotAllowed
from dispatcher.identity import oidc, sessions
from dispatcher.identity.oidc import FLOW_SECONDS, SignInFailed
from dispatcher.web import auditing
from dispatcher.web.console import session
from dispatcher.web.console.login import inside, set_cookies, stranger
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.pages.console import page

router = APIRouter(prefix="/oidc", default_response_class=HTMLResponse)

FLOW_COOKIE = "dispatcher_oidc"
FLOW_PATH = "/console/oidc"


@router.get("")
def begin(services: ServicesDependency, to: str = "/console", again: bool = False) -> Response:
    """Go to the identity provider. With `again` the person has to give the password there once more."""
    if services.oidc is None:
        return RedirectResponse("/console/login", HTTPStatus.SEE_OTHER)
    try:
        url, flow = oidc.begin(services, services.oidc, inside(to), again)
    except SignInFailed as error:
        return _failed(str(error), HTTPStatus.BAD_GATEWAY)
    answer = RedirectResponse(url, HTTPStatus.SEE_OTHER)
    secure = services.public_url.startswith("https://")
    # The provider sends the browser back from another site, and SameSite=Strict would leave the cookie out.
    answer.set_cookie(FLOW_COOKIE, flow, FLOW_SECONDS, path=FLOW_PATH, secure=secure, httponly=True, samesite="lax")
    return answer


@router.get("/callback")
def complete(
    request: Request,
    services: ServicesDependency,
    state: Annotated[str, Query(max_length=200)] = "",
    code: Annotated[str, Query(max_length=4_000)] = "",
    error: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """The person comes back from the provider: start a session."""
    if services.oidc is None:
        return RedirectResponse("/console/login", HTTPStatus.SEE_OTHER)
    try:
        flow = oidc.read_flow(services, request.cookies.get(FLOW_COOKIE, ""), state)
        if error or not code:
            raise SignInFailed("the identity provider did not sign you in")
        user, proved_at = oidc.complete(services, services.oidc, flow, code)
    except SignInFailed as failure:
        return _failed(str(failure), HTTPStatus.FORBIDDEN)
    except NotAllowed as refusal:
        return _failed(str(refusal), HTTPStatus.FORBIDDEN)
    session_id = sessions.start(services, user, auditing.origin_of(request), proved_at)
    # A page and no redirect: along a chain of redirects that began at another site, browsers send no cookie with SameSite=Strict.
    answer = HTMLResponse(page("signed_in.html", viewer=stranger(request), to=flow.to))
    set_cookies(services, answer, session.cookies(services, session_id, user))
    answer.delete_cookie(FLOW_COOKIE, path=FLOW_PATH)
    return answer


def _failed(why: str, status: int) -> Response:
    return HTMLResponse(page("no_access.html", why=why), status)

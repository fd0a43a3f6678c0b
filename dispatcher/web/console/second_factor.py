"""The console's page on which a person sets up a second factor. Who needs one sees no other page before."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.identity import second_factor
from dispatcher.identity.second_factor import SetUp
from dispatcher.intake.errors import BadInput
from dispatcher.web import auditing
from dispatcher.web.console.login import FormToken, SessionDependency, check_form_token, password_first
from dispatcher.web.console.session import ConsoleSession
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.pages.console import page

router = APIRouter(prefix="/second-factor", default_response_class=HTMLResponse)

WRONG = "This is not the code that the app shows now."
NO_STORE = {"Cache-Control": "no-store"}  # the pages have secrets


@router.get("")
def second_factor_page(operator: SessionDependency, services: ServicesDependency) -> Response:
    """Show a new secret, and ask for its first code."""
    password_first(operator)
    if operator.signed_in.has_second_factor or not operator.signed_in.has_password:
        return RedirectResponse("/console/sessions", HTTPStatus.SEE_OTHER)
    return _page(operator, second_factor.begin(services, operator.signed_in), "")


@router.post("")
def set_up(
    operator: SessionDependency,
    request: Request,
    services: ServicesDependency,
    sealed: Annotated[str, Form(max_length=1_000)] = "",
    code: Annotated[str, Form(max_length=100)] = "",
    form_token: FormToken = "",
) -> Response:
    """Put the second factor in force, and show the recovery codes."""
    check_form_token(operator, form_token)
    password_first(operator)
    auditing.begin(request, operator.principal)
    auditing.note(request, AuditNote(AuditAction.SECOND_FACTOR, "user", operator.principal.id))
    try:
        codes = second_factor.complete(services, operator.signed_in, sealed, code)
    except BadInput:
        auditing.refused(request)
        return _page(operator, second_factor.again(services, operator.signed_in, sealed), WRONG)
    except Exception:
        auditing.refused(request)
        raise
    auditing.done(request)
    return HTMLResponse(page("second_factor.html", operator=operator, codes=codes), headers=NO_STORE)


def _page(operator: ConsoleSession, shown: SetUp, wrong: str) -> Response:
    must = operator.signed_in.needs_second_factor
    text = page("second_factor.html", operator=operator, set_up=shown, wrong=wrong, must_set_up=must, codes=())
    return HTMLResponse(text, HTTPStatus.UNPROCESSABLE_ENTITY if wrong else HTTPStatus.OK, NO_STORE)

"""Single customers: find one, all that is on record, the export for an access request, and erasure by two people.

Addresses are masked. Whoever needs one says why, which the audit log keeps, as it keeps each look and each search.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, HTTPException, Path, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse

from dispatcher.consent import erasure_requests, preferences, recipients
from dispatcher.delivery import messages, people
from dispatcher.delivery.messages import MessageFilter
from dispatcher.delivery.people import Customer
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.errors import NotAllowed
from dispatcher.domain.principal import Right, is_same_principal, require
from dispatcher.inbound import customer_replies
from dispatcher.runtime.services import Services
from dispatcher.web import auditing
from dispatcher.web.console.login import check_form_token, confirm_first, operator_with
from dispatcher.web.console.session import ConsoleSession
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.pages.console import page

router = APIRouter(prefix="/people", default_response_class=HTMLResponse)

MESSAGES_SHOWN = 50
INBOUND_SHOWN = 50
Text = Annotated[str, Form()]
Cursor = Annotated[str | None, Query(max_length=60)]
CustomerId = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$")]
Viewer = Annotated[ConsoleSession, Depends(operator_with(Right.PEOPLE))]


def search(request: Request, services: Services, operator: ConsoleSession, q: str) -> list[Customer]:
    """The customers that a text names, as far as the employee may see them. The audit log gets their ids, not the text."""
    found = people.find(services, operator.principal, q)
    auditing.note(request, AuditNote(AuditAction.SEARCH, "recipients", detail={"found": [each.id for each in found]}))
    return found


def look_at(request: Request, services: Services, operator: ConsoleSession, customer_id: str) -> Customer:
    """A customer, whose look the audit log gets first. Raises `UnknownRecipient`."""
    auditing.note(request, AuditNote(AuditAction.LOOK, "recipient", customer_id, recipient=customer_id))
    return people.view(services, operator.principal, customer_id)


@router.get("")
def people_page(viewer: Viewer, services: ServicesDependency) -> str:
    """Ask for the customer; whoever may erase also sees the requests that wait."""
    return _search_page(services, viewer, "", [], False)


@router.post("")
def find_person(viewer: Viewer, request: Request, services: ServicesDependency, q: Text = "", form_token: Text = "") -> Response:
    """Go to the only customer that is found, or show all. The text is in the body, because addresses in a URL end up in logs."""
    check_form_token(viewer, form_token)
    found = search(request, services, viewer, q)
    if len(found) == 1:
        return RedirectResponse(f"/console/people/{found[0].id}", HTTPStatus.SEE_OTHER)
    return HTMLResponse(_search_page(services, viewer, q, found, True))


def _search_page(services: Services, viewer: ConsoleSession, q: str, found: list[Customer], searched: bool) -> str:
    principal = viewer.principal
    requests = erasure_requests.waiting(services) if principal.may(Right.ERASE) else []
    waiting = [each for each in requests if people.may_see(services, principal, each.recipient_id)]
    return page("people.html", operator=viewer, q=q, found=found, searched=searched, waiting=waiting)


@router.get("/{customer_id}")
def person_page(
    viewer: Viewer, request: Request, customer_id: CustomerId, services: ServicesDependency, cursor: Cursor = None
) -> str:
    """All that is on record about a customer, with masked addresses."""
    return _person_page(services, viewer, look_at(request, services, viewer, customer_id), cursor)


@router.post("/{customer_id}/addresses")
def show_addresses(
    viewer: Viewer,
    request: Request,
    customer_id: CustomerId,
    services: ServicesDependency,
    reason: Text = "",
    form_token: Text = "",
) -> str:
    """The same page with the addresses in full, for a reason that the audit log keeps."""
    check_form_token(viewer, form_token)
    why = erasure_requests.checked_reason(reason)
    auditing.note(request, AuditNote(AuditAction.LOOK, "addresses", customer_id, recipient=customer_id, reason=why))
    return _person_page(services, viewer, people.view(services, viewer.principal, customer_id, is_masked=False), None)


@router.post("/{customer_id}/export")
def export(
    viewer: Viewer, request: Request, customer_id: CustomerId, services: ServicesDependency, form_token: Text = ""
) -> Response:
    """Everything on record as a JSON file, for an access request: what `dispatcher recipients export` prints."""
    check_form_token(viewer, form_token)
    require(viewer.principal, Right.RECIPIENTS)
    note = AuditNote(AuditAction.EXPORT, "recipient", customer_id, recipient=customer_id, reason="access request")
    auditing.note(request, note)
    people.require_all_entities(viewer.principal, people.view(services, viewer.principal, customer_id))
    text = json.dumps(recipients.export(services, customer_id), ensure_ascii=False, indent=2, default=str)
    headers = {"Content-Disposition": f'attachment; filename="{customer_id.replace(":", "_")}.json"'}
    return Response(text, media_type=JSONResponse.media_type, headers=headers)


# -- erasure by two people ---------------------------------------------------------------------------------------------


@router.post("/{customer_id}/erasure")
def request_erasure(
    viewer: Viewer,
    request: Request,
    customer_id: CustomerId,
    services: ServicesDependency,
    reason: Text = "",
    form_token: Text = "",
) -> Response:
    """Ask for an erasure, which another person approves."""
    check_form_token(viewer, form_token)
    if not may_request_erasure(viewer):
        raise NotAllowed("to request an erasure you need the right 'preferences' or 'erase'")
    why = erasure_requests.checked_reason(reason)
    note = AuditNote(AuditAction.REQUEST, "erasure", customer_id, recipient=customer_id, reason=why)
    auditing.note(request, note)
    customer = people.view(services, viewer.principal, customer_id)
    if customer.erased_at:
        raise HTTPException(HTTPStatus.CONFLICT, "this customer was erased before")
    erasure_requests.request(services, customer_id, why, viewer.principal.id)
    return RedirectResponse(f"/console/people/{customer_id}", HTTPStatus.SEE_OTHER)


def may_request_erasure(viewer: ConsoleSession) -> bool:
    """Whether somebody works with customers' choices, and does not only look."""
    return viewer.principal.may(Right.PREFERENCES) or viewer.principal.may(Right.ERASE)


@router.post("/{customer_id}/erasure/approve")
def approve_erasure(
    viewer: Viewer, request: Request, customer_id: CustomerId, services: ServicesDependency, form_token: Text = ""
) -> Response:
    """Erase a customer as another person requested. Asks for the password again."""
    check_form_token(viewer, form_token)
    require(viewer.principal, Right.ERASE)
    confirm_first(services, viewer, f"/console/people/{customer_id}")
    auditing.note(request, AuditNote(AuditAction.ERASE, "recipient", customer_id, recipient=customer_id))
    people.require_all_entities(viewer.principal, people.view(services, viewer.principal, customer_id))
    if not erasure_requests.approve(services, customer_id, viewer.principal.id):
        raise HTTPException(HTTPStatus.CONFLICT, "no request to erase this customer is open")
    return RedirectResponse("/console/people", HTTPStatus.SEE_OTHER)


@router.post("/{customer_id}/erasure/reject")
def reject_erasure(
    viewer: Viewer, request: Request, customer_id: CustomerId, services: ServicesDependency, form_token: Text = ""
) -> Response:
    """Close a request without erasing: somebody with the right to erase, or who made the request."""
    check_form_token(viewer, form_token)
    auditing.note(request, AuditNote(AuditAction.CANCEL, "erasure", customer_id, recipient=customer_id))
    people.view(services, viewer.principal, customer_id)
    pending = erasure_requests.open_of(services, customer_id)
    if pending is not None and not is_same_principal(pending.requested_by, viewer.principal.id):
        require(viewer.principal, Right.ERASE)
    erasure_requests.reject(services, customer_id, viewer.principal.id)
    return RedirectResponse(f"/console/people/{customer_id}", HTTPStatus.SEE_OTHER)


# -- the page ----------------------------------------------------------------------------------------------------------


def _person_page(services: Services, viewer: ConsoleSession, customer: Customer, cursor: str | None) -> str:
    principal = viewer.principal
    known = preferences.show_with_history(services, customer.id)
    listed = messages.list_page(services, MessageFilter(recipient=customer.id, entities=principal.entities), cursor, MESSAGES_SHOWN)
    lines = listed.messages
    pending = erasure_requests.open_of(services, customer.id)
    context: dict[str, Any] = {
        "customer": customer,
        "choices": dict(sorted(known.preferences.choices.items())),
        "history": list(reversed(known.events)),
        "lines": lines,
        "campaigns": sorted({each.campaign_id for each in lines if each.campaign_id}),
        "older": str(listed.next) if listed.next else "",
        "inbound": customer_replies.received_from(services, customer.id, INBOUND_SHOWN),
        "may_read": principal.may(Right.INBOUND),
        "may_export": principal.may(Right.RECIPIENTS),
        "may_change": principal.may(Right.PREFERENCES),
        "may_erase": principal.may(Right.ERASE),
        "may_request": may_request_erasure(viewer),
        "pending": pending,
        "is_own_request": services.policy.four_eyes_erasure
        and pending is not None
        and is_same_principal(pending.requested_by, principal.id),
    }
    return page("person.html", operator=viewer, **context)

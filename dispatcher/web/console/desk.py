"""The desk: an employee in a branch or on the phone sees a customer's choices and changes them in the customer's name.

The choices, their texts and the rules of the form are those of the preference centre (`web/public/preferences.py`). Here, too, a
sealed field names the customer, the newest consent event and the version of the contract that the page showed: what changed since
is shown, and never overwritten.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from channels.base import Channel
from dispatcher.campaigns import preference_link
from dispatcher.campaigns.preference_link import LinkRequest
from dispatcher.consent import preferences
from dispatcher.consent.preferences import ConsentEvent, PreferenceChange, RecordResult, is_opt_out
from dispatcher.delivery import people
from dispatcher.delivery.people import Customer
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.errors import VersionConflict
from dispatcher.domain.message import Mode
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.preferences import OBJECTIONS, OFFERS, SWITCHES, Change
from dispatcher.domain.principal import Right, require
from dispatcher.domain.recipient import LANGUAGES
from dispatcher.intake.errors import BadInput
from dispatcher.runtime.services import Services
from dispatcher.web import auditing
from dispatcher.web.console.desk_form import (
    SOURCES,
    UNREADABLE,
    DeskForm,
    Habits,
    HabitsDependency,
    IdentityCheck,
    Shown,
    readable,
    remembering,
    sealed_page,
    typed,
    unsealed,
)
from dispatcher.web.console.login import Operator, check_form_token
from dispatcher.web.console.people import CustomerId, look_at, search
from dispatcher.web.console.session import ConsoleSession
from dispatcher.web.dependencies import PublisherDependency, ServicesDependency
from dispatcher.web.pages.console import DESK_TEXTS, page
from dispatcher.web.pages.customer import TEXTS, text_version
from dispatcher.web.public.link_route import SubmittedForm
from dispatcher.web.public.preferences import accepted_versions, newest_event, renewal, requested_changes

router = APIRouter(prefix="/desk", default_response_class=HTMLResponse)

_LINK_KEY = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class DeskResult:
    """What a form led to. `problem` names the text that says why nothing was done; `meanwhile` what others changed."""

    made: tuple[ConsentEvent, ...] = ()
    switched_on: tuple[ConsentEvent, ...] = ()
    problem: str = ""
    meanwhile: tuple[ConsentEvent, ...] = ()
    link: MessageId | None = None
    link_channel: str = ""

    @property
    def status(self) -> HTTPStatus:
        """The status of the page."""
        if self.problem == "conflict":
            return HTTPStatus.CONFLICT
        return HTTPStatus.UNPROCESSABLE_ENTITY if self.problem else HTTPStatus.OK

    @property
    def acknowledged(self) -> bool:
        """Whether an e-mail acknowledges an opt-out."""
        return any(is_opt_out(event) for event in (*self.made, *self.switched_on))

    @property
    def accepted_version(self) -> str:
        """The version of the contract that was accepted; "" for none."""
        return next((event.contract_version for event in self.made if event.contract_version), "")


@dataclass(frozen=True, slots=True)
class DeskCall:
    """One request about one customer. `form` is what was sent, as far as it may be shown again."""

    request: Request
    services: Services
    agent: ConsoleSession
    customer: Customer
    habits: Habits
    form: SubmittedForm | None = None

    @property
    def entity(self) -> str:
        """The entity in whose name the employee speaks."""
        return people.entity_of(self.services, self.agent.principal, self.customer)

    def one(self, name: str) -> str:
        """A field of the form; "" where it is missing."""
        return self.form.one(name) if self.form else ""


# -- dependencies ------------------------------------------------------------------------------------------------------


def _agent(found: Operator) -> ConsoleSession:
    require(found.principal, Right.PREFERENCES)
    require(found.principal, Right.PEOPLE)
    return found


Agent = Annotated[ConsoleSession, Depends(_agent)]
# -- find the customer -------------------------------------------------------------------------------------------------


@router.get("")
def desk(agent: Agent, request: Request, habits: HabitsDependency) -> Response:
    """Ask for the customer."""
    return remembering(request, HTMLResponse(_search_page(agent, habits, "", [], False)), habits)


@router.post("")
def find_customer(
    agent: Agent, request: Request, services: ServicesDependency, habits: HabitsDependency, form: DeskForm
) -> Response:
    """Go to the only customer that is found, or show all. The text is in the body, because addresses in a URL end up in logs."""
    with readable():
        q = form.one("q")
        check_form_token(agent, form.one("form_token"))
    found = search(request, services, agent, q)
    if len(found) == 1:
        return RedirectResponse(f"/console/desk/{found[0].id}", HTTPStatus.SEE_OTHER)
    return HTMLResponse(_search_page(agent, habits, q, found, True))


def _search_page(agent: ConsoleSession, habits: Habits, q: str, found: Sequence[Customer], searched: bool) -> str:
    return page(
        "desk.html",
        viewer=replace(agent.viewer, language=habits.language),
        operator=agent,
        t=DESK_TEXTS[habits.language],
        language=habits.language,
        languages={code: DESK_TEXTS[code]["language"] for code in LANGUAGES},
        q=q,
        found=found,
        searched=searched,
    )


# -- the call ----------------------------------------------------------------------------------------------------------


@router.get("/{customer_id}")
def call_page(
    agent: Agent, request: Request, customer_id: CustomerId, services: ServicesDependency, habits: HabitsDependency
) -> Response:
    """The customer's present choices."""
    customer = look_at(request, services, agent, customer_id)
    return _page(DeskCall(request, services, agent, customer, habits), None)


@router.post("/{customer_id}")
def save(
    agent: Agent,
    request: Request,
    customer_id: CustomerId,
    habits: HabitsDependency,
    form: DeskForm,
    broker: PublisherDependency,
) -> Response:
    """Record what the customer chose, as the employee's act, and show the result."""
    with readable():
        call, shown, changes = _read(request, agent, customer_id, habits, form)
    if changes is None:
        return _conflict(call, shown)
    services = call.services
    tailored = any(change.value == Mode.TAILORED for change in changes)
    if problem := _missing(call) or _contract_problem(call, shown, tailored):
        return _page(call, DeskResult(problem=problem))
    detail = {**_detail(call), "subjects": [change.subject for change in changes]}
    auditing.note(
        request, AuditNote(AuditAction.CHANGE, "preferences", customer_id, recipient=customer_id, entity=call.entity, detail=detail)
    )
    try:
        recorded = preferences.record(services.current(), broker.publish, _change(call, changes, shown))
    except VersionConflict:
        auditing.refused(request)
        return _conflict(call, shown)
    return _page(call, _outcome(recorded, changes))


@router.post("/{customer_id}/link")
def send_link(
    agent: Agent,
    request: Request,
    customer_id: CustomerId,
    habits: HabitsDependency,
    form: DeskForm,
    broker: PublisherDependency,
) -> Response:
    """Send the customer a fresh link to the preference centre on the channel that the customer names."""
    with readable():
        call, shown, changes = _read(request, agent, customer_id, habits, form)
        channel, key = call.one("link-channel"), call.one("link-key")
    if not _LINK_KEY.fullmatch(key):
        raise HTTPException(HTTPStatus.BAD_REQUEST, UNREADABLE)
    if changes is None:
        return _conflict(call, shown)
    problem = _missing(call) or ("save_first" if changes else "")
    if problem or channel not in call.customer.channels:
        return _page(call, DeskResult(problem=problem or "channel_missing"))
    detail = {**_detail(call), "channel": channel}
    auditing.note(request, AuditNote(AuditAction.ADD, "preference_link", recipient=customer_id, entity=call.entity, detail=detail))
    wanted = LinkRequest(key, customer_id, Channel(channel), call.entity)
    try:
        message = preference_link.send(call.services, broker.publish, wanted)
    except BadInput:
        auditing.refused(request)
        return _page(call, DeskResult(problem="link_refused"))
    return _page(call, DeskResult(link=message, link_channel=channel))


def _read(
    request: Request, agent: ConsoleSession, customer_id: str, habits: Habits, form: SubmittedForm
) -> tuple[DeskCall, Shown, tuple[Change, ...] | None]:
    """The call, what the page showed, and the changes on it; None where the choices changed since the page was made."""
    check_form_token(agent, form.one("form_token"))
    services: Services = request.app.state.services.current()
    customer = people.view(services, agent.principal, customer_id)
    source = form.one("source")
    habits = Habits(habits.language, source if source in SOURCES else habits.source)
    call = DeskCall(request, services, agent, customer, habits, form)
    event_no, contract_version = unsealed(services, customer_id, form)
    present = preferences.show(services, customer_id)
    shown = Shown(event_no, contract_version, present.version)
    if newest_event(present.choices) != event_no:
        return call, shown, None
    return call, shown, requested_changes(form, present.choices)


def _missing(call: DeskCall) -> str:
    """What the employee has to say first, as the name of a text; "" where nothing is missing."""
    if call.customer.erased_at:
        raise HTTPException(HTTPStatus.CONFLICT, "the customer's data were erased")
    if call.one("identity-check") not in list(IdentityCheck):
        return "identity_missing"
    return "" if call.one("source") in SOURCES else "source_missing"


def _contract_problem(call: DeskCall, shown: Shown, tailored: bool) -> str:
    if not tailored:
        return ""
    if shown.contract_version != call.services.policy.contract.version:
        return "contract_changed"
    return "" if call.one("contract-read") == "on" else "contract_unread"


def _detail(call: DeskCall) -> dict[str, str]:
    return {"identity_check": call.one("identity-check"), "source": call.one("source")}


def _change(call: DeskCall, changes: Sequence[Change], shown: Shown) -> PreferenceChange:
    return PreferenceChange(
        call.customer.id,
        changes,
        call.one("source"),
        call.agent.principal.id,
        text_version(call.customer.language, "desk"),
        expected_version=shown.version,
        entity=call.entity,
        contract_version=shown.contract_version,
    )


def _outcome(recorded: RecordResult, changes: Sequence[Change]) -> DeskResult:
    named = {change.subject for change in changes}
    return DeskResult(
        made=tuple(event for event in recorded.events if event.subject in named),
        switched_on=tuple(event for event in recorded.events if event.subject not in named),
    )


def _conflict(call: DeskCall, shown: Shown) -> Response:
    """The present choices, and what others recorded since the page was made. What was typed is dropped: it was about other ones."""
    events = preferences.history(call.services, call.customer.id)
    meanwhile = tuple(event for event in events if event.no > shown.event_no)
    fresh = DeskCall(call.request, call.services, call.agent, call.customer, call.habits)
    return _page(fresh, DeskResult(problem="conflict", meanwhile=meanwhile))


# -- the page ----------------------------------------------------------------------------------------------------------


def _page(call: DeskCall, outcome: DeskResult | None) -> Response:
    services, customer, entity = call.services, call.customer, call.entity
    choices = preferences.show(services, customer.id).choices
    present = {subject: choice.value for subject, choice in choices.items()}
    version = services.policy.contract.version
    rejected = call.form if outcome and outcome.problem else None
    text = page(
        "desk_call.html",
        viewer=replace(call.agent.viewer, language=call.habits.language),
        operator=call.agent,
        t=DESK_TEXTS[call.habits.language],
        c=TEXTS[customer.language],
        language=call.habits.language,
        languages={code: DESK_TEXTS[code]["language"] for code in LANGUAGES},
        customer=customer,
        entity_name=services.policy.entities[entity].names[customer.language],
        outcome=outcome,
        present=present,
        now=typed(rejected, present) if rejected else present,
        kept_off=rejected.all("keep-off") if rejected else (),
        checks=list(IdentityCheck),
        identity_check=call.one("identity-check"),
        sources=SOURCES,
        source=call.habits.source,
        link_channel=call.one("link-channel"),
        link_key=secrets.token_hex(8),
        offers=OFFERS,
        modes=[mode.value for mode in Mode],
        switches=SWITCHES,
        objections=OBJECTIONS,
        contract=services.contracts.find(version, entity, customer.language),
        version=version,
        renewal=renewal(services.policy.contract, accepted_versions(choices)),
        sealed=sealed_page(services, customer.id, choices),
        zone=services.policy.default_zone,
    )
    status = outcome.status if outcome else HTTPStatus.OK
    return remembering(call.request, HTMLResponse(text, status), call.habits)

"""The desk: an employee in a branch or on the phone sees a customer's choices and changes them in the customer's name.

The choices, their texts and the rules of the form are those of the preference centre (`web/public/preferences.py`). Here, too, a
sealed field names the customer, the newest consent event and the version of the contract that the page showed: what changed since
is shown, and never overwritten.
"""

from __future__ import annotations

import re
import secrets
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from channels.base import Channel
from dispatcher.campaigns import preference_link
from dispatcher.campaigns.preference_link import LinkRequest
from dispatcher.consent import preferences
from dispatcher.consent.link_tokens import BadToken, seal, unseal
from dispatcher.consent.preferences import ConsentEvent, PreferenceChange, RecordResult, is_opt_out
from dispatcher.delivery import people
from dispatcher.delivery.people import Customer
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.errors import VersionConflict
from dispatcher.domain.message import Mode
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.preferences import OBJECTIONS, OFFERS, SWITCHES, Change
from dispatcher.domain.principal import Right, require
from dispatcher.domain.recipient import LANGUAGES, Choice, Language, Source
from dispatcher.intake.errors import BadInput
from dispatcher.runtime.services import Services
from dispatcher.web import auditing
from dispatcher.web.console.login import Operator, check_form_token
from dispatcher.web.console.people import CustomerId, look_at, search
from dispatcher.web.console.session import ConsoleSession
from dispatcher.web.dependencies import PublisherDependency, ServicesDependency
from dispatcher.web.pages.console import DESK_TEXTS, page
from dispatcher.web.pages.customer import TEXTS, text_version
from dispatcher.web.public.link_route import PageError, SubmittedForm, accepted, read_form
from dispatcher.web.public.preferences import accepted_versions, newest_event, renewal, requested_changes

router = APIRouter(prefix="/desk", default_response_class=HTMLResponse)

FORM = "desk form"  # the purpose of the sealed field
COOKIE = "dispatcher_desk"
COOKIE_SECONDS = 180 * 86_400
UNREADABLE = "this form is not from a page of this desk; go back, reload and try again"
_EVENT_NO = struct.Struct(">Q")
_LINK_KEY = re.compile(r"[0-9a-f]{16}")


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
class Outcome:
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


def _habits(request: Request, language: str = "") -> Habits:
    """From the query, else from the cookie; the language at first from the browser's."""
    kept_language, _, source = request.cookies.get(COOKIE, "").partition(".")
    wanted = next((each for each in (language, kept_language) if each in LANGUAGES), None)
    return Habits(wanted or accepted(request.headers.get("accept-language", "")), source if source in SOURCES else "")


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except PageError as error:
        raise HTTPException(error.status, UNREADABLE) from None


async def _form(request: Request) -> SubmittedForm:
    with _readable():
        return await read_form(request)


Agent = Annotated[ConsoleSession, Depends(_agent)]
HabitsDependency = Annotated[Habits, Depends(_habits)]
DeskForm = Annotated[SubmittedForm, Depends(_form)]


def _remembering(request: Request, response: Response, habits: Habits) -> Response:
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


# -- find the customer -------------------------------------------------------------------------------------------------


@router.get("")
def desk(agent: Agent, request: Request, habits: HabitsDependency) -> Response:
    """Ask for the customer."""
    return _remembering(request, HTMLResponse(_search_page(agent, habits, "", [], False)), habits)


@router.post("")
def find_customer(
    agent: Agent, request: Request, services: ServicesDependency, habits: HabitsDependency, form: DeskForm
) -> Response:
    """Go to the only customer that is found, or show all. The text is in the body, because addresses in a URL end up in logs."""
    with _readable():
        q = form.one("q")
        check_form_token(agent, form.one("form_token"))
    found = search(request, services, agent, q)
    if len(found) == 1:
        return RedirectResponse(f"/console/desk/{found[0].id}", HTTPStatus.SEE_OTHER)
    return HTMLResponse(_search_page(agent, habits, q, found, True))


def _search_page(agent: ConsoleSession, habits: Habits, q: str, found: Sequence[Customer], searched: bool) -> str:
    return page(
        "desk.html",
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
    with _readable():
        call, shown, changes = _read(request, agent, customer_id, habits, form)
    if changes is None:
        return _conflict(call, shown)
    services = call.services
    tailored = any(change.value == Mode.TAILORED for change in changes)
    if problem := _missing(call) or _contract_problem(call, shown, tailored):
        return _page(call, Outcome(problem=problem))
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
    with _readable():
        call, shown, changes = _read(request, agent, customer_id, habits, form)
        channel, key = call.one("link-channel"), call.one("link-key")
    if not _LINK_KEY.fullmatch(key):
        raise HTTPException(HTTPStatus.BAD_REQUEST, UNREADABLE)
    if changes is None:
        return _conflict(call, shown)
    problem = _missing(call) or ("save_first" if changes else "")
    if problem or channel not in call.customer.channels:
        return _page(call, Outcome(problem=problem or "channel_missing"))
    detail = {**_detail(call), "channel": channel}
    auditing.note(request, AuditNote(AuditAction.ADD, "preference_link", recipient=customer_id, entity=call.entity, detail=detail))
    wanted = LinkRequest(key, customer_id, Channel(channel), call.entity)
    try:
        message = preference_link.send(call.services, broker.publish, wanted)
    except BadInput:
        auditing.refused(request)
        return _page(call, Outcome(problem="link_refused"))
    return _page(call, Outcome(link=message, link_channel=channel))


@dataclass(frozen=True, slots=True)
class Shown:
    """What the page showed: the newest consent event and the version of the contract; and the version of the person now."""

    event_no: int
    contract_version: str
    version: int


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
    event_no, contract_version = _unsealed(services, customer_id, form)
    present = preferences.show(services, customer_id)
    shown = Shown(event_no, contract_version, present.version)
    if newest_event(present.choices) != event_no:
        return call, shown, None
    return call, shown, requested_changes(form, present.choices)


def _unsealed(services: Services, customer_id: str, form: SubmittedForm) -> tuple[int, str]:
    try:
        opened = unseal(services.secret, FORM, form.one("page"))
    except BadToken:
        raise PageError("unreadable", 400) from None
    named, _, contract_version = opened[_EVENT_NO.size :].decode().partition(" ")
    if named != customer_id:
        raise PageError("unreadable", 400)
    return _EVENT_NO.unpack(opened[: _EVENT_NO.size])[0], contract_version


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


def _outcome(recorded: RecordResult, changes: Sequence[Change]) -> Outcome:
    named = {change.subject for change in changes}
    return Outcome(
        made=tuple(event for event in recorded.events if event.subject in named),
        switched_on=tuple(event for event in recorded.events if event.subject not in named),
    )


def _conflict(call: DeskCall, shown: Shown) -> Response:
    """The present choices, and what others recorded since the page was made. What was typed is dropped: it was about other ones."""
    events = preferences.history(call.services, call.customer.id)
    meanwhile = tuple(event for event in events if event.no > shown.event_no)
    fresh = DeskCall(call.request, call.services, call.agent, call.customer, call.habits)
    return _page(fresh, Outcome(problem="conflict", meanwhile=meanwhile))


# -- the page ----------------------------------------------------------------------------------------------------------


def _page(call: DeskCall, outcome: Outcome | None) -> Response:
    services, customer, entity = call.services, call.customer, call.entity
    choices = preferences.show(services, customer.id).choices
    present = {subject: choice.value for subject, choice in choices.items()}
    version = services.policy.contract.version
    rejected = call.form if outcome and outcome.problem else None
    text = page(
        "desk_call.html",
        operator=call.agent,
        t=DESK_TEXTS[call.habits.language],
        c=TEXTS[customer.language],
        language=call.habits.language,
        languages={code: DESK_TEXTS[code]["language"] for code in LANGUAGES},
        customer=customer,
        entity_name=services.policy.entities[entity].names[customer.language],
        outcome=outcome,
        present=present,
        now=_typed(rejected, present) if rejected else present,
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
        sealed=_sealed(services, customer.id, choices),
        zone=services.policy.default_zone,
    )
    status = outcome.status if outcome else HTTPStatus.OK
    return _remembering(call.request, HTMLResponse(text, status), call.habits)


def _typed(form: SubmittedForm, present: Mapping[str, str]) -> dict[str, str]:
    """The choices as they stand in a form that was not taken, so that nothing has to be typed twice."""
    offers = {subject: form.one(subject) or present.get(subject, "") for subject in OFFERS}
    return offers | {subject: "on" if form.one(subject) else "off" for subject in (*SWITCHES, *OBJECTIONS)}


def _sealed(services: Services, customer_id: str, choices: Mapping[str, Choice]) -> str:
    shown = _EVENT_NO.pack(newest_event(choices)) + f"{customer_id} {services.policy.contract.version}".encode()
    return seal(services.secret, FORM, shown)

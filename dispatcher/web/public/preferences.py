"""`/p/{token}`: the preference centre, "How do you want to receive commercial messages?".

The token in the link is the credential and there is no cookie, so another site cannot send a request in the visitor's name. The
form also has a sealed field, which names the message, the newest consent event and the version of the contract that the page
showed. A form of another person's page, or one that we did not make, is refused. If choices were made elsewhere since, or another
version of the contract that the person accepts is in force by now, the page is shown again without saving.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from fastapi import APIRouter, Request, Response

from dispatcher.consent import preferences
from dispatcher.consent.link_owner import LinkOwner
from dispatcher.consent.link_tokens import PREFERENCES, BadToken, seal, unseal
from dispatcher.consent.preferences import ConsentEvent, PreferenceChange, Preferences, RecordResult, is_opt_out
from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.errors import VersionConflict
from dispatcher.domain.message import Mode
from dispatcher.domain.preferences import DEFAULTS, OBJECTIONS, OFFERS, SWITCHES, VALUES, Change
from dispatcher.domain.recipient import Choice, Language, Source
from dispatcher.policy.data import ContractRules
from dispatcher.runtime.services import Services
from dispatcher.web.pages.customer import text_version
from dispatcher.web.public.link_route import LinkRoute, PageError, Submitted, SubmittedForm, language_of, owner_of_link, show

DAYS = 90  # how long a link works after its message: long enough to come back to a mail, short enough for a lost mailbox
FORM = "preferences form"  # the purpose of the sealed field
HISTORY_MAX = 100
RENEW = "renew"  # the box that accepts the present version of the contract for choices that are tailored already

_EVENT_NO = struct.Struct(">Q")

router = APIRouter(route_class=LinkRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class SaveResult:
    """The result of a saved form: changes that the person made, and channels that "tailored" switched on."""

    made: tuple[ConsentEvent, ...] = ()
    switched_on: tuple[ConsentEvent, ...] = ()
    acknowledged: bool = False
    problem: str = ""  # why nothing was saved, as the name of a text: "conflict" | "contract_changed"

    @property
    def accepted_version(self) -> str:
        """The version of the contract that the person accepted just now; "" where there was nothing to accept."""
        return next((event.contract_version for event in self.made if event.contract_version), "")


@router.api_route("/p/{token:path}", methods=["GET", "HEAD"])
def look(request: Request, token: str) -> Response:
    """The page with the present choices."""
    owner = _admitted(request, token)
    return _page(request, owner, None)


@router.post("/p/{token:path}")
def save(request: Request, token: str, form: Submitted) -> Response:
    """Record what the person changed on the page, then show the page with the present choices."""
    services: Services = request.app.state.services
    owner = _admitted(request, token)
    shown, contract_version = _shown(services.secret, owner, form)
    present = preferences.show(services, owner.recipient_id)
    if newest_event(present.choices) != shown:
        return _page(request, owner, SaveResult(problem="conflict"))
    asked = OBJECTIONS if contract_version else OBJECTIONS[:1]  # a page of the program's version before has no box for profiling
    changes = requested_changes(form, present.choices, owner.language, asked)
    if any(change.value == Mode.TAILORED for change in changes) and contract_version != services.policy.contract.version:
        return _page(request, owner, SaveResult(problem="contract_changed"))
    try:
        recorded = _record(request, owner, changes, present)
    except VersionConflict:
        return _page(request, owner, SaveResult(problem="conflict"))
    return _page(request, owner, _outcome(recorded, changes))


def _record(request: Request, owner: LinkOwner, changes: Sequence[Change], present: Preferences) -> RecordResult:
    services: Services = request.app.state.services
    publish: Callable[..., None] = request.app.state.broker.publish
    change = PreferenceChange(
        owner.recipient_id,
        changes,
        Source.PREFERENCE_CENTRE,
        "recipient",
        text_version(language_of(request, owner), "preferences"),
        expected_version=present.version,
        entity=owner.entity,
        contract_version=services.policy.contract.version,
        message=owner.ref,
    )
    return preferences.record(services.current(), publish, change)


def _outcome(recorded: RecordResult, changes: Sequence[Change]) -> SaveResult:
    named = {change.subject for change in changes}
    return SaveResult(
        made=tuple(event for event in recorded.events if event.subject in named),
        switched_on=tuple(event for event in recorded.events if event.subject not in named),
        acknowledged=any(is_opt_out(event) for event in recorded.events),
    )


# -- the visitor -------------------------------------------------------------------------------------------------------


def _admitted(request: Request, token: str) -> LinkOwner:
    services: Services = request.app.state.services
    owner = owner_of_link(request, PREFERENCES, token)
    if owner.erased:
        raise PageError("erased", 200, owner.language)
    if services.clock() - owner.handed_over_at > timedelta(days=DAYS):
        raise PageError("expired", 410, owner.language, days=DAYS)
    return owner


def newest_event(choices: Mapping[str, Choice]) -> int:
    """The number of the newest consent event in force: it grows with every change of a choice, and with nothing else."""
    return max((int(choice.event.rpartition(":")[2]) for choice in choices.values()), default=0)


def _sealed(secret: KeyRing, owner: LinkOwner, choices: Mapping[str, Choice], contract_version: str) -> str:
    page = _EVENT_NO.pack(newest_event(choices)) + f"{owner.ref} {contract_version}".encode()
    return seal(secret, FORM, page)


def _shown(secret: KeyRing, owner: LinkOwner, form: SubmittedForm) -> tuple[int, str]:
    """The newest event and the contract's version on the page that the person saw; no version on a page of the program's version
    before. Raises `PageError` for a form that we did not make, or of another page.
    """
    try:
        opened = unseal(secret, FORM, form.one("page"))
    except BadToken:
        raise PageError("unreadable", 400, owner.language) from None
    ref, _, contract_version = opened[_EVENT_NO.size :].decode().partition(" ")
    if ref != str(owner.ref):
        raise PageError("unreadable", 400, owner.language)
    return _EVENT_NO.unpack(opened[: _EVENT_NO.size])[0], contract_version


# -- the changes -------------------------------------------------------------------------------------------------------


def requested_changes(
    form: SubmittedForm,
    choices: Mapping[str, Choice],
    language: Language | None = None,
    objections: Sequence[str] = OBJECTIONS,
) -> tuple[Change, ...]:
    """The changes between what the page showed and the form. Raises `PageError` for values that the page does not offer.

    A box that did not change is no choice, so that tailored, newly chosen, switches its channel on. A cleared box means off, and so
    does "leave off" next to it, which takes precedence.
    """
    now = {subject: choice.value for subject, choice in choices.items()}
    return (*_changed(form, now, language), *_objected(form, now, language, objections))


def _changed(form: SubmittedForm, now: Mapping[str, str], language: Language | None) -> Iterator[Change]:
    renews = _ticked(form, RENEW, language) == "on"
    for subject in OFFERS:
        value = form.one(subject)
        if value and value not in VALUES[subject]:
            raise PageError("unreadable", 400, language)
        if value and (value != now.get(subject) or (renews and value == Mode.TAILORED)):
            yield Change(subject, value)
    keep_off = form.all("keep-off")
    for subject in SWITCHES:
        value = _ticked(form, subject, language)
        if value != now.get(subject, "off"):
            yield Change(subject, value)
        elif value == "off" and subject in keep_off:
            yield Change(subject, "off")


def _objected(
    form: SubmittedForm, now: Mapping[str, str], language: Language | None, objections: Sequence[str]
) -> Iterator[Change]:
    for subject in objections:
        objects = _ticked(form, subject, language)
        if objects != now.get(subject, DEFAULTS[subject]):
            yield Change(subject, objects)


def _ticked(form: SubmittedForm, subject: str, language: Language | None) -> str:
    value = form.one(subject)
    if value not in ("", "on"):
        raise PageError("unreadable", 400, language)
    return value or "off"


def accepted_versions(choices: Mapping[str, Choice]) -> frozenset[str]:
    """The versions of the contract that the tailored choices in force accepted; "" for one that was not stated."""
    return frozenset(choice.contract_version for subject, choice in choices.items() if choice.value == Mode.TAILORED)


def renewal(rules: ContractRules, accepted: frozenset[str]) -> str:
    """What the page says of acceptances of other versions: "kept", "required", or "" where there is nothing to say."""
    others = accepted - {rules.version}
    if rules.renewal == "required":
        return "required" if others else ""
    return "kept" if others - {""} else ""


# -- the page ----------------------------------------------------------------------------------------------------------


def _page(request: Request, owner: LinkOwner, outcome: SaveResult | None) -> Response:
    services: Services = request.app.state.services
    language = language_of(request, owner)
    found = preferences.show_with_history(services, owner.recipient_id)
    choices = found.preferences.choices
    entity = services.policy.entities.get(owner.entity)
    version = services.policy.contract.version
    accepted = accepted_versions(choices)
    texts = [services.contracts.find(each, owner.entity, language) for each in (version, *sorted(accepted - {version, ""}))]
    return show(
        "preferences",
        language,
        409 if outcome and outcome.problem else 200,
        contracts=[text for text in texts if text is not None],
        renewal=renewal(services.policy.contract, accepted),
        privacy=entity.privacy.get(language, "") if entity else "",
        entity=entity.names[language] if entity else "",
        now={subject: choice.value for subject, choice in choices.items()},
        offers=OFFERS,
        modes=[mode.value for mode in Mode],
        switches=SWITCHES,
        objections=OBJECTIONS,
        sealed=_sealed(services.secret, owner, choices, version),
        history=found.events[: -HISTORY_MAX - 1 : -1],
        outcome=outcome,
        zone=services.policy.default_zone,
    )

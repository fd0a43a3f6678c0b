"""`/p/{token}`: the preference centre, "How do you want to receive commercial messages?".

The link's token is the credential and no cookie exists, so a foreign site has nothing to ride on. The form carries a second, sealed
field besides: it names the message and the newest consent event that the page showed. A form of another person, or one that we did
not make, is refused; one that choices made elsewhere have overtaken is shown anew rather than written over them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from fastapi import APIRouter, Request, Response

from dispatcher.consent import acknowledgement
from dispatcher.consent.link_tokens import PREFERENCES, BadToken, seal, unseal
from dispatcher.domain.errors import VersionConflict
from dispatcher.domain.message import Mode
from dispatcher.domain.preferences import OFFERS, SWITCHES, UNSAID, VALUES, Change
from dispatcher.domain.recipient import Choice, Language, Source
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import events
from dispatcher.ledger.consent.events import Preferences, RecordResult
from dispatcher.ledger.consent.hash_chain import ConsentEvent
from dispatcher.ledger.consent.link_owner import LinkOwner
from dispatcher.runtime.services import Services
from dispatcher.web.pages.customer import wording
from dispatcher.web.public.link_route import LinkRoute, PageError, Submitted, SubmittedForm, language_of, owner_of_link, show

DAYS = 90  # how long after its message a link works: long enough to come back to a mail, short enough for a lost mailbox
FORM = "preferences form"  # the purpose of the sealed field
OBJECTION = "objection:marketing"
HISTORY_MAX = 100

_EDITION = struct.Struct(">Q")

router = APIRouter(route_class=LinkRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class SaveResult:
    """What a saved form led to: changes that the person made, and channels that "tailored" switched on by itself."""

    made: tuple[ConsentEvent, ...] = ()
    switched_on: tuple[ConsentEvent, ...] = ()
    acknowledged: bool = False
    conflict: bool = False


@router.api_route("/p/{token}", methods=["GET", "HEAD"])
def look(request: Request, token: str) -> Response:
    """The page, with what stands now."""
    who = _admitted(request, token)
    return _page(request, who, None)


@router.post("/p/{token}")
def save(request: Request, token: str, form: Submitted) -> Response:
    """Record what the person changed on the page, then show the page with what stands now."""
    services: Services = request.app.state.services
    who = _admitted(request, token)
    shown = _edition_shown(services, who, form)
    with lend(services.pool) as connection:
        standing = events.preferences(connection, who.recipient_id)
    if language_version(standing.choices) != shown:
        return _page(request, who, SaveResult(conflict=True))
    changes = asked(form, standing.choices, who.language)
    try:
        recorded = _record(request, who, changes, standing)
    except VersionConflict:
        return _page(request, who, SaveResult(conflict=True))
    return _page(request, who, _outcome(recorded, changes))


def _record(request: Request, who: LinkOwner, changes: Sequence[Change], standing: Preferences) -> RecordResult:
    publish: Callable[..., None] = request.app.state.broker.publish
    return acknowledgement.record(
        request.app.state.services,
        publish,
        who.recipient_id,
        changes,
        Source.PREFERENCE_CENTRE,
        "recipient",
        wording(language_of(request, who), "preferences"),
        expected_version=standing.version,
        entity=who.entity,
    )


def _outcome(recorded: RecordResult, changes: Sequence[Change]) -> SaveResult:
    named = {change.subject for change in changes}
    return SaveResult(
        made=tuple(event for event in recorded.events if event.subject in named),
        switched_on=tuple(event for event in recorded.events if event.subject not in named),
        acknowledged=any(acknowledgement.is_no(event) for event in recorded.events),
    )


# -- who may come ------------------------------------------------------------------------------------------------------


def _admitted(request: Request, token: str) -> LinkOwner:
    services: Services = request.app.state.services
    who = owner_of_link(request, PREFERENCES, token)
    if who.erased:
        raise PageError("erased", 200, who.language)
    if services.clock() - who.handed_over_at > timedelta(days=DAYS):
        raise PageError("expired", 410, who.language, days=DAYS)
    return who


def language_version(choices: Mapping[str, Choice]) -> int:
    """The number of the newest consent event that stands; it grows with every change of choice, and with nothing else."""
    return max((int(choice.event.rpartition(":")[2]) for choice in choices.values()), default=0)


def _sealed(services: Services, who: LinkOwner, choices: Mapping[str, Choice]) -> str:
    return seal(services.secret, FORM, _EDITION.pack(language_version(choices)) + str(who.ref).encode())


def _edition_shown(services: Services, who: LinkOwner, form: SubmittedForm) -> int:
    """The edition that the person saw. Raises `PageError` for a form that is not of our making, or of another message's page."""
    try:
        opened = unseal(services.secret, FORM, form.one("page"))
    except BadToken:
        raise PageError("unreadable", 400, who.language) from None
    if opened[_EDITION.size :] != str(who.ref).encode():
        raise PageError("unreadable", 400, who.language)
    shown: int = _EDITION.unpack(opened[: _EDITION.size])[0]
    return shown


# -- what they ask -----------------------------------------------------------------------------------------------------


def asked(form: SubmittedForm, choices: Mapping[str, Choice], language: Language | None = None) -> tuple[Change, ...]:
    """What the form changes, held against what it showed. Raises `PageError` for values that the page does not offer.

    A box that stays as it was says nothing, so that tailored, newly chosen, switches its channel on. One that is cleared says off,
    and so does "leave off" beside it; that wins.
    """
    now = {subject: choice.value for subject, choice in choices.items()}
    return tuple(_changed(form, now, language))


def _changed(form: SubmittedForm, now: Mapping[str, str], language: Language | None) -> Iterator[Change]:
    for subject in OFFERS:
        value = form.one(subject)
        if value and value not in VALUES[subject]:
            raise PageError("unreadable", 400, language)
        if value and value != now.get(subject):
            yield Change(subject, value)
    keep_off = form.all("keep-off")
    for subject in SWITCHES:
        value = _ticked(form, subject, language)
        if value != now.get(subject, "off"):
            yield Change(subject, value)
        elif value == "off" and subject in keep_off:
            yield Change(subject, "off")
    objects = _ticked(form, OBJECTION, language)
    if objects != now.get(OBJECTION, UNSAID[OBJECTION]):
        yield Change(OBJECTION, objects)


def _ticked(form: SubmittedForm, subject: str, language: Language | None) -> str:
    value = form.one(subject)
    if value not in ("", "on"):
        raise PageError("unreadable", 400, language)
    return value or "off"


# -- what they see -----------------------------------------------------------------------------------------------------


def _page(request: Request, who: LinkOwner, outcome: SaveResult | None) -> Response:
    services: Services = request.app.state.services
    language = language_of(request, who)
    with lend(services.pool) as connection:
        choices = events.preferences(connection, who.recipient_id).choices
        history = events.history(connection, who.recipient_id)
    entity = services.policy.entities.get(who.entity)
    return show(
        "preferences",
        language,
        409 if outcome and outcome.conflict else 200,
        entity=entity.names[language] if entity else "",
        now={subject: choice.value for subject, choice in choices.items()},
        offers=OFFERS,
        modes=[mode.value for mode in Mode],
        switches=SWITCHES,
        objection=OBJECTION,
        sealed=_sealed(services, who, choices),
        history=history[: -HISTORY_MAX - 1 : -1],
        outcome=outcome,
        zone=services.policy.default_zone,
    )

"""`/u/{token}`: the way out of a message (RFC 2369), also by one click of the mail program (RFC 8058).

GET shows a page and changes nothing, for link scanners open every link. POST opts out at once: no login, no redirect, no cookie, as
often as one likes, for mails of any age.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fastapi import APIRouter, Request, Response

from dispatcher.consent import acknowledgement
from dispatcher.consent.link_tokens import PREFERENCES, UNSUBSCRIBE, message_token
from dispatcher.domain.preferences import Change
from dispatcher.domain.recipient import Language, Source
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import events
from dispatcher.ledger.consent.link_owner import LinkOwner
from dispatcher.runtime.services import Services
from dispatcher.web.pages.customer import wording
from dispatcher.web.public.link_route import LinkRoute, PageError, Submitted, SubmittedForm, language_of, owner_of_link, show

ONE_CLICK = "list-unsubscribe one-click"  # the wording on record where the mail program asked, not a page of ours
EVERYTHING = Change("objection:marketing", "on")

router = APIRouter(route_class=LinkRoute, include_in_schema=False)


@router.api_route("/u/{token}", methods=["GET", "HEAD"])
def ask(request: Request, token: str) -> Response:
    """The page on which a person says what shall stop. Changes nothing."""
    services: Services = request.app.state.services
    who = owner_of_link(request, UNSUBSCRIBE, token)
    language = language_of(request, who)
    _refuse_erased(who)
    with lend(services.pool) as connection:
        choices = events.preferences(connection, who.recipient_id).choices
    ways = {
        name: {"word": _word(change), "stands": (held := choices.get(change.subject)) is not None and held.value == change.value}
        for name, change in _ways_out(who).items()
    }
    return show("unsubscribe", language, ways=ways, entity=_entity(services, who, language))


@router.post("/u/{token}")
def stop(request: Request, token: str, form: Submitted) -> Response:
    """Opt out, by one click (of the message's channel) or as chosen on the page. Doing it again changes nothing."""
    services: Services = request.app.state.services
    who = owner_of_link(request, UNSUBSCRIBE, token)
    language = language_of(request, who)
    one_click = form.one("List-Unsubscribe").lower() == "one-click"
    change = _chosen(who, form, one_click)
    publish: Callable[..., None] = request.app.state.broker.publish
    # An erased person's no is written down too: it still counts if the bank's master data bring the person back.
    recorded = acknowledgement.record(
        services,
        publish,
        who.recipient_id,
        [change],
        Source.UNSUBSCRIBE,
        "recipient",
        ONE_CLICK if one_click else wording(language, "unsubscribe"),
        entity=who.entity,
    )
    _refuse_erased(who)
    return show(
        "done",
        language,
        word=_word(change),
        new=bool(recorded.events),
        entity=_entity(services, who, language),
        link=None if one_click else _onward(services, who, language),
    )


def _ways_out(who: LinkOwner) -> Mapping[str, Change]:
    """What the page offers, from the least to the most: this kind of offer, this channel, everything."""
    offer = {"offer": Change(f"offer:{who.offer_type}", "none")} if who.offer_type else {}
    return {**offer, "channel": Change(f"channel:{who.group}", "off"), "everything": EVERYTHING}


def _chosen(who: LinkOwner, form: SubmittedForm, one_click: bool) -> Change:
    ways = _ways_out(who)
    change = ways.get("channel" if one_click else form.one("stop"))
    if change is None:
        raise PageError("unreadable", 400, who.language)
    return change


def _word(change: Change) -> str:
    """What the texts call a way out."""
    return "everything" if change == EVERYTHING else change.subject.partition(":")[2]


def _onward(services: Services, who: LinkOwner, language: Language) -> str:
    """The same message's link to the preference centre, in the language that is read; it expires like the one in the mail."""
    token = message_token(services.secret, PREFERENCES, str(who.ref))
    return f"../p/{token}" + ("" if language == who.language else f"?lang={language}")


def _entity(services: Services, who: LinkOwner, language: Language) -> str:
    entity = services.policy.entities.get(who.entity)
    return entity.names[language] if entity else ""


def _refuse_erased(who: LinkOwner) -> None:
    if who.erased:
        raise PageError("erased", 200, who.language)

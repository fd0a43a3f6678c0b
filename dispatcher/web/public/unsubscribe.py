"""`/u/{token}`: the unsubscribe link of a message (RFC 2369), also for one click in the mail program (RFC 8058).

GET shows a page and changes nothing, because link scanners open every link. POST opts out at once: without login, redirect or
cookie, any number of times, for mails of any age.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fastapi import APIRouter, Request, Response

from dispatcher.consent import preferences
from dispatcher.consent.link_owner import LinkOwner
from dispatcher.consent.link_tokens import PREFERENCES, UNSUBSCRIBE, message_token
from dispatcher.consent.preferences import PreferenceChange
from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.preferences import Change
from dispatcher.domain.recipient import Language, Source
from dispatcher.policy import Policy
from dispatcher.runtime.services import Services
from dispatcher.web.pages.customer import text_version
from dispatcher.web.public.link_route import LinkRoute, PageError, Submitted, SubmittedForm, language_of, owner_of_link, show

ONE_CLICK = "list-unsubscribe one-click"  # the recorded text version where the mail program sent the request, not a page of ours
EVERYTHING = Change("objection:marketing", "on")

router = APIRouter(route_class=LinkRoute, include_in_schema=False)


@router.api_route("/u/{token:path}", methods=["GET", "HEAD"])
def ask(request: Request, token: str) -> Response:
    """The page on which a person chooses what to stop. Changes nothing."""
    services: Services = request.app.state.services
    owner = owner_of_link(request, UNSUBSCRIBE, token)
    language = language_of(request, owner)
    _refuse_erased(owner)
    choices = preferences.show(services, owner.recipient_id).choices
    ways = {
        name: {
            "text_key": _text_key(change),
            "in_force": change.subject in choices and choices[change.subject].value == change.value,
        }
        for name, change in _options(owner).items()
    }
    return show("unsubscribe", language, ways=ways, entity=_entity_name(services.policy, owner, language))


@router.post("/u/{token:path}")
def stop(request: Request, token: str, form: Submitted) -> Response:
    """Opt out: of the message's channel by one click, or as chosen on the page. A second time changes nothing."""
    services: Services = request.app.state.services
    owner = owner_of_link(request, UNSUBSCRIBE, token)
    language = language_of(request, owner)
    one_click = form.one("List-Unsubscribe").lower() == "one-click"
    change = _chosen(owner, form, one_click)
    publish: Callable[..., None] = request.app.state.broker.publish
    # The opt-out of an erased person is recorded too: it still counts if the bank's master data bring the person back.
    seen = ONE_CLICK if one_click else text_version(language, "unsubscribe")
    preference_change = PreferenceChange(
        owner.recipient_id, [change], Source.UNSUBSCRIBE, "recipient", seen, entity=owner.entity, message=owner.ref
    )
    recorded = preferences.record(services.current(), publish, preference_change)
    _refuse_erased(owner)
    return show(
        "done",
        language,
        text_key=_text_key(change),
        new=bool(recorded.events),
        entity=_entity_name(services.policy, owner, language),
        link=None if one_click else _preference_link(services.secret, owner, language),
    )


def _options(owner: LinkOwner) -> Mapping[str, Change]:
    """What the page offers, from the least to the most: this type of offer, this channel, everything."""
    offer = {"offer": Change(f"offer:{owner.offer_type}", "none")} if owner.offer_type else {}
    return {**offer, "channel": Change(f"channel:{owner.group}", "off"), "everything": EVERYTHING}


def _chosen(owner: LinkOwner, form: SubmittedForm, one_click: bool) -> Change:
    change = _options(owner).get("channel" if one_click else form.one("stop"))
    if change is None:
        raise PageError("unreadable", 400, owner.language)
    return change


def _text_key(change: Change) -> str:
    """The key of an option among the texts."""
    return "everything" if change == EVERYTHING else change.subject.partition(":")[2]


def _preference_link(secret: KeyRing, owner: LinkOwner, language: Language) -> str:
    """The same message's link to the preference centre, in the language of the page; it expires like the one in the mail."""
    token = message_token(secret, PREFERENCES, str(owner.ref))
    return f"../p/{token}" + ("" if language == owner.language else f"?lang={language}")


def _entity_name(policy: Policy, owner: LinkOwner, language: Language) -> str:
    entity = policy.entities.get(owner.entity)
    return entity.names[language] if entity else ""


def _refuse_erased(owner: LinkOwner) -> None:
    if owner.erased:
        raise PageError("erased", 200, owner.language)

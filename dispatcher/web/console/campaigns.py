"""The console: how campaigns go, what became of a message and why, what needs a person.

Ids only, no addresses or names; of people's own words, those answers that somebody must read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from dispatcher.campaigns import scheduler
from dispatcher.campaigns.actions import CampaignAction, apply
from dispatcher.campaigns.template_approval import ApprovalStatus, template_versions
from dispatcher.delivery import reconciliation
from dispatcher.delivery.explanation import explain_message
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.message_id import BadMessageId, MessageId
from dispatcher.inbound import agent_reply, customer_replies
from dispatcher.ledger.campaigns import balance as balance_module
from dispatcher.ledger.campaigns import lifecycle
from dispatcher.ledger.campaigns.balance import Balance
from dispatcher.ledger.campaigns.lifecycle import Campaign
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.delivery import messages, unresolved
from dispatcher.ledger.delivery.messages import Message
from dispatcher.ledger.maintenance.metrics import metrics
from dispatcher.policy import DecisionRecord, from_record
from dispatcher.web.console import session
from dispatcher.web.console.session import COOKIE, SESSION_SECONDS, ConsoleSession
from dispatcher.web.dependencies import PublisherHere, ServicesHere, publish_or_leave
from dispatcher.web.pages.console import FOLDER, page
from dispatcher.web.serializers import messages_per_second

router = APIRouter(prefix="/console", include_in_schema=False, default_response_class=HTMLResponse)

CAMPAIGNS_SHOWN = 20
TEXTS_SHOWN = 100
DOUBTS_SHOWN = 200
FAULTS_SHOWN = 20
REFRESH_SECONDS = 5
UNSETTLED_SECONDS_MAX = 60.0  # news that waits for longer needs a person
OVERDUE_MAX = 1_000  # more parked messages than this being late means that beat is away
ALIVE = frozenset({CampaignState.SCHEDULED, CampaignState.RUNNING})
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")
LANGUAGES = Literal["en", "nl", "fr", "de"]


# -- coming in ---------------------------------------------------------------------------------------------------------


async def _session(request: Request, services: ServicesHere) -> ConsoleSession:
    """Who is at the console. Nobody: on to the page for signing in."""
    found = session.resume(services.secret, request.app.state.keys, request.cookies.get(COOKIE, ""), services.clock())
    if found is None:
        to = quote(request.url.path, safe="/") if request.method == "GET" else "/console"
        raise HTTPException(HTTPStatus.SEE_OTHER, "sign in first", {"Location": f"/console/login?to={to}"})
    return found


Operator = Annotated[ConsoleSession, Depends(_session)]


@router.get("/login")
def login_page(to: str = "/console") -> str:
    """Ask for a key."""
    return page("login.html", to=_inside(to), wrong=False)


@router.post("/login")
def login(request: Request, services: ServicesHere, key: Annotated[str, Form()] = "", to: Annotated[str, Form()] = "") -> Response:
    """Open a session for a key with the right to it."""
    cookie = session.begin(services.secret, request.app.state.keys, key.strip(), services.clock())
    if cookie is None:
        return HTMLResponse(page("login.html", to=_inside(to), wrong=True), HTTPStatus.FORBIDDEN)
    answer = RedirectResponse(_inside(to), HTTPStatus.SEE_OTHER)
    answer.set_cookie(
        COOKIE,
        cookie,
        max_age=SESSION_SECONDS,
        path="/console",
        secure=services.public_url.startswith("https://"),
        httponly=True,
        samesite="strict",
    )
    return answer


@router.post("/logout")
def logout(operator: Operator, form_token: Annotated[str, Form()] = "") -> Response:
    """End the session in this browser."""
    same_page(operator, form_token)
    answer = RedirectResponse("/console/login", HTTPStatus.SEE_OTHER)
    answer.delete_cookie(COOKIE, path="/console")
    return answer


def _inside(to: str) -> str:
    """Where to go after signing in: a page of the console, wherever the link says."""
    return to if re.fullmatch(r"/console(/[A-Za-z0-9][A-Za-z0-9._:-]*)*", to) else "/console"


def same_page(operator: ConsoleSession, form_token: str) -> None:
    """Refuse a form that did not come from a page of this session."""
    if not session.same(operator.form_token, form_token):
        raise HTTPException(HTTPStatus.FORBIDDEN, "this form is not from a page of this session; go back, reload and try again")


@router.get("/style.css")
def style() -> Response:
    """How it looks."""
    return Response((FOLDER / "style.css").read_text(encoding="utf-8"), media_type="text/css")


# -- campaigns ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CampaignRow:
    """A campaign in the list."""

    campaign: Campaign
    balance: Balance
    per_second: float | None


class BalanceCache:
    """Balances counted lately: counting a large campaign takes a second, and the list asks for many, again and again."""

    def __init__(self) -> None:
        self._counted: dict[int, tuple[datetime, Balance]] = {}

    def of(self, connection: Connection, shown: list[Campaign], now: datetime) -> list[Balance]:
        """A balance for each, at most some seconds old, or a minute for one that has ended. What isn't shown is forgotten."""
        self._counted = {campaign.no: self._fresh(connection, campaign, now) for campaign in shown}
        return [self._counted[campaign.no][1] for campaign in shown]

    def _fresh(self, connection: Connection, campaign: Campaign, now: datetime) -> tuple[datetime, Balance]:
        age_max = timedelta(seconds=REFRESH_SECONDS - 1 if campaign.finished_at is None else 60)
        counted = self._counted.get(campaign.no)
        return counted if counted and now - counted[0] < age_max else (now, balance_module.balance(connection, campaign))


@router.get("")
def overview(operator: Operator, request: Request, services: ServicesHere, still: bool = False) -> str:
    """The newest campaigns, and what needs a person."""
    now = services.clock()
    balances: BalanceCache = request.app.state.balances
    with lend(services.pool) as connection:
        newest = lifecycle.newest(connection, CAMPAIGNS_SHOWN)
        counted = balances.of(connection, newest, now)
        found = metrics(connection, now)
    lines = [
        CampaignRow(campaign, balance, messages_per_second(campaign, balance, now))
        for campaign, balance in zip(newest, counted, strict=True)
    ]
    waited = (now - found.oldest_unsettled_at).total_seconds() if found.oldest_unsettled_at else 0.0
    return page(
        "overview.html",
        operator=operator,
        lines=lines,
        figures=found,
        late=waited > UNSETTLED_SECONDS_MAX,
        waited_seconds=waited,
        overdue=found.messages_overdue > OVERDUE_MAX,
        waiting=sum(each.standing in (ApprovalStatus.WAITING, ApprovalStatus.WITHDRAWN) for each in template_versions(services)),
        refresh_seconds=_refresh_seconds(still, newest),
    )


@router.get("/campaigns/{campaign_id}")
def campaign_page(operator: Operator, campaign_id: str, services: ServicesHere, still: bool = False) -> str:
    """A campaign: its balance, reasons and channels."""
    with lend(services.pool) as connection:
        campaign = _campaign(connection, campaign_id)
        balance = balance_module.balance(connection, campaign)
        faults = lifecycle.audience_errors(connection, campaign.no, FAULTS_SHOWN)
    return page(
        "campaign.html",
        operator=operator,
        campaign=campaign,
        balance=balance,
        faults=faults,
        per_second=messages_per_second(campaign, balance, services.clock()),
        refresh_seconds=_refresh_seconds(still, [campaign]),
    )


@router.post("/campaigns/{campaign_id}/{move}")
def move_campaign(
    operator: Operator,
    campaign_id: str,
    move: CampaignAction,
    services: ServicesHere,
    broker: PublisherHere,
    form_token: Annotated[str, Form()] = "",
) -> Response:
    """Release, pause, resume or cancel, then show the campaign as it then stands."""
    same_page(operator, form_token)
    with lend(services.pool) as connection:
        campaign = _campaign(connection, campaign_id)
    apply(services, campaign.id, move, operator.key.name)
    publish_or_leave(broker.publish, scheduler.due_chunks(services))
    return RedirectResponse(f"/console/campaigns/{campaign.id}", HTTPStatus.SEE_OTHER)


def _refresh_seconds(still: bool, shown: list[Campaign]) -> int | None:
    """When a page reloads itself: while something on it is under way, unless the reader wants it still."""
    return REFRESH_SECONDS if not still and any(campaign.state in ALIVE for campaign in shown) else None


def _campaign(connection: Connection, campaign_id: str) -> Campaign:
    campaign = lifecycle.find(connection, campaign_id) if ID.fullmatch(campaign_id) else None
    if campaign is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, "there is no such campaign")
    return campaign


# -- messages ----------------------------------------------------------------------------------------------------------


@router.get("/messages/{message_id}")
def message_page(
    operator: Operator, message_id: str, services: ServicesHere, language: Annotated[LANGUAGES, Query()] = "en"
) -> str:
    """A message: what became of it, the decision, the explanation, the provider's news."""
    with lend(services.pool) as connection:
        message = messages.find(connection, MessageId.parse(message_id))
        if message is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, "there is no such message")
        told = explain_message(services, connection, message, language)
    return page(
        "message.html",
        operator=operator,
        message=message,
        recorded=_recorded(message),
        told=told,
        language=language,
        languages=("en", "nl", "fr", "de"),
    )


def _recorded(message: Message) -> DecisionRecord | None:
    """The decision read back; None where there was none to take."""
    return from_record(message.decision) if "is" in message.decision else None


# -- what people answered ----------------------------------------------------------------------------------------------


@router.get("/texts")
def texts_page(operator: Operator, services: ServicesHere) -> str:
    """The answers that wait for a person."""
    return page(
        "texts.html",
        operator=operator,
        texts=customer_replies.waiting(services, TEXTS_SHOWN),
        kept=services.policy.retention.answers,
    )


@router.post("/texts/{text_id}")
def resolve_text(
    operator: Operator,
    text_id: str,
    services: ServicesHere,
    broker: PublisherHere,
    was: Annotated[Literal["stop", "nothing"], Form()],
    form_token: Annotated[str, Form()] = "",
) -> Response:
    """Say what an answer was, and take it off the list. One that somebody else took off is left as they said."""
    same_page(operator, form_token)
    customer_replies.resolve(services, broker.publish, text_id, f"console:{operator.key.name}", was == "stop")
    return RedirectResponse("/console/texts", HTTPStatus.SEE_OTHER)


@router.post("/texts/{text_id}/answer")
def answer_text(
    operator: Operator, text_id: str, services: ServicesHere, words: Annotated[str, Form()], form_token: Annotated[str, Form()] = ""
) -> Response:
    """Answer a text in free words, and take it off the list. What can't be sent is told, and left on it."""
    same_page(operator, form_token)
    objection = agent_reply.answer(services, text_id, words, f"console:{operator.key.name}")
    if objection is not None:
        raise HTTPException(HTTPStatus.CONFLICT, objection)
    return RedirectResponse("/console/texts", HTTPStatus.SEE_OTHER)


# -- what may have gone ------------------------------------------------------------------------------------------------


@router.get("/unresolved")
def unresolved_page(operator: Operator, services: ServicesHere) -> str:
    """The messages that may have gone, oldest first."""
    with lend(services.pool) as connection:
        lines = unresolved.list_unresolved(connection, None, DOUBTS_SHOWN)
    return page("unresolved.html", operator=operator, lines=lines)


@router.post("/unresolved/{message_id}")
def settle_message(
    operator: Operator,
    message_id: str,
    services: ServicesHere,
    was: Annotated[Literal["accepted", "failed"], Form()],
    form_token: Annotated[str, Form()] = "",
) -> Response:
    """Say what became of a message. One that news has reached meanwhile is left as it is."""
    same_page(operator, form_token)
    reconciliation.settle_by_hand(services, MessageId.parse(message_id), was == "accepted", f"console:{operator.key.name}")
    return RedirectResponse("/console/unresolved", HTTPStatus.SEE_OTHER)


@router.get("/search")
def search(operator: Operator, services: ServicesHere, q: str = "", campaign: str = "", recipient: str = "") -> Any:
    """Find a message or campaign by its id, or what a campaign had for one recipient."""
    q, campaign, recipient = q.strip(), campaign.strip(), recipient.strip()
    found: list[Message] = []
    with lend(services.pool) as connection:
        if place := _place_of(connection, q):
            return RedirectResponse(place, HTTPStatus.SEE_OTHER)
        if ID.fullmatch(campaign) and ID.fullmatch(recipient):
            found = messages.of_campaign(connection, campaign, recipient)
    if len(found) == 1:
        return RedirectResponse(f"/console/messages/{found[0].ref}", HTTPStatus.SEE_OTHER)
    return page("search.html", operator=operator, found=found, q=q, campaign=campaign, recipient=recipient)


def _place_of(connection: Connection, q: str) -> str | None:
    """The page of what has this id."""
    try:
        return f"/console/messages/{MessageId.parse(q)}"
    except BadMessageId:
        known = ID.fullmatch(q) and lifecycle.find(connection, q)
        return f"/console/campaigns/{q}" if known else None

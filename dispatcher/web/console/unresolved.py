"""The console's list of unresolved messages, and resolving them by hand."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Form, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from channels.base import Channel
from dispatcher.delivery import messages, reconciliation
from dispatcher.delivery.messages import UnresolvedFilter
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.principal import Entities, Right, require
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.web.console.login import check_form_token, confirm_first, operator_with
from dispatcher.web.console.session import ConsoleSession
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.pages.console import page

router = APIRouter(prefix="/unresolved", default_response_class=HTMLResponse)

MESSAGES_SHOWN = 200
Operator = Annotated[ConsoleSession, Depends(operator_with(Right.PEOPLE))]


@dataclass(frozen=True, slots=True)
class FilterFields:
    """The fields of the filter form as they were typed. An empty one excludes nothing; times are those of the reader."""

    campaign: str = ""
    channel: str = ""
    provider: str = ""
    since: str = ""
    until: str = ""

    def wanted(self, entities: Entities, zone: str) -> UnresolvedFilter:
        """The filter, within the entities that the person may see. Raises BadInput."""
        try:
            first, last = (
                datetime.fromisoformat(each).replace(tzinfo=ZoneInfo(zone)) if each else None for each in (self.since, self.until)
            )
            channel = Channel(self.channel) if self.channel else None
        except ValueError:
            raise BadInput(InputError("form", 0, "", "should have a known channel, and times such as 2026-11-23T11:00")) from None
        return UnresolvedFilter(self.campaign or None, channel, self.provider or None, first, last, entities)


def _query_fields(campaign: str = "", channel: str = "", provider: str = "", since: str = "", until: str = "") -> FilterFields:
    return FilterFields(campaign, channel, provider, since, until)


Text = Annotated[str, Form()]


def _form_fields(campaign: Text = "", channel: Text = "", provider: Text = "", since: Text = "", until: Text = "") -> FilterFields:
    return FilterFields(campaign, channel, provider, since, until)


@router.get("")
def unresolved_page(
    operator: Operator, services: ServicesDependency, fields: Annotated[FilterFields, Depends(_query_fields)]
) -> str:
    """The unresolved messages that match, oldest first, and how many there are."""
    wanted = fields.wanted(operator.principal.entities, operator.viewer.zone)
    return page(
        "unresolved.html",
        operator=operator,
        lines=messages.list_unresolved(services, wanted, MESSAGES_SHOWN),
        groups=messages.count_unresolved(services, wanted),
        fields=asdict(fields),
        channels=list(Channel),
        is_filtered=not wanted.is_empty,
    )


@router.post("")
def resolve_all(
    operator: Operator,
    services: ServicesDependency,
    was: Annotated[Literal["accepted", "failed"], Form()],
    fields: Annotated[FilterFields, Depends(_form_fields)],
    form_token: Text = "",
) -> Response:
    """Resolve all that match by hand. An empty filter resolves nothing."""
    check_form_token(operator, form_token)
    require(operator.principal, Right.OPERATE)
    wanted = fields.wanted(operator.principal.entities, operator.viewer.zone)
    if not wanted.is_empty:
        confirm_first(services, operator, "/console/unresolved")
        reconciliation.resolve_all_by_hand(services, wanted, was == "accepted", operator.principal.id)
    return RedirectResponse("/console/unresolved", HTTPStatus.SEE_OTHER)


@router.post("/{message_id}")
def resolve(
    operator: Operator,
    message_id: str,
    services: ServicesDependency,
    was: Annotated[Literal["accepted", "failed"], Form()],
    form_token: Annotated[str, Form()] = "",
) -> Response:
    """Resolve a message by hand. One that a provider event has resolved meanwhile does not change."""
    check_form_token(operator, form_token)
    require(operator.principal, Right.OPERATE)
    principal = operator.principal
    reconciliation.resolve_by_hand(services, MessageId.parse(message_id), was == "accepted", principal.id, principal.entities)
    return RedirectResponse("/console/unresolved", HTTPStatus.SEE_OTHER)

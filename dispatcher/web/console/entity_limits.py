"""What of the state of the system somebody sees who is limited to entities: not the campaigns and schedules of others."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol, TypeVar

from dispatcher.campaigns import overview, schedules
from dispatcher.domain.errors import UnknownSchedule
from dispatcher.domain.principal import Entities, Principal, Right
from dispatcher.maintenance.standstills import Standstill
from dispatcher.runtime.services import Services

OF_CAMPAIGNS = frozenset({Standstill.CAMPAIGN_NOT_STARTED, Standstill.CAMPAIGN_IDLE})
TECHNICAL = (Right.METRICS, Right.AUDIT)  # operations, administration, compliance and audit: who can act on what a provider says
OF_CUSTOMERS = frozenset({"deleted_unread"})  # also for those who read what customers write
SCHEDULE, WEBHOOK = "schedule:", "webhook:"  # how the sources of these alerts begin


class Standing(Protocol):
    """A standstill, or the alert about one."""

    @property
    def kind(self) -> str: ...

    @property
    def subject(self) -> str: ...


class Raised(Protocol):
    """An alert that something raised."""

    @property
    def provider(self) -> str: ...

    @property
    def code(self) -> str: ...


S = TypeVar("S", bound=Standing)
R = TypeVar("R", bound=Raised)


def visible_standstills(services: Services, entities: Entities, found: Sequence[S]) -> list[S]:
    """Those that are not about a campaign of another entity."""
    return [
        each
        for each in found
        if entities is None or each.kind not in OF_CAMPAIGNS or overview.find(services, each.subject, entities) is not None
    ]


def visible_alerts(services: Services, principal: Principal, raised: Sequence[R]) -> list[R]:
    """Those that this person can act on; not those about a schedule of another entity, nor about an endpoint, which gets
    the events of all."""
    return [each for each in raised if _concerns(principal, each) and _is_visible(services, principal.entities, each.provider)]


def _concerns(principal: Principal, raised: Raised) -> bool:
    if raised.provider.startswith(SCHEDULE):
        return True
    rights = (*TECHNICAL, Right.INBOUND) if raised.code in OF_CUSTOMERS else TECHNICAL
    return any(principal.may(right) for right in rights)


def _is_visible(services: Services, entities: Entities, source: str) -> bool:
    if entities is None:
        return True
    if source.startswith(SCHEDULE):
        with suppress(UnknownSchedule):
            return bool(schedules.status(services, source.removeprefix(SCHEDULE), entities))
        return False
    return not source.startswith(WEBHOOK)

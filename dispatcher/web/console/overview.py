"""The console's first page: the newest campaigns, and what needs a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from dispatcher.campaigns.overview import Balance, BalanceCache, Campaign, newest_with_balance
from dispatcher.campaigns.template_approval import NOT_APPROVED, template_versions
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.errors import LedgerUnavailable
from dispatcher.domain.principal import Principal, Right
from dispatcher.maintenance.standstills import examine
from dispatcher.web.console.entity_limits import visible_alerts, visible_standstills
from dispatcher.web.console.live import LIVE
from dispatcher.web.console.login import Operator
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.pages.console import page
from dispatcher.web.serializers.campaigns import messages_per_second

router = APIRouter(default_response_class=HTMLResponse)

CAMPAIGNS_SHOWN = 20
REFRESH_SECONDS = 5
CHANGING = frozenset({CampaignState.SCHEDULED, CampaignState.RUNNING})


@dataclass(frozen=True, slots=True)
class CampaignRow:
    """A campaign in the list."""

    campaign: Campaign
    balance: Balance
    per_second: float | None


@router.get("", dependencies=[LIVE])
def overview_page(operator: Operator, request: Request, services: ServicesDependency, still: bool = False) -> str:
    """The newest campaigns, and what needs a person."""
    now = services.clock()
    balances: BalanceCache = request.app.state.balances
    newest = newest_with_balance(services, balances, CAMPAIGNS_SHOWN, operator.principal.entities)
    condition = examine(services)
    figures = condition.counts
    if figures is None:
        raise LedgerUnavailable("the database does not answer")
    return page(
        "overview.html",
        operator=operator,
        lines=[CampaignRow(each.campaign, each.balance, messages_per_second(each.campaign, each.balance, now)) for each in newest],
        figures=figures,
        findings=visible_standstills(services, operator.principal.entities, condition.findings),
        alerts=visible_alerts(services, operator.principal, figures.alerts),
        may_submit=operator.principal.may(Right.CAMPAIGNS),
        to_release=[each.campaign for each in newest if _may_release(operator.principal, each.campaign)],
        waiting=sum(version.status in NOT_APPROVED for version in template_versions(services)),
        refresh_seconds=refresh_seconds(still, [each.campaign for each in newest]),
    )


def _may_release(principal: Principal, campaign: Campaign) -> bool:
    """Whether a campaign waits for this person: its submitter is not the second person."""
    waits = campaign.state is CampaignState.AWAITING_RELEASE and campaign.submitted_by != principal.id
    return waits and principal.may(Right.RELEASE, campaign.spec.entity)


def refresh_seconds(still: bool, shown: Sequence[Campaign]) -> int | None:
    """When the page reloads itself: while a campaign on it can change, unless the reader turned that off."""
    return REFRESH_SECONDS if not still and any(campaign.state in CHANGING for campaign in shown) else None

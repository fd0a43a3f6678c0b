"""Campaigns as people look at them: one with its balance, the newest, the rows that could not be read, the whole as CSV."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from dispatcher.ledger.campaigns import balance, csv_export, lifecycle
from dispatcher.ledger.campaigns.balance import Balance
from dispatcher.ledger.campaigns.lifecycle import Campaign
from dispatcher.ledger.connection import Connection, lend
from dispatcher.runtime.services import Services

__all__ = ["Balance", "BalanceCache", "Campaign", "CampaignStatus", "export_csv", "find", "newest", "status", "unreadable_rows"]
__all__ += ["newest_with_balance"]

BALANCE_SECONDS_RUNNING = 4.0
BALANCE_SECONDS_ENDED = 60.0


@dataclass(frozen=True, slots=True)
class CampaignStatus:
    """A campaign and the states of its audience."""

    campaign: Campaign
    balance: Balance


def find(services: Services, campaign_id: str) -> Campaign | None:
    """The campaign of this id."""
    with lend(services.pool) as connection:
        return lifecycle.find(connection, campaign_id)


def newest(services: Services, limit: int) -> list[Campaign]:
    """The newest campaigns, newest first."""
    with lend(services.pool) as connection:
        return lifecycle.newest(connection, limit)


def status(services: Services, campaign_id: str) -> CampaignStatus | None:
    """A campaign with its balance."""
    with lend(services.pool) as connection:
        campaign = lifecycle.find(connection, campaign_id)
        return CampaignStatus(campaign, balance.balance(connection, campaign)) if campaign else None


def unreadable_rows(services: Services, campaign: Campaign, limit: int) -> list[tuple[int, str, str]]:
    """Audience rows that could not be read: (line, field, what is wrong)."""
    with lend(services.pool) as connection:
        return lifecycle.audience_errors(connection, campaign.no, limit)


def export_csv(services: Services, campaign: Campaign, write: Callable[[bytes], object]) -> None:
    """Stream one CSV line per recipient to `write`."""
    with lend(services.pool) as connection:
        csv_export.campaign_csv(connection, campaign, write)


class BalanceCache:
    """Recent balances by campaign number: counting a large campaign takes a second, and the console asks for many every 5 s."""

    def __init__(self) -> None:
        self._counted: dict[int, tuple[datetime, Balance]] = {}

    def of(self, connection: Connection, campaigns: list[Campaign], now: datetime) -> list[Balance]:
        """A balance for each: at most 4 s old, or a minute for a campaign that has ended. Forgets all others."""
        self._counted = {campaign.no: self._fresh(connection, campaign, now) for campaign in campaigns}
        return [self._counted[campaign.no][1] for campaign in campaigns]

    def _fresh(self, connection: Connection, campaign: Campaign, now: datetime) -> tuple[datetime, Balance]:
        age_max = timedelta(seconds=BALANCE_SECONDS_RUNNING if campaign.finished_at is None else BALANCE_SECONDS_ENDED)
        counted = self._counted.get(campaign.no)
        return counted if counted and now - counted[0] < age_max else (now, balance.balance(connection, campaign))


def newest_with_balance(services: Services, cache: BalanceCache, limit: int) -> list[CampaignStatus]:
    """The newest campaigns, each with its balance."""
    with lend(services.pool) as connection:
        campaigns = lifecycle.newest(connection, limit)
        balances = cache.of(connection, campaigns, services.clock())
    return [CampaignStatus(campaign, counted) for campaign, counted in zip(campaigns, balances, strict=True)]

"""Campaigns as people look at them: with balances, unreadable rows, and an export of all messages."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import TextIOWrapper
from tempfile import SpooledTemporaryFile
from typing import Any

from dispatcher.domain.principal import Entities
from dispatcher.ledger.campaigns import balance, csv_export, edits, lifecycle
from dispatcher.ledger.campaigns.balance import Balance
from dispatcher.ledger.campaigns.edits import CampaignEdit
from dispatcher.ledger.campaigns.lifecycle import ALL_CAMPAIGNS, Campaign, CampaignFilter
from dispatcher.ledger.connection import Connection, lend
from dispatcher.runtime.services import Services

__all__ = [
    "Balance",
    "BalanceCache",
    "Campaign",
    "CampaignEdit",
    "CampaignFilter",
    "CampaignStatus",
    "export_csv",
    "export_json",
    "find",
    "newest",
    "status",
    "unreadable_rows",
]
__all__ += ["newest_with_balance"]

SPOOL_BYTES = 8_000_000  # kept in memory; what is larger goes to a temporary file
BALANCE_SECONDS_RUNNING = 4.0
BALANCE_SECONDS_ENDED = 60.0


@dataclass(frozen=True, slots=True)
class CampaignStatus:
    """A campaign and the states of its audience."""

    campaign: Campaign
    balance: Balance
    edits: tuple[CampaignEdit, ...] = ()


def find(services: Services, campaign_id: str, entities: Entities = None) -> Campaign | None:
    """The campaign of this id, where it is one of these entities."""
    with lend(services.pool) as connection:
        return lifecycle.find(connection, campaign_id, entities)


def newest(services: Services, limit: int, wanted: CampaignFilter = ALL_CAMPAIGNS) -> list[Campaign]:
    """The newest campaigns that match, newest first."""
    with lend(services.pool) as connection:
        return lifecycle.newest(connection, limit, wanted)


def status(services: Services, campaign_id: str, entities: Entities = None) -> CampaignStatus | None:
    """A campaign with its balance, where it is one of these entities."""
    with lend(services.pool) as connection:
        campaign = lifecycle.find(connection, campaign_id, entities)
        if campaign is None:
            return None
        counted = balance.balance(connection, campaign)
        return CampaignStatus(campaign, counted, tuple(edits.of_campaign(connection, campaign.no)))


def unreadable_rows(services: Services, campaign: Campaign, limit: int) -> list[tuple[int, str, str]]:
    """Audience rows that could not be read: (line, field, what is wrong)."""
    with lend(services.pool) as connection:
        return lifecycle.audience_errors(connection, campaign.no, limit)


def export_csv(services: Services, campaign: Campaign, write: Callable[[bytes], object]) -> None:
    """Stream one CSV line per recipient to `write`."""
    with lend(services.pool) as connection:
        csv_export.campaign_csv(connection, campaign, write)


def export_json(services: Services, campaign: Campaign, write: Callable[[bytes], object]) -> None:
    """Stream one JSON array to `write`, with the columns of `export_csv`; empty values are null.

    A large export goes through a file, so that neither the database waits for a slow reader nor the memory grows.
    """
    with SpooledTemporaryFile(SPOOL_BYTES) as spool:
        with lend(services.pool) as connection:
            csv_export.campaign_csv(connection, campaign, spool.write, for_spreadsheets=False)
        spool.seek(0)
        write(b"[")
        for number, row in enumerate(csv.DictReader(TextIOWrapper(spool, encoding="utf-8", newline=""))):
            write((",\n" if number else "").encode() + json.dumps(_json_row(row), ensure_ascii=False).encode())
        write(b"]\n")


def _json_row(row: Mapping[str, str]) -> dict[str, Any]:
    updated_at = datetime.fromisoformat(row["updated_at"]).isoformat() if row["updated_at"] else None
    values = {name: value or None for name, value in row.items()}
    return {**values, "line": int(row["line"]), "attempts": int(row["attempts"] or 0), "updated_at": updated_at}


class BalanceCache:
    """Recent balances by campaign number: counting a large campaign takes a second, and the console asks for many every 5 s."""

    def __init__(self) -> None:
        self._counted: dict[int, tuple[datetime, Balance]] = {}

    def of(self, connection: Connection, campaigns: list[Campaign], now: datetime) -> list[Balance]:
        """A balance for each: at most 4 s old, or a minute for a campaign that has ended. Forgets those that are older."""
        fresh = {campaign.no: self._fresh(connection, campaign, now) for campaign in campaigns}
        oldest = now - timedelta(seconds=BALANCE_SECONDS_ENDED)
        self._counted = {**{no: each for no, each in self._counted.items() if each[0] > oldest}, **fresh}
        return [fresh[campaign.no][1] for campaign in campaigns]

    def _fresh(self, connection: Connection, campaign: Campaign, now: datetime) -> tuple[datetime, Balance]:
        age_max = timedelta(seconds=BALANCE_SECONDS_RUNNING if campaign.finished_at is None else BALANCE_SECONDS_ENDED)
        counted = self._counted.get(campaign.no)
        return counted if counted and now - counted[0] < age_max else (now, balance.balance(connection, campaign))


def newest_with_balance(services: Services, cache: BalanceCache, limit: int, entities: Entities = None) -> list[CampaignStatus]:
    """The newest campaigns of these entities, each with its balance."""
    with lend(services.pool) as connection:
        campaigns = lifecycle.newest(connection, limit, CampaignFilter(entities=entities))
        balances = cache.of(connection, campaigns, services.clock())
    return [CampaignStatus(campaign, counted) for campaign, counted in zip(campaigns, balances, strict=True)]

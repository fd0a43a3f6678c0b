"""Balances of campaigns as events: counted apart from the work on messages, from a snapshot, so that nothing waits for them."""

from __future__ import annotations

from datetime import timedelta

from dispatcher.ledger.campaigns import balance_counts, lifecycle
from dispatcher.ledger.campaigns.balance import balance
from dispatcher.ledger.campaigns.balance_counts import DueCount
from dispatcher.ledger.connection import Connection, lend
from dispatcher.runtime.services import Services

PAUSE_SECONDS_MIN = 60.0  # between two counts of a campaign whose state stays the same
PAUSE_PER_SECOND = 50.0  # a count that takes 2 s is repeated after 100 s: so counting never costs more than 2 % of a processor
RUN_SECONDS = 2.0  # of one sweep, which has other work; the next one goes on


def count_balances(services: Services, seconds_max: float = RUN_SECONDS) -> int:
    """Write an event for each campaign that is due, for about so long at most; returns their number."""
    end = services.monotonic_clock() + seconds_max
    written = 0
    with lend(services.pool) as connection:
        for count in balance_counts.due(connection, services.clock()):
            written += _count(services, connection, count)
            if services.monotonic_clock() >= end:
                break
    return written


def _count(services: Services, connection: Connection, count: DueCount) -> bool:
    start, now = services.monotonic_clock(), services.clock()
    campaign = lifecycle.find(connection, count.campaign_id)
    if campaign is None:
        return False
    counted = balance(connection, campaign)
    pause = max(PAUSE_SECONDS_MIN, PAUSE_PER_SECOND * (services.monotonic_clock() - start))
    return balance_counts.enter(connection, count, campaign, counted, now, now + timedelta(seconds=pause))

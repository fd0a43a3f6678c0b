"""Which campaigns' balances have to be counted for an event, and the event itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.types.json import Jsonb

from dispatcher.ledger.campaigns.balance import Balance
from dispatcher.ledger.campaigns.lifecycle import Campaign
from dispatcher.ledger.connection import Connection


def mark(connection: Connection, numbers: Sequence[int], ids: Sequence[str], last: int) -> None:
    """Events about these campaigns, by number or id, were published; the last has this number. In the publisher's transaction.

    The publisher knows the campaigns anyway. So the statements that settle messages write nothing more than before.
    """
    connection.execute(
        """
        INSERT INTO campaign_balances AS b (campaign_no, changed)
        SELECT no, %(last)s FROM campaigns WHERE no = ANY(%(numbers)s) OR id = ANY(%(ids)s) ORDER BY no
        ON CONFLICT (campaign_no) DO UPDATE SET changed = excluded.changed
        """,
        {"numbers": list(numbers), "ids": list(ids), "last": last},
    )


@dataclass(frozen=True, slots=True)
class DueCount:
    """A campaign whose balance has to be counted, and the event up to which the count will be good at least."""

    campaign_no: int
    campaign_id: str
    changed: int


def due(connection: Connection, now: datetime) -> list[DueCount]:
    """The campaigns that have changed since their last count, first those whose own state did: these do not wait."""
    rows = connection.execute(
        """
        SELECT c.no, c.id, b.changed FROM campaign_balances b JOIN campaigns c ON c.no = b.campaign_no
        WHERE b.changed > b.counted AND c.fanned_out AND (b.next_count_at <= %(now)s OR b.state IS DISTINCT FROM c.state)
        ORDER BY b.state IS NOT DISTINCT FROM c.state, b.next_count_at, c.no
        """,
        {"now": now},
    )
    return [DueCount(*row) for row in rows]


def enter(
    connection: Connection, count: DueCount, campaign: Campaign, balance: Balance, now: datetime, next_count_at: datetime
) -> bool:
    """Write the event of a balance that was counted at this time; False where another process has written a later one."""
    with connection.transaction():
        is_newest = connection.execute(
            "UPDATE campaign_balances SET counted = %s, state = %s, next_count_at = %s WHERE campaign_no = %s AND counted < %s",
            (count.changed, campaign.state, next_count_at, campaign.no, count.changed),
        ).rowcount
        if is_newest:
            change = [
                campaign.id,
                campaign.state,
                campaign.spec.entity,
                sum(balance.states.values()),
                campaign.invalid,
                balance.states,
                balance.reasons,
                balance.channels,
                balance.variants,
            ]
            connection.execute("INSERT INTO outbox (kind, at, changes) VALUES ('balance', %s, %s)", (now, Jsonb([change])))
    return bool(is_newest)

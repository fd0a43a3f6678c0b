"""Campaigns that should make progress and do not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from dispatcher.ledger.connection import Connection


@dataclass(frozen=True, slots=True)
class IdleCampaign:
    """A campaign, and since when nothing of it happens that is due."""

    id: str
    since: datetime


def idle_campaigns(connection: Connection, now: datetime) -> list[IdleCampaign]:
    """Running campaigns with due chunks, each with the time since when nobody has worked on it, the longest wait first.

    A worker that claims sets `touched_at` later than `published_at` and `repeats` to 0. A chunk that is published again because it
    seems lost counts `repeats`: that is no progress. So does the first publication count, but only since the campaign began.
    Chunks that are done count as well: with a rate, each is done before the next one is published. `due_at` alone is no measure,
    because all chunks of a campaign that waited for its release are due at once, and with a rate go one after the other.
    """
    rows = connection.execute(
        """
        SELECT c.id, greatest(
            coalesce(max(k.touched_at) FILTER (WHERE k.repeats = 0 OR k.touched_at > k.published_at), min(k.due_at)), c.started_at,
            (SELECT max(d.done_at) FROM chunks d WHERE d.period = c.period AND d.campaign_no = c.no))
        FROM campaigns c JOIN chunks k ON k.period = c.period AND k.campaign_no = c.no
        WHERE c.state = 'running' AND k.done_at IS NULL AND k.due_at <= %s GROUP BY c.no ORDER BY 2, 1
        """,
        (now,),
    )
    return [IdleCampaign(campaign_id, since) for campaign_id, since in rows]


def overdue_campaigns(connection: Connection, now: datetime) -> list[IdleCampaign]:
    """Scheduled campaigns with a complete audience whose time has come, the longest wait first."""
    rows = connection.execute(
        """
        SELECT id, coalesce((spec->>'send_at')::timestamptz, created_at) FROM campaigns
        WHERE state = 'scheduled' AND fanned_out AND coalesce((spec->>'send_at')::timestamptz, created_at) <= %s ORDER BY 2, 1
        """,
        (now,),
    )
    return [IdleCampaign(campaign_id, since) for campaign_id, since in rows]

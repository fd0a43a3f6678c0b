"""Campaigns by the time at which they start, for the calendar."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from dispatcher.domain.campaign import CampaignState, Spec
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.spec_codec import spec_from_json

PLANNED_MAX = 1_000


@dataclass(frozen=True, slots=True)
class PlannedCampaign:
    """A campaign and when it starts, or has started."""

    id: str
    state: CampaignState
    at: datetime
    audience: int
    spec: Spec


def between(connection: Connection, begin: datetime, end: datetime) -> list[PlannedCampaign]:
    """The campaigns that start from `begin` to before `end`, in order. One without a time starts when it is submitted; cancelled
    ones are left out."""
    rows = connection.execute(
        """
        SELECT id, state, at, (SELECT coalesce(sum(size), 0)::int FROM chunks k WHERE k.period = c.period AND k.campaign_no = c.no),
               spec
        FROM (SELECT *, coalesce(started_at, greatest((spec->>'send_at')::timestamptz, created_at)) AS at FROM campaigns) c
        WHERE at >= %s AND at < %s AND state <> 'cancelled' ORDER BY at, id LIMIT %s
        """,
        (begin, end, PLANNED_MAX),
    ).fetchall()
    return [PlannedCampaign(row[0], CampaignState(row[1]), row[2], row[3], spec_from_json(row[4])) for row in rows]

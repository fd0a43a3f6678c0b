"""Delivery reports of campaigns by the minute. They are counted when they are applied: to count them later takes long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from dispatcher.domain.campaign_results import Measure, Occurrences
from dispatcher.ledger.campaigns.lifecycle import Campaign
from dispatcher.ledger.connection import Connection


@dataclass(frozen=True, slots=True)
class CountedReport:
    """A message of a campaign was delivered, read or complained about, at the time that the provider names."""

    campaign_no: int
    measure: Measure
    at: datetime


def add(connection: Connection, reports: Sequence[CountedReport]) -> None:
    """Add these reports, each of which changed its message. In one order, so that two processes cannot deadlock."""
    counts = Counter((each.campaign_no, each.measure, each.at.replace(second=0, microsecond=0)) for each in reports)
    if not counts:
        return
    campaigns, measures, minutes = zip(*counts, strict=True)
    connection.execute(
        """
        INSERT INTO report_minutes AS r (campaign_no, measure, minute, messages)
        SELECT * FROM unnest(%s::bigint[], %s::text[], %s::timestamptz[], %s::int[]) ORDER BY 1, 2, 3
        ON CONFLICT (campaign_no, measure, minute) DO UPDATE SET messages = r.messages + excluded.messages
        """,
        (list(campaigns), list(measures), list(minutes), list(counts.values())),
    )


def by_minute(connection: Connection, campaign: Campaign) -> list[Occurrences]:
    """The reports of a campaign that were counted so."""
    rows = connection.execute("SELECT measure, minute, messages FROM report_minutes WHERE campaign_no = %s", (campaign.no,))
    return [Occurrences(Measure(measure), minute, messages) for measure, minute, messages in rows]

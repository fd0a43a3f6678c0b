"""Conversions of campaigns: written once for each person and goal, with the first time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from dispatcher.ledger.campaigns.lifecycle import Campaign
from dispatcher.ledger.connection import Connection


@dataclass(frozen=True, slots=True)
class Conversion:
    """A recipient reached a goal."""

    recipient_id: str
    goal: str
    at: datetime


@dataclass(frozen=True, slots=True)
class ConversionCounts:
    """What became of a batch: `new` persons and goals, rows about `known` ones, rows about people who are not in the campaign."""

    new: int
    known: int
    not_in_audience: int


def add(connection: Connection, campaign: Campaign, conversions: Sequence[Conversion]) -> ConversionCounts:
    """Write the conversions of people who have a message of the campaign or are in its control group; nothing about others.

    Sorted, so that two imports at once lock rows in one order.
    """
    row = connection.execute(
        """
        WITH given AS (
            SELECT goal, recipient_id, min(at) AS at, count(*) AS rows
            FROM unnest(%(recipients)s::text[], %(goals)s::text[], %(times)s::timestamptz[]) AS g (recipient_id, goal, at)
            GROUP BY 1, 2
        ), mine AS (
            SELECT g.*, v.campaign_no IS NOT NULL AS is_known
            FROM given g LEFT JOIN conversions v ON (v.campaign_no, v.goal, v.recipient_id) = (%(no)s, g.goal, g.recipient_id)
            WHERE EXISTS (
                SELECT FROM messages m
                WHERE m.period = %(period)s AND m.campaign_no = %(no)s AND m.recipient_id = g.recipient_id)
        ), written AS (
            INSERT INTO conversions AS v (campaign_no, goal, recipient_id, at)
            SELECT %(no)s, goal, recipient_id, at FROM mine ORDER BY goal, recipient_id
            ON CONFLICT (campaign_no, goal, recipient_id) DO UPDATE SET at = excluded.at WHERE v.at > excluded.at
        )
        SELECT count(*) FILTER (WHERE NOT is_known), coalesce(sum(rows), 0)::int FROM mine
        """,
        {
            "no": campaign.no,
            "period": campaign.period,
            "recipients": [each.recipient_id for each in conversions],
            "goals": [each.goal for each in conversions],
            "times": [each.at for each in conversions],
        },
    ).fetchone()
    new, rows = row or (0, 0)
    return ConversionCounts(new, rows - new, len(conversions) - rows)

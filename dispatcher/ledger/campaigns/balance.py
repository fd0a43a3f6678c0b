"""Campaigns in the ledger: their states, their balance, and the specs that their jobs share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dispatcher.domain.message import State
from dispatcher.ledger.campaigns.lifecycle import Campaign
from dispatcher.ledger.connection import Connection


@dataclass(frozen=True, slots=True)
class Balance:
    """Where an audience stands. `states` adds up to the audience; `channels` counts legs, and so may not."""

    states: Mapping[State, int]
    reasons: Mapping[str, int]
    channels: Mapping[str, Mapping[str, int]]
    variants: Mapping[str, Mapping[str, int]]  # decided messages, by the name of the variant


# One row per leg. A recipient with several legs counts once, in the state of the leg that got furthest (or still may).
_RANK = (
    State.READ,
    State.DELIVERED,
    State.ACCEPTED,
    State.CLAIMED,
    State.PENDING,
    State.WAITING,
    State.HELD,
    State.UNRESOLVED,
    State.COMPLAINED,
    State.BOUNCED,
    State.FAILED,
    State.DEAD,
    State.CANCELLED,
    State.HELD_OUT,
    State.EXPIRED,
    State.REFUSED,
)


_LEGS = """
    FROM messages m JOIN chunks k ON k.period = m.period AND k.chunk = m.chunk
    WHERE m.period = %(period)s AND k.period = %(period)s AND k.campaign_no = %(no)s
"""


def balance(connection: Connection, campaign: Campaign) -> Balance:
    """Where each recipient of the audience stands, from one snapshot. Those without a message yet are pending."""
    names = {"period": campaign.period, "no": campaign.no, "ranked": [state.value for state in _RANK]}
    if campaign.spec.route == "first" and campaign.spec.fallback_after_seconds is None:
        heads = f"SELECT m.state, m.reason, count(*) AS n {_LEGS} GROUP BY 1, 2"
    else:
        heads = f"""
            SELECT state, reason, count(*) AS n FROM (
                SELECT DISTINCT ON (m.chunk, m.row) m.state, m.reason {_LEGS}
                ORDER BY m.chunk, m.row, array_position(%(ranked)s::text[], m.state)
            ) head GROUP BY 1, 2
        """
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        audience = _audience(connection, campaign)
        counted = connection.execute(heads, names).fetchall()
        legs = connection.execute(f"SELECT m.channel, m.state, count(*) {_LEGS} GROUP BY 1, 2", names).fetchall()
        variants = _variants(connection, campaign, names)
    states = dict.fromkeys(State, 0)
    reasons: dict[str, int] = {}
    for state, reason, count in counted:
        states[State(state)] += count
        if reason:
            reasons[reason] = reasons.get(reason, 0) + count
    states[State.PENDING] += audience - sum(states.values())
    channels: dict[str, dict[str, int]] = {}
    for channel, state, count in legs:
        if channel:
            channels.setdefault(channel, {})[state] = count
    return Balance(states, dict(sorted(reasons.items(), key=lambda item: -item[1])), channels, variants)


def _variants(connection: Connection, campaign: Campaign, names: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """States by variant, for a campaign that has any: the decision says which template was this person's."""
    if not campaign.spec.variants:
        return {}
    counted: dict[str, dict[str, int]] = {name: {} for name, _ in campaign.spec.variants}
    name_of = {template: name for name, template in campaign.spec.variants}
    for template, state, count in connection.execute(
        f"SELECT m.decision->'job'->>1, m.state, count(*) {_LEGS} GROUP BY 1, 2", names
    ):
        if template in name_of:
            counted[name_of[template]][state] = count
    return counted


def _audience(connection: Connection, campaign: Campaign) -> int:
    row = connection.execute(
        "SELECT coalesce(sum(size), 0)::int FROM chunks WHERE period = %s AND campaign_no = %s",
        (campaign.period, campaign.no),
    ).fetchone()
    return int(row[0]) if row else 0

"""The balance of a campaign: the states of its audience, counted per recipient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dispatcher.domain.message import State
from dispatcher.ledger.campaigns.lifecycle import Campaign
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.decision_skeletons import template_in
from dispatcher.ledger.message_key import same_chunk


@dataclass(frozen=True, slots=True)
class Balance:
    """The states of an audience. `states` adds up to the audience; `channels` counts legs, so it may add up to more."""

    states: Mapping[State, int]
    reasons: Mapping[str, int]
    channels: Mapping[str, Mapping[str, int]]
    variants: Mapping[str, Mapping[str, int]]  # decided messages, by the name of the variant


# A recipient with several legs counts once, in the first of these states that a leg has: the leg that got furthest, or still may.
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


_LEGS = f"""
    FROM messages m JOIN chunks k ON {same_chunk("k", "m")}
    WHERE m.period = %(period)s AND k.period = %(period)s AND k.campaign_no = %(no)s
"""
_HEADS = f"""
    SELECT NULL, state, reason, count(*) FROM (
        SELECT DISTINCT ON (m.chunk, m.row) m.state, m.reason {_LEGS}
        ORDER BY m.chunk, m.row, array_position(%(ranked)s::text[], m.state)
    ) head GROUP BY 2, 3
"""


def balance(connection: Connection, campaign: Campaign) -> Balance:
    """Count the recipients of the audience by state, in one snapshot. Those without a message yet are pending."""
    parameters = {"period": campaign.period, "no": campaign.no, "ranked": [state.value for state in _RANK]}
    has_one_leg = campaign.spec.route == "first" and campaign.spec.fallback_after_seconds is None
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        audience = _audience(connection, campaign)
        legs = connection.execute(f"SELECT m.channel, m.state, m.reason, count(*) {_LEGS} GROUP BY 1, 2, 3", parameters).fetchall()
        heads = legs if has_one_leg else connection.execute(_HEADS, parameters).fetchall()
        variants = _variants(connection, campaign, parameters)
    states = dict.fromkeys(State, 0)
    reasons: dict[str, int] = {}
    for _, state, reason, count in heads:
        states[State(state)] += count
        if reason:
            reasons[reason] = reasons.get(reason, 0) + count
    states[State.PENDING] += audience - sum(states.values())
    channels: dict[str, dict[str, int]] = {}
    for channel, state, _, count in legs:
        if channel:
            by_state = channels.setdefault(channel, {})
            by_state[state] = by_state.get(state, 0) + count
    return Balance(states, dict(sorted(reasons.items(), key=lambda item: -item[1])), channels, variants)


def _variants(connection: Connection, campaign: Campaign, parameters: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Messages by variant and state, for a campaign with variants: the decision names the template that the recipient got."""
    if not campaign.spec.variants:
        return {}
    counted: dict[str, dict[str, int]] = {name: {} for name, _ in campaign.spec.variants}
    name_of = {template: name for name, template in campaign.spec.variants}
    for template, state, count in connection.execute(
        f"SELECT {template_in('m')}, m.state, count(*) {_LEGS} GROUP BY 1, 2", parameters
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

"""The results of a campaign: counts by group, over time, and of conversions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dispatcher.domain.campaign_results import (
    ACCEPTED,
    ATTEMPTED,
    DELIVERED,
    FAILED,
    Dimension,
    GoalCount,
    Measure,
    Occurrences,
    Tally,
)
from dispatcher.domain.message import State
from dispatcher.ledger.campaigns.lifecycle import Campaign
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.message_key import same_chunk


@contextmanager
def snapshot(connection: Connection) -> Iterator[None]:
    """A transaction in which all counts are of one moment."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield


@dataclass(frozen=True, slots=True)
class OptOutWindow:
    """The time in which an opt-out counts for the campaign. It is the same for both groups, else they could not be compared."""

    since: datetime
    until: datetime


_STATES: Mapping[str, Sequence[State]] = {
    "is_held_out": (State.HELD_OUT,),
    "is_refused": (State.REFUSED,),
    "is_attempted": ATTEMPTED,
    "is_accepted": ACCEPTED,
    "is_delivered": DELIVERED,
    "is_read": (State.READ,),
    "is_failed": FAILED,
    "is_complained": (State.COMPLAINED,),
}

# The name of a message's group; NULL where it is in none, because no channel was chosen, or another one than e-mail.
_GROUPS: Mapping[Dimension, str] = {
    Dimension.CHANNEL: "m.channel",
    Dimension.LANGUAGE: "coalesce(r.language, '')",
    Dimension.ENTITY: "coalesce(array_to_string(r.entities, ' + '), '')",
    Dimension.DOMAIN: "CASE WHEN m.channel = 'email' THEN coalesce(lower(split_part(r.email, '@', 2)), '') END",
}
_OF_RECIPIENTS = frozenset({Dimension.LANGUAGE, Dimension.ENTITY, Dimension.DOMAIN})
PER_MESSAGE = frozenset({Dimension.CHANNEL, Dimension.DOMAIN})

# Of a person's opt-outs, those that an import or an erasure wrote are no answer to a campaign. The index is on `recorded_at`.
_OPT_OUTS = """
    SELECT recipient_id, min(recorded_at) AS at FROM consent_events
    WHERE recorded_at >= %(since)s AND recorded_at < %(until)s AND source NOT IN ('import', 'erasure')
      AND (subject LIKE 'offer:%%' AND new_value = 'none' OR subject LIKE 'channel:%%' AND new_value = 'off'
           OR subject = 'objection:marketing' AND new_value = 'on')
    GROUP BY recipient_id
"""
_CONVERSIONS = "SELECT DISTINCT recipient_id FROM conversions WHERE campaign_no = %(no)s"

_COUNTS = """
    count(*), count(*) FILTER (WHERE is_held_out), count(*) FILTER (WHERE is_refused), count(*) FILTER (WHERE is_attempted),
    count(*) FILTER (WHERE is_accepted), count(*) FILTER (WHERE is_delivered), count(*) FILTER (WHERE is_read),
    count(*) FILTER (WHERE is_failed), count(*) FILTER (WHERE is_complained),
    count(o.recipient_id) FILTER (WHERE is_attempted), count(v.recipient_id) FILTER (WHERE is_attempted),
    count(o.recipient_id) FILTER (WHERE is_held_out), count(v.recipient_id) FILTER (WHERE is_held_out)
"""


@dataclass(frozen=True, slots=True)
class GroupTally:
    """The counts of one group. `template` tells variants apart, else it is empty; `name` is that of the group, if it has one."""

    template: str
    name: str | None
    tally: Tally


def tallies(connection: Connection, campaign: Campaign, window: OptOutWindow, by: Dimension | None = None) -> list[GroupTally]:
    """The counts by variant, and by one dimension more. Recipients without a decision so far are in no group.

    Everything comes from one scan of the campaign's messages, which is what takes the time. A recipient with several legs counts
    once, but for a dimension of messages each leg does. Language, companies and domain are those that the ledger has now.
    """
    statement = f"""
        SELECT f.template, f.name, {_COUNTS}
        FROM ({_facts(campaign, by)}) f
        LEFT JOIN ({_OPT_OUTS}) o ON o.recipient_id = f.recipient_id
        LEFT JOIN ({_CONVERSIONS}) v ON v.recipient_id = f.recipient_id
        GROUP BY 1, 2
    """
    rows = connection.execute(statement, _parameters(campaign, window))
    return [GroupTally(template, name, Tally(*counts)) for template, name, *counts in rows]


def has_one_leg(campaign: Campaign) -> bool:
    """Whether no recipient can have more than one message: then counts of messages are counts of recipients."""
    return campaign.spec.route == "first" and campaign.spec.fallback_after_seconds is None


def _facts(campaign: Campaign, by: Dimension | None) -> str:
    """One row for each recipient, or for each message where the dimension is one of messages."""
    group = _GROUPS.get(by, "NULL::text") if by else "NULL::text"
    template = "m.decision->'job'->>1" if campaign.spec.variants else "''"
    people = "LEFT JOIN recipients r ON r.id = m.recipient_id" if by in _OF_RECIPIENTS else ""
    flags = {name: f"m.state IN ({', '.join(repr(state.value) for state in states)})" for name, states in _STATES.items()}
    source = f"FROM messages m JOIN chunks k ON {same_chunk('k', 'm')} {people} WHERE {_MINE}"
    if by in PER_MESSAGE or has_one_leg(campaign):
        columns = ", ".join(f"{flag} AS {name}" for name, flag in flags.items())
        return f"SELECT m.recipient_id, coalesce({template}, '') AS template, {group} AS name, {columns} {source}"
    columns = ", ".join(f"bool_or({flag}) AS {name}" for name, flag in flags.items() if name not in _OF_ALL_LEGS)
    of_all = ", ".join(f"bool_and({_OF_ALL_LEGS[name]}) AND bool_or({flags[name]}) AS {name}" for name in _OF_ALL_LEGS)
    names = f"coalesce(min({template}), '') AS template, min({group}) AS name"
    return f"SELECT m.recipient_id, {names}, {columns}, {of_all} {source} GROUP BY m.chunk, m.row, m.recipient_id"


_MINE = "m.period = %(period)s AND k.period = %(period)s AND k.campaign_no = %(no)s"

# A recipient with several legs is refused, or failed, only where no leg did better.
_OF_ALL_LEGS = {
    "is_refused": "m.state = 'refused'",
    "is_failed": "m.state IN ('refused', 'expired', 'cancelled', 'failed', 'bounced', 'dead')",
}


def _parameters(campaign: Campaign, window: OptOutWindow) -> dict[str, Any]:
    return {"period": campaign.period, "no": campaign.no, "since": window.since, "until": window.until}


# -- over time ---------------------------------------------------------------------------------------------------------


def _minute(at: str) -> str:
    """The minute of a time. `date_bin` is faster than `date_trunc`."""
    return f"date_bin('1 minute', {at}, '2000-01-01 00:00+00')"


# Grouped by two times at once, so that the messages are read once: few groups, because the second is one of failures and refusals.
_CHANGES = f"""
    SELECT m.state, CASE WHEN m.state = ANY(%(accepted)s) THEN {_minute("coalesce(m.accepted_at, m.updated_at)")} END,
           CASE WHEN m.state = ANY(%(ended)s) THEN {_minute("m.updated_at")} END, count(*)
    FROM messages m JOIN chunks k ON {same_chunk("k", "m")} WHERE {_MINE} GROUP BY 1, 2, 3
"""
# By the times that the provider names, not by those when its reports came. A message that was read or complained about without a
# report of its delivery was delivered then.
_REPORTS = f"""
    WITH first AS MATERIALIZED (
        SELECT min(e.at) AS delivered, min(e.at) FILTER (WHERE e.kind = 'read') AS read,
               min(e.at) FILTER (WHERE e.kind = 'complained') AS complained
        FROM chunks k JOIN provider_events e ON {same_chunk("e", "k")}
        WHERE k.period = %(period)s AND e.period = %(period)s AND k.campaign_no = %(no)s
          AND e.kind IN ('delivered', 'read', 'complained')
        GROUP BY e.chunk, e.row, e.leg
    )
    SELECT 'delivered', {_minute("delivered")}, count(*) FROM first GROUP BY 2
    UNION ALL SELECT 'read', {_minute("read")}, count(*) FROM first WHERE read IS NOT NULL GROUP BY 2
    UNION ALL SELECT 'complained', {_minute("complained")}, count(*) FROM first WHERE complained IS NOT NULL GROUP BY 2
"""
_OPT_OUTS_OVER_TIME = f"""
    SELECT {_minute("o.at")}, count(*) FROM ({_OPT_OUTS}) o
    WHERE EXISTS (
        SELECT FROM messages m WHERE m.period = %(period)s AND m.campaign_no = %(no)s AND m.recipient_id = o.recipient_id
          AND m.state = ANY(%(attempted)s))
    GROUP BY 1
"""
_ENDED: Mapping[State, Measure] = {State.REFUSED: Measure.REFUSED, **dict.fromkeys(FAILED, Measure.FAILED)}


def occurrences(connection: Connection, campaign: Campaign, window: OptOutWindow) -> list[Occurrences]:
    """Messages by the minute in which they were accepted, delivered, read, refused and so on; opt-outs of the attempted.

    Deliveries, reads and complaints are the provider's reports: a message that a person or a look-up settled is not among them.
    """
    states = {"accepted": list(ACCEPTED), "ended": list(_ENDED), "attempted": list(ATTEMPTED)}
    parameters = {**_parameters(campaign, window), **states}
    counted: list[Occurrences] = []
    for state, accepted_at, ended_at, count in connection.execute(_CHANGES, parameters):
        if accepted_at is not None:
            counted.append(Occurrences(Measure.ACCEPTED, accepted_at, count))
        if ended_at is not None:
            counted.append(Occurrences(_ENDED[State(state)], ended_at, count))
    counted += [Occurrences(Measure(name), at, count) for name, at, count in connection.execute(_REPORTS, parameters)]
    rows = connection.execute(_OPT_OUTS_OVER_TIME, parameters)
    return [*counted, *(Occurrences(Measure.OPTED_OUT, at, count) for at, count in rows)]


# -- conversions -------------------------------------------------------------------------------------------------------


def goals(connection: Connection, campaign: Campaign) -> list[GoalCount]:
    """Conversions by goal: of the recipients to whom the campaign tried to send, and of its control group."""
    rows = connection.execute(
        """
        SELECT goal, count(*) FILTER (WHERE is_attempted), count(*) FILTER (WHERE is_held_out AND NOT is_attempted)
        FROM (
            SELECT v.goal, bool_or(m.state = ANY(%(attempted)s)) AS is_attempted, bool_or(m.state = 'held_out') AS is_held_out
            FROM conversions v
            JOIN messages m ON m.period = %(period)s AND m.campaign_no = %(no)s AND m.recipient_id = v.recipient_id
            WHERE v.campaign_no = %(no)s GROUP BY v.goal, v.recipient_id
        ) person GROUP BY goal ORDER BY goal
        """,
        {"no": campaign.no, "period": campaign.period, "attempted": list(ATTEMPTED)},
    )
    return [GoalCount(*row) for row in rows]

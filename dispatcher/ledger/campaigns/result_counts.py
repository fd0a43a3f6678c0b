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
from dispatcher.ledger.campaigns import report_counts
from dispatcher.ledger.campaigns.lifecycle import Campaign
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.decision_skeletons import template_in
from dispatcher.ledger.message_key import KEY, same_chunk


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
    "held_out": (State.HELD_OUT,),
    "refused": (State.REFUSED,),
    "attempted": ATTEMPTED,
    "accepted": ACCEPTED,
    "delivered": DELIVERED,
    "read": (State.READ,),
    "failed": FAILED,
    "complained": (State.COMPLAINED,),
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
_ATTRIBUTED = f"""
    SELECT m.recipient_id, min(g.recorded_at) AS at FROM opt_out_origins g JOIN messages m USING ({KEY})
    WHERE g.campaign_no = %(no)s AND g.recorded_at < %(until)s GROUP BY m.recipient_id
"""
_CONVERSIONS = "SELECT DISTINCT recipient_id FROM conversions WHERE campaign_no = %(no)s"


@dataclass(frozen=True, slots=True)
class GroupTally:
    """The counts of one group. `template` tells variants apart, else it is empty; `name` is that of the group, if it has one."""

    template: str
    name: str | None
    tally: Tally


@dataclass(frozen=True, slots=True)
class MessageCount:
    """Messages of one state and group, by the minutes in which they were accepted and in which they ended, if they did."""

    template: str
    name: str | None
    state: State
    accepted_at: datetime | None
    ended_at: datetime | None
    count: int


def has_one_leg(campaign: Campaign) -> bool:
    """Whether no recipient can have more than one message: then counts of messages are counts of recipients."""
    return campaign.spec.route == "first" and campaign.spec.fallback_after_seconds is None


def _minute(at: str) -> str:
    """The minute of a time. `date_bin` is faster than `date_trunc`."""
    return f"date_bin('1 minute', {at}, '2000-01-01 00:00+00')"


def messages(connection: Connection, campaign: Campaign, by: Dimension | None = None) -> list[MessageCount]:
    """The campaign's messages by group and time, from one scan, which is what takes the time: everything else is small.

    Few groups, because the second time is one of failures and refusals. Language, companies and domain are those that the ledger
    has now. Recipients without a decision so far are in no group.
    """
    rows = connection.execute(
        f"""
        SELECT {_template(campaign)}, {_name(by)}, m.state,
               CASE WHEN m.state = ANY(%(accepted)s) THEN {_minute("coalesce(m.accepted_at, m.updated_at)")} END,
               CASE WHEN m.state = ANY(%(ended)s) THEN {_minute("m.updated_at")} END, count(*)
        FROM messages m JOIN chunks k ON {same_chunk("k", "m")} {_people(by)} WHERE {_MINE} GROUP BY 1, 2, 3, 4, 5
        """,
        {"period": campaign.period, "no": campaign.no, "accepted": list(ACCEPTED), "ended": list(_ENDED)},
    )
    return [MessageCount(template, name, State(state), *rest) for template, name, state, *rest in rows]


def tallies(
    connection: Connection, campaign: Campaign, window: OptOutWindow, counted: Sequence[MessageCount], by: Dimension | None = None
) -> list[GroupTally]:
    """The counts by variant, and by one dimension more, with the answers of recipients. `counted`: the messages, by the same one.

    A recipient with several legs counts once, but for a dimension of messages each leg does.
    """
    if by in PER_MESSAGE or has_one_leg(campaign):
        found = [GroupTally(each.template, each.name, _tally(each.state, each.count)) for each in counted]
    else:
        found = _by_recipient(connection, campaign, by)
    has_control_group = any(each.tally.held_out for each in found)
    return found + _answers(connection, campaign, window, by, has_control_group)


def _tally(state: State, count: int) -> Tally:
    return Tally(recipients=count, **{name: count for name, states in _STATES.items() if state in states})


def _by_recipient(connection: Connection, campaign: Campaign, by: Dimension | None) -> list[GroupTally]:
    """Recipients with several legs: each counts where one of the legs got."""
    flags = {name: f"m.state IN ({', '.join(repr(state.value) for state in states)})" for name, states in _STATES.items()}
    columns = ", ".join(f"bool_or({flag}) AS {name}" for name, flag in flags.items() if name not in _OF_ALL_LEGS)
    of_all = ", ".join(f"bool_and({_OF_ALL_LEGS[name]}) AND bool_or({flags[name]}) AS {name}" for name in _OF_ALL_LEGS)
    counts = ", ".join(f"count(*) FILTER (WHERE {name})" for name in _STATES)
    rows = connection.execute(
        f"""
        SELECT template, name, count(*), {counts} FROM (
            SELECT min({_template(campaign)}) AS template, min({_name(by)}) AS name, {columns}, {of_all}
            FROM messages m JOIN chunks k ON {same_chunk("k", "m")} {_people(by)} WHERE {_MINE} GROUP BY m.chunk, m.row
        ) recipient GROUP BY 1, 2
        """,
        {"period": campaign.period, "no": campaign.no},
    )
    return [
        GroupTally(template, name, Tally(recipients=total, **dict(zip(_STATES, numbers, strict=True))))
        for template, name, total, *numbers in rows
    ]


def _answers(
    connection: Connection, campaign: Campaign, window: OptOutWindow, by: Dimension | None, has_control_group: bool
) -> list[GroupTally]:
    """Opt-outs and conversions by group, each from the recipients who did so: they are few.

    Opt-outs of all kinds in the window are needed for the comparison with a control group, which got no message to answer.
    """
    sources = {"converted": _CONVERSIONS}
    if campaign.results_recorded:
        sources["opted_out"] = f"SELECT recipient_id FROM ({_ATTRIBUTED}) g"
    if has_control_group or not campaign.results_recorded:
        sources["any_opt_out"] = f"SELECT recipient_id FROM ({_OPT_OUTS}) o"
    legs = "m.chunk, m.row, m.leg" if by in PER_MESSAGE else "m.chunk, m.row"
    found = []
    for what, people in sources.items():
        rows = connection.execute(
            f"""
            SELECT template, name, count(*) FILTER (WHERE is_attempted), count(*) FILTER (WHERE is_held_out AND NOT is_attempted)
            FROM (
                SELECT min({_template(campaign)}) AS template, min({_name(by)}) AS name,
                       bool_or(m.state = ANY(%(attempted)s)) AS is_attempted, bool_or(m.state = 'held_out') AS is_held_out
                FROM ({people}) a JOIN messages m ON m.recipient_id = a.recipient_id {_people(by)}
                WHERE m.period = %(period)s AND m.campaign_no = %(no)s GROUP BY {legs}
            ) answer GROUP BY 1, 2
            """,
            _parameters(campaign, window) | {"attempted": list(ATTEMPTED)},
        )
        found += [GroupTally(template, name, _answered(what, campaign, *numbers)) for template, name, *numbers in rows]
    return found


def _answered(what: str, campaign: Campaign, attempted: int, held_out: int) -> Tally:
    if what == "converted":
        return Tally(converted=attempted, held_out_converted=held_out)
    if what == "opted_out":
        return Tally(opted_out=attempted)
    of_campaign = 0 if campaign.results_recorded else attempted
    return Tally(opted_out=of_campaign, opted_out_in_window=attempted, held_out_opted_out=held_out)


def _template(campaign: Campaign) -> str:
    return f"coalesce({template_in('m')}, '')" if campaign.spec.variants else "''"


def _name(by: Dimension | None) -> str:
    return _GROUPS.get(by, "NULL::text") if by else "NULL::text"


def _people(by: Dimension | None) -> str:
    return "LEFT JOIN recipients r ON r.id = m.recipient_id" if by in _OF_RECIPIENTS else ""


_MINE = "m.period = %(period)s AND k.period = %(period)s AND k.campaign_no = %(no)s"

# A recipient with several legs is refused, or failed, only where no leg did better.
_OF_ALL_LEGS = {
    "refused": "m.state = 'refused'",
    "failed": "m.state IN ('refused', 'expired', 'cancelled', 'failed', 'bounced', 'dead')",
}


def _parameters(campaign: Campaign, window: OptOutWindow) -> dict[str, Any]:
    return {"period": campaign.period, "no": campaign.no, "since": window.since, "until": window.until}


# -- over time ---------------------------------------------------------------------------------------------------------


# For campaigns from before reports were counted as they come. By the times that the provider names, not by those when its reports
# came. A message that was read or complained about without a report of its delivery was delivered then.
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
_OPT_OUTS_OVER_TIME = """
    SELECT {minute}, count(*) FROM ({opt_outs}) o
    WHERE EXISTS (
        SELECT FROM messages m WHERE m.period = %(period)s AND m.campaign_no = %(no)s AND m.recipient_id = o.recipient_id
          AND m.state = ANY(%(attempted)s))
    GROUP BY 1
"""
_ENDED: Mapping[State, Measure] = {State.REFUSED: Measure.REFUSED, **dict.fromkeys(FAILED, Measure.FAILED)}


def occurrences(
    connection: Connection, campaign: Campaign, window: OptOutWindow, counted: Sequence[MessageCount]
) -> list[Occurrences]:
    """Messages by the minute in which they were accepted, delivered, read, refused and so on; opt-outs of the attempted.

    Deliveries, reads and complaints are the provider's reports: a message that a person or a look-up settled is not among them.
    """
    parameters = _parameters(campaign, window) | {"attempted": list(ATTEMPTED)}
    found: list[Occurrences] = []
    for each in counted:
        if each.accepted_at is not None:
            found.append(Occurrences(Measure.ACCEPTED, each.accepted_at, each.count))
        if each.ended_at is not None:
            found.append(Occurrences(_ENDED[each.state], each.ended_at, each.count))
    if campaign.results_recorded:
        found += report_counts.by_minute(connection, campaign)
    else:
        found += [Occurrences(Measure(name), at, count) for name, at, count in connection.execute(_REPORTS, parameters)]
    opt_outs = _ATTRIBUTED if campaign.results_recorded else _OPT_OUTS
    rows = connection.execute(_OPT_OUTS_OVER_TIME.format(minute=_minute("o.at"), opt_outs=opt_outs), parameters)
    return [*found, *(Occurrences(Measure.OPTED_OUT, at, count) for at, count in rows)]


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

"""The results of a campaign: totals, a time series, groups, the comparison of variants, and the effect against the control group.

Groups are compared by those to whom the campaign tried to send, whatever came of it. Who is in the control group is drawn before
that, and would have met the same failures. To compare only those whom a message reached would compare different people.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dispatcher.domain.campaign_results import OPT_OUT_DAYS, Dimension, GoalCount, Measure, Occurrences, Step, Tally
from dispatcher.domain.principal import Entities
from dispatcher.domain.proportions import Difference, Share, difference, pairwise_confidence, winner
from dispatcher.ledger.campaigns import lifecycle, result_counts
from dispatcher.ledger.campaigns.lifecycle import Campaign
from dispatcher.ledger.campaigns.result_counts import GroupTally, OptOutWindow
from dispatcher.ledger.connection import lend
from dispatcher.runtime.services import Services

OPT_OUTS = "opt_outs"  # the outcome that is known for both groups without an import
DOMAINS_SHOWN = 20
DOMAIN_MESSAGES_MIN = 10  # a domain with fewer may be one person's
CACHE_SECONDS_RUNNING = 9.0
CACHE_SECONDS_ENDED = 60.0
OTHER = "other"
UNKNOWN = "unknown"

# The longest series of each step: a longer one has the next step, so that a chart and its table can be read.
STEP_MAX = {Step.MINUTE: timedelta(hours=3), Step.HOUR: timedelta(days=10)}


@dataclass(frozen=True, slots=True)
class Point:
    """The counts of one interval of a time series, which begins at `at`."""

    at: datetime
    counts: Mapping[Measure, int]


@dataclass(frozen=True, slots=True)
class Group:
    """The counts of one channel, language, group of companies, domain or variant."""

    name: str
    tally: Tally


@dataclass(frozen=True, slots=True)
class Comparison:
    """Variants compared by one measure, `read` or `converted`. `winner` is None as long as no variant is better than all others.

    `confidence` is that of each single comparison, so that all together have 95 %.
    """

    measure: str
    shares: Mapping[str, Share]
    winner: str | None
    confidence: float


@dataclass(frozen=True, slots=True)
class Lift:
    """One outcome of the recipients to whom the campaign tried to send, and of its control group.

    `outcome` is `opt_outs`, or the goal of conversions. `difference` is None while one of the groups is empty.
    """

    outcome: str
    treated: Share
    control: Share
    difference: Difference | None


@dataclass(frozen=True, slots=True)
class CampaignResults:
    """The results of a campaign at one moment. `groups` is empty without a dimension."""

    campaign: Campaign
    counted_at: datetime
    total: Tally
    step: Step
    series: Sequence[Point]
    by: Dimension | None
    groups: Sequence[Group]
    comparison: Comparison | None
    lifts: Sequence[Lift]


def of_campaign(
    services: Services, campaign_id: str, by: Dimension | None = None, step: Step | None = None, entities: Entities = None
) -> CampaignResults | None:
    """The results of a campaign; None where no campaign of these entities has this id. Without a step, one that suits the length of
    the series."""
    now = services.clock()
    with lend(services.pool) as connection, result_counts.snapshot(connection):
        campaign = lifecycle.find(connection, campaign_id, entities)
        if campaign is None:
            return None
        window = _window(campaign, now)
        counted = result_counts.messages(connection, campaign, by)
        split = result_counts.tallies(connection, campaign, window, counted, by)
        counts_legs = by in result_counts.PER_MESSAGE and not result_counts.has_one_leg(campaign)
        people = result_counts.tallies(connection, campaign, window, counted) if counts_legs else split
        occurrences = result_counts.occurrences(connection, campaign, window, counted)
        goals = result_counts.goals(connection, campaign)
    variants = {name: _sum(each for each in people if each.template == template) for name, template in campaign.spec.variants}
    total = _sum(people)
    groups = [Group(name, tally) for name, tally in variants.items()] if by is Dimension.VARIANT else _groups(split, by)
    chosen, points = series(occurrences, step)
    comparison = compare_variants(variants)
    return CampaignResults(campaign, now, total, chosen, points, by, groups, comparison, lifts(total, goals))


class ResultsCache:
    """Recent results, for pages that many people open: counting a large campaign takes a quarter of a second."""

    def __init__(self) -> None:
        self._counted: dict[tuple[str, Dimension | None, Step | None], CampaignResults] = {}

    def of_campaign(
        self, services: Services, campaign_id: str, by: Dimension | None = None, step: Step | None = None
    ) -> CampaignResults | None:
        """As the function of this name, at most 9 s old, or a minute for a campaign that has ended."""
        now, key = services.clock(), (campaign_id, by, step)
        self._counted = {each: found for each, found in self._counted.items() if _is_recent(found, now)}
        found = self._counted.get(key) or of_campaign(services, campaign_id, by, step)
        if found is not None:
            self._counted[key] = found
        return found

    def forget(self, campaign_id: str) -> None:
        """Count the campaign anew when it is asked for next."""
        self._counted = {key: found for key, found in self._counted.items() if key[0] != campaign_id}


def _is_recent(found: CampaignResults, now: datetime) -> bool:
    age_max = CACHE_SECONDS_RUNNING if found.campaign.finished_at is None else CACHE_SECONDS_ENDED
    return now - found.counted_at < timedelta(seconds=age_max)


def _window(campaign: Campaign, now: datetime) -> OptOutWindow:
    return OptOutWindow(campaign.started_at or campaign.created_at, (campaign.finished_at or now) + timedelta(days=OPT_OUT_DAYS))


def _sum(groups: Iterable[GroupTally]) -> Tally:
    return sum((each.tally for each in groups), Tally())


def _groups(split: Sequence[GroupTally], by: Dimension | None) -> list[Group]:
    """The groups, largest first. Small domains are one group: the name of one could name a person."""
    tallies: dict[str, Tally] = {}
    for each in split:
        if each.name is not None:
            tallies[each.name] = tallies.get(each.name, Tally()) + each.tally
    groups = [Group(name or UNKNOWN, tally) for name, tally in tallies.items()]
    groups.sort(key=lambda group: (-group.tally.recipients, group.name))
    if by is not Dimension.DOMAIN:
        return groups
    shown = [group for group in groups[:DOMAINS_SHOWN] if group.tally.recipients >= DOMAIN_MESSAGES_MIN]
    rest = sum((group.tally for group in groups[len(shown) :]), Tally())
    return [*shown, Group(OTHER, rest)] if rest.recipients else shown


def series(occurrences: Sequence[Occurrences], step: Step | None = None) -> tuple[Step, list[Point]]:
    """The time series from its first to its last interval, without gaps, and its step."""
    if not occurrences:
        return step or Step.MINUTE, []
    first, last = min(each.at for each in occurrences), max(each.at for each in occurrences)
    chosen = step or next((each for each, longest in STEP_MAX.items() if last - first <= longest), Step.DAY)
    counts: dict[datetime, dict[Measure, int]] = {}
    at, length = _begin(first, chosen), timedelta(**{f"{chosen}s": 1})
    while at <= last:
        counts[at] = {}
        at += length
    for each in occurrences:
        interval = counts[_begin(each.at, chosen)]
        interval[each.measure] = interval.get(each.measure, 0) + each.count
    return chosen, [Point(at, counted) for at, counted in counts.items()]


def _begin(at: datetime, step: Step) -> datetime:
    """When the interval of a moment begins, in UTC."""
    at = at.astimezone(UTC).replace(second=0, microsecond=0)
    if step is Step.MINUTE:
        return at
    return at.replace(minute=0) if step is Step.HOUR else at.replace(hour=0, minute=0)


def compare_variants(variants: Mapping[str, Tally]) -> Comparison | None:
    """The comparison of variants by conversions, where there are any, else by reads. None with fewer than two variants."""
    if len(variants) < 2:
        return None
    measure = "converted" if any(tally.converted for tally in variants.values()) else "read"
    shares = {name: Share(getattr(tally, measure), tally.attempted) for name, tally in variants.items()}
    return Comparison(measure, shares, winner(shares), pairwise_confidence(len(shares)))


def lifts(total: Tally, goals: Sequence[GoalCount]) -> list[Lift]:
    """Each goal and the opt-outs, of the treated and of the control group; nothing without a control group."""
    if not total.held_out:
        return []
    outcomes = [(goal.goal, goal.attempted, goal.held_out) for goal in goals]
    outcomes.append((OPT_OUTS, total.opted_out_in_window, total.held_out_opted_out))
    compared = [(name, Share(treated, total.attempted), Share(held, total.held_out)) for name, treated, held in outcomes]
    return [Lift(name, treated, control, difference(treated, control)) for name, treated, control in compared]

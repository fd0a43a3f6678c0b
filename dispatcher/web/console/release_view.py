"""What a campaign's page shows to whoever releases it: its dry runs, what has changed since, its template versions and its day."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dispatcher.campaigns import campaign_checks, draft_checks, template_history
from dispatcher.campaigns.calendar import CalendarEntry
from dispatcher.campaigns.campaign_checks import Outdated, StoredDryRun
from dispatcher.campaigns.overview import Campaign
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.message import Mode
from dispatcher.domain.principal import Principal, Right
from dispatcher.intake.errors import BadInput
from dispatcher.runtime.services import Services
from dispatcher.web.console.day_plan import QuietRow, quiet_on, same_day
from dispatcher.web.console.draft_forms import without_commands
from dispatcher.web.console.session import ConsoleSession

Obstacles = Mapping[str, Sequence[tuple[str, str, int]]]


@dataclass(frozen=True, slots=True)
class VersionInUse:
    """The version of a template that a campaign was accepted with. `is_present`: the folder still has it; `before` is the version
    before it, "" for none."""

    name: str
    digest: str
    is_present: bool
    before: str


@dataclass(frozen=True, slots=True)
class ReleaseView:
    """The part of a campaign's page that is about its release. `runs` are its dry runs, newest first."""

    runs: Sequence[StoredDryRun]
    waits: bool
    may_run: bool
    may_see_examples: bool
    rows_max: int = campaign_checks.DRY_RUN_ROWS_MAX
    outdated: Sequence[Outdated] = ()
    obstacles: Obstacles = field(default_factory=dict)
    needs: Sequence[str] = ()
    seconds: float | None = None
    versions: Sequence[VersionInUse] = ()
    contract: str = ""  # the version that a tailored choice accepts; "" where no message of the campaign is tailored
    quiet: Sequence[QuietRow] = ()
    others: Sequence[CalendarEntry] = ()


def release_view(operator: ConsoleSession, services: Services, campaign: Campaign) -> ReleaseView:
    """What is shown of a campaign's release. What has changed, and the day, only while it waits."""
    runs, principal = campaign_checks.newest(services, campaign), operator.principal
    may_run = campaign_checks.can_check(campaign) and may_run_dry(principal, campaign)
    may_see = campaign_checks.can_check(campaign) and may_see_examples(principal, campaign)
    waits = campaign.state is CampaignState.AWAITING_RELEASE
    counts = runs[0].counts if runs else None
    start = max(campaign.spec.send_at or services.clock(), services.clock())
    return ReleaseView(
        runs=runs,
        waits=waits,
        may_run=may_run,
        may_see_examples=may_see,
        outdated=campaign_checks.outdated(services, campaign, runs[0]) if runs and may_run else (),
        obstacles=by_channel(counts["obstacles"]) if counts else {},
        needs=[without_commands(need) for need in counts["needs"]] if counts else (),
        seconds=draft_checks.seconds_at_rate(counts, campaign.spec.rate_per_second) if counts else None,
        versions=_versions(services, campaign) if waits else (),
        contract=_contract(services, campaign) if waits else "",
        quiet=quiet_on(services, campaign.spec.channels, start) if waits else (),
        others=[each for each in same_day(operator, services, start) if each.id != campaign.id] if waits else (),
    )


def may_run_dry(principal: Principal, campaign: Campaign) -> bool:
    """Whoever makes campaigns, or releases them."""
    return any(principal.may(right, campaign.spec.entity) for right in (Right.CAMPAIGNS, Right.RELEASE))


def may_see_examples(principal: Principal, campaign: Campaign) -> bool:
    """Whoever submitted the campaign has its rows. Whoever releases it has to see what is sent."""
    allowed = any(principal.may(right, campaign.spec.entity) for right in (Right.RELEASE, Right.PEOPLE))
    return allowed or is_submitter(principal, campaign)


def is_submitter(principal: Principal, campaign: Campaign) -> bool:
    """Whether this person submitted the campaign, and still makes campaigns of its entity."""
    return principal.id == campaign.submitted_by and principal.may(Right.CAMPAIGNS, campaign.spec.entity)


def by_channel(obstacles: Iterable[tuple[str, str, str, int]]) -> Obstacles:
    """What is against each channel, the most frequent first."""
    found = defaultdict(list)
    for channel, code, variable, count in obstacles:
        found[channel].append((code, variable, count))
    return dict(sorted(found.items()))


def _versions(services: Services, campaign: Campaign) -> list[VersionInUse]:
    digests = campaign_checks.template_digests(services, campaign)
    return [_version(services, name, digest) for name, digest in digests.items()]


def _version(services: Services, name: str, digest: str) -> VersionInUse:
    present = services.catalog[name].digest if name in services.catalog else ""
    try:
        known = [each.digest for each in template_history.history_of(services, name)]
    except BadInput:  # the template is gone, and the ledger has none of its versions
        known = []
    before = known[known.index(digest) + 1 :] if digest in known else []
    return VersionInUse(name, digest, digest == present, before[0] if before else "")


def _contract(services: Services, campaign: Campaign) -> str:
    templates = [services.catalog[name] for name in campaign.spec.templates if name in services.catalog]
    return services.policy.contract.version if any(Mode.TAILORED in each.info.modes for each in templates) else ""

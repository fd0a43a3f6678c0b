"""Dry runs of a submitted campaign that has not started, and examples of its messages: what its approver looks at.

A dry run of the draft goes with the campaign. Others are made of the rows that the ledger has. Only numbers are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum

from dispatcher.campaigns.draft_checks import DRY_RUN_ROWS_MAX, start_to_come
from dispatcher.campaigns.dry_run import (
    DryRunCounts,
    Observer,
    approval_needs,
    at_start,
    decide_chunks,
    dry_run_of,
    unobserved,
)
from dispatcher.campaigns.editing import EDITABLE_STATES
from dispatcher.campaigns.message_examples import EXAMPLE_ROWS_MAX, Example, ExampleCollector
from dispatcher.content import Template
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.ledger.campaigns import dry_runs, lifecycle
from dispatcher.ledger.campaigns.dry_runs import StoredDryRun
from dispatcher.ledger.campaigns.lifecycle import Campaign
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.delivery.chunks import Chunk, find_chunk, open_chunks
from dispatcher.runtime.services import Services
from dispatcher.runtime.template_versions import TemplateUnavailable

__all__ = ["DRY_RUN_ROWS_MAX", "Outdated", "StoredDryRun", "can_check", "examples", "newest", "outdated", "run", "template_digests"]

FRESH = timedelta(hours=1)
SHOWN_MAX = 5
CHANGED_MEANWHILE = "The campaign has changed while this dry run was made, so it was not kept."


class Outdated(StrEnum):
    """Why the figures of a dry run may not be those of the campaign as it now is."""

    POLICY = "policy"
    TEMPLATE = "template"
    AUDIENCE = "audience"
    TIME = "time"
    AGE = "age"  # customers change their choices all the time


def can_check(campaign: Campaign) -> bool:
    """Whether a dry run of it can be made: its audience is complete, and it is not running or over."""
    return campaign.state in EDITABLE_STATES and not campaign.is_loading


def newest(services: Services, campaign: Campaign) -> list[StoredDryRun]:
    """The newest dry runs of a campaign, newest first."""
    with lend(services.pool) as connection:
        return dry_runs.of_campaign(connection, campaign.no, SHOWN_MAX)


def template_digests(services: Services, campaign: Campaign) -> dict[str, str]:
    """The versions of the campaign's templates: name -> digest."""
    with lend(services.pool) as connection:
        return lifecycle.template_digests(connection, campaign.id)


def outdated(services: Services, campaign: Campaign, made: StoredDryRun) -> list[Outdated]:
    """What has changed since a dry run; empty where it is as good as new."""
    counts, spec = made.counts, campaign.spec
    is_whole = campaign.started_at is None and not counts["is_part"]  # of one that has started, the rest was counted
    changed = {
        Outdated.POLICY: made.policy != services.policy.digest,
        Outdated.TEMPLATE: made.templates != template_digests(services, campaign),
        Outdated.AUDIENCE: is_whole and counts["rows"] != campaign.audience + campaign.invalid,
        Outdated.TIME: (_moment(counts["as_of"]), _moment(counts["expires_at"])) != (spec.send_at, spec.expires_at),
        Outdated.AGE: services.clock() - made.made_at > FRESH,
    }
    return [each for each, is_so in changed.items() if is_so]


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def run(services: Services, campaign: Campaign, by: str) -> StoredDryRun:
    """Decide and render every message that the campaign would send, as at its start, and keep the counts. Raises BadInput."""
    templates, made_at = _templates(services, campaign), services.clock()
    counts, rows = _decide(services, campaign, DRY_RUN_ROWS_MAX)
    with lend(services.pool) as connection:
        needs = list(approval_needs(services, connection, campaign.spec, list(templates.values())))
    result = dry_run_of(services.policy, campaign.spec, counts, (rows, campaign.invalid), needs)
    digests = {name: template.digest for name, template in templates.items()}
    document = result.document(is_part=DRY_RUN_ROWS_MAX <= rows < campaign.audience)
    kept = StoredDryRun(made_at, by, services.policy.digest, digests, document)
    with lend(services.pool) as connection:
        present = lifecycle.find(connection, campaign.id)
        # Chunks that were sent or cancelled meanwhile are missing in the counts; rows and times may be others.
        if present is None or (present.state, present.release_mark) != (campaign.state, campaign.release_mark):
            raise BadInput(InputError("campaign", 0, "", CHANGED_MEANWHILE))
        dry_runs.add(connection, campaign.no, kept)
    return kept


def examples(services: Services, campaign: Campaign, with_profiles: bool) -> list[Example]:
    """One message for each language and channel, from the campaign's first rows that get one, as for a draft. Nothing is sent or
    stored. Raises BadInput."""
    templates, collector = _templates(services, campaign), ExampleCollector()
    _decide(services, campaign, EXAMPLE_ROWS_MAX, collector.keep)
    return collector.examples(services, templates, with_profiles)


def _templates(services: Services, campaign: Campaign) -> Mapping[str, Template]:
    """The campaign's templates by name, each in the version that it was accepted with."""
    if not can_check(campaign):
        raise BadInput(InputError("campaign", 0, "", f"no dry run can be made of a campaign that is {campaign.state}"))
    digests = template_digests(services, campaign)
    try:
        versions = services.versions.load(services.pool, services.policy, services.catalog, digests)
    except TemplateUnavailable as error:
        raise BadInput(InputError("campaign", 0, "template", str(error))) from None
    return {name: versions[digest] for name, digest in digests.items()}


def _decide(services: Services, campaign: Campaign, rows_max: int, observe: Observer = unobserved) -> tuple[DryRunCounts, int]:
    """The counts of the campaign's first rows, and the number of these."""
    start = start_to_come(services, campaign.spec.send_at)
    with lend(services.pool) as connection:
        counts = decide_chunks(at_start(services, start), connection, _chunks(connection, campaign, rows_max), start, observe)
    return counts, counts.states.total()


def _chunks(connection: Connection, campaign: Campaign, rows_max: int) -> Iterator[Chunk]:
    """The campaign's open chunks, as if its templates were approved: which approval is missing is listed beside the counts."""
    rows = 0
    first: Chunk | None = None
    for number, size in open_chunks(connection, campaign.period, campaign.no):
        if rows >= rows_max:
            return
        rows += size
        first = first or find_chunk(connection, campaign.period, number)
        if first is not None:
            yield replace(first, number=number, approved=dict.fromkeys(first.digests.values(), 0))

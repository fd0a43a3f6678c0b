"""The dry run of a draft, and examples of its messages from real rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import Any

from dispatcher.campaigns import drafts
from dispatcher.campaigns.drafts import Draft
from dispatcher.campaigns.dry_run import dry_run
from dispatcher.campaigns.message_examples import EXAMPLE_ROWS_MAX, Example, ExampleCollector
from dispatcher.intake.campaign import Submission
from dispatcher.runtime.services import Services
from dispatcher.runtime.template_versions import digests_of

DRY_RUN_ROWS_MAX = 100_000  # about a minute: a page waits for it


def run(services: Services, draft: Draft) -> Draft:
    """Decide and render every message of a draft as at its start, and store the counts. Raises BadInput."""
    submission = drafts.submission_of(services, draft)
    audience = islice(submission.audience, DRY_RUN_ROWS_MAX)
    made_at = services.clock()
    result = dry_run(services, replace(submission, audience=audience), start_to_come(services, submission.spec.send_at))
    counts = {
        **result.document(is_part=result.audience + result.invalid == DRY_RUN_ROWS_MAX),
        "as_of": draft.form.get("send_at"),
        "made_at": made_at.isoformat(),
        "policy": services.policy.digest,
        "templates": digests_of(submission.templates),
    }
    return drafts.save(services, replace(draft, dry_run=counts))


def start_to_come(services: Services, send_at: datetime | None) -> datetime | None:
    """The moment as at which a campaign is decided: its start, where that is to come."""
    return send_at if send_at is not None and send_at > services.clock() else None


def seconds_at_rate(counts: Mapping[str, Any], rate: float | None) -> float | None:
    """How long the messages of a dry run take at a rate; None without one."""
    return sum(counts["channels"].values()) / rate if rate else None


def examples(services: Services, draft: Draft, with_profiles: bool) -> list[Example]:
    """One message for each language and channel, from the first rows that get one. Nothing is sent or stored. Raises BadInput.

    Without `with_profiles`, only the row's own values are real: who uploaded the file has them already.
    """
    submission: Submission = drafts.submission_of(services, draft)
    audience, collector = islice(submission.audience, EXAMPLE_ROWS_MAX), ExampleCollector()
    start = start_to_come(services, submission.spec.send_at)
    dry_run(services, replace(submission, audience=audience), start, collector.keep)
    return collector.examples(services, services.catalog, with_profiles)

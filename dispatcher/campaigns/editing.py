"""Edit a campaign that does not run: its time, rate, expiry and priority; one rule for API and command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from dispatcher.domain.campaign import CampaignState, Spec
from dispatcher.domain.campaign_options import MATERIAL
from dispatcher.domain.canonical_json import canonical
from dispatcher.domain.errors import VersionConflict
from dispatcher.intake.campaign_edit import check_edited
from dispatcher.ledger.campaigns import edits
from dispatcher.ledger.campaigns.edits import CampaignEdit, LockedCampaign
from dispatcher.ledger.connection import lend
from dispatcher.ledger.maintenance import policies
from dispatcher.runtime.services import Services

EDITABLE_STATES = frozenset({CampaignState.SCHEDULED, CampaignState.AWAITING_RELEASE, CampaignState.PAUSED})
BURST_SECONDS = (
    60  # a chunk keeps the size that it got at the submission: it may have at most so many seconds' worth of a lower rate
)


@dataclass(frozen=True, slots=True)
class EditResult:
    """The result of an edit: the campaign's version, and why it was not possible, or None."""

    version: int
    refusal: str | None = None


def edit(
    services: Services, campaign_id: str, changes: Mapping[str, Any], actor: str, expected_version: int | None = None
) -> EditResult | None:
    """Change options of a campaign; None where no campaign has this id. What is so already is no edit.

    A change of time, rate or expiry voids a release, and whoever made it cannot release the campaign: the second person must
    have seen what is sent. Raises `BadInput`, `PolicyNotInForce`, and `VersionConflict` where the campaign has another version than
    expected.
    """
    now = services.clock()
    with lend(services.pool) as connection, connection.transaction():
        campaign = edits.lock(connection, campaign_id)
        if campaign is None:
            return None
        if expected_version not in (None, campaign.version):
            raise VersionConflict(campaign.version)
        changed = {name: value for name, value in changes.items() if getattr(campaign.spec, name) != value}
        if not changed:
            return EditResult(campaign.version)
        spec = replace(campaign.spec, **changed)
        if refusal := _refusal(campaign, spec, changed):
            return EditResult(campaign.version, refusal)
        policies.require_in_force(connection, services.policy.digest)
        check_edited(spec, changed, services.policy, now)
        values = {name: [_json(getattr(campaign.spec, name)), _json(value)] for name, value in changed.items()}
        entry = CampaignEdit(campaign.version + 1, now, actor, values)
        edits.write(connection, campaign.no, spec, entry, is_material=not MATERIAL.isdisjoint(changed))
        if not {"send_at", "rate_per_second"}.isdisjoint(changed):
            edits.reschedule(connection, campaign, _start(campaign, spec, now), _jobs_per_second(spec))
    return EditResult(campaign.version + 1)


def _refusal(campaign: LockedCampaign, spec: Spec, changed: Mapping[str, Any]) -> str | None:
    if campaign.is_loading:
        return "cannot edit a campaign whose audience is still being loaded"
    if campaign.state not in EDITABLE_STATES:
        return f"cannot edit a campaign that is {campaign.state}" + ("; pause it first" if campaign.state == "running" else "")
    if "send_at" in changed and campaign.started_at is not None:
        return "cannot change send_at of a campaign that has started"
    rate = _jobs_per_second(spec)
    if "rate_per_second" in changed and rate is not None and campaign.chunk_jobs_max > rate * BURST_SECONDS:
        least = campaign.chunk_jobs_max * spec.messages_per_job / BURST_SECONDS
        return f"cannot lower rate_per_second below {least:g}: its parts have up to {campaign.chunk_jobs_max} recipients"
    return None


def _start(campaign: LockedCampaign, spec: Spec, now: datetime) -> datetime:
    return now if campaign.started_at is not None else max(spec.send_at or now, now)


def _jobs_per_second(spec: Spec) -> float | None:
    return None if spec.rate_per_second is None else spec.rate_per_second / spec.messages_per_job


def _json(value: Any) -> Any:
    """A value as JSON has it."""
    return json.loads(json.dumps(canonical(value)))

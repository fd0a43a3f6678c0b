"""Release, pause, resume and cancel a campaign: one rule for command line, API and console.

An action says which state is wanted. A campaign that is in that state already needs no change, so the same call twice succeeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from dispatcher.domain.campaign import CampaignState
from dispatcher.ledger.campaigns import lifecycle
from dispatcher.ledger.campaigns.lifecycle import Campaign
from dispatcher.ledger.connection import Connection, lend
from dispatcher.runtime.services import Services


class CampaignAction(StrEnum):
    """What a person can do to a campaign."""

    RELEASE = "release"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class ActionResult:
    """A campaign after an action. `refusal` says why the action was not possible; None where the wanted state is reached."""

    campaign: Campaign
    refusal: str | None


CHANGED_BEFORE_RELEASE = "The campaign has changed since you opened this page, and was not released. Look at it as it is now."
_CHANGES: Mapping[CampaignAction, Callable[[Connection, str, datetime], bool]] = {
    CampaignAction.PAUSE: lifecycle.pause_by_id,
    CampaignAction.RESUME: lifecycle.resume,
    CampaignAction.CANCEL: lifecycle.cancel,
}
_WANTED_STATES: Mapping[CampaignAction, frozenset[CampaignState]] = {
    CampaignAction.RELEASE: frozenset({CampaignState.SCHEDULED, CampaignState.RUNNING}),
    CampaignAction.PAUSE: frozenset({CampaignState.PAUSED}),
    CampaignAction.RESUME: frozenset({CampaignState.SCHEDULED, CampaignState.RUNNING}),
    CampaignAction.CANCEL: frozenset({CampaignState.CANCELLED}),
}


def apply(services: Services, campaign_id: str, action: CampaignAction, actor: str, seen: str = "") -> ActionResult | None:
    """Apply an action to a campaign; None where no campaign has this id.

    `actor` is the name of the person or API key: only somebody other than the submitter can release a campaign. `seen` is the
    `release_mark` that this person saw: where the campaign has another one now, it is not released.
    """
    now = services.clock()
    with lend(services.pool) as connection:
        if action is CampaignAction.RELEASE:
            lifecycle.release(connection, campaign_id, actor, seen)
        else:
            _CHANGES[action](connection, campaign_id, now)
        campaign = lifecycle.find(connection, campaign_id)
    if campaign is None:
        return None
    if seen and campaign.state is CampaignState.AWAITING_RELEASE and campaign.release_mark != seen:
        return ActionResult(campaign, CHANGED_BEFORE_RELEASE)
    return ActionResult(campaign, _refusal(campaign, action))


def _refusal(campaign: Campaign, action: CampaignAction) -> str | None:
    if campaign.is_loading and action in (CampaignAction.PAUSE, CampaignAction.RELEASE):
        return f"cannot {action} a campaign whose audience is still being loaded; nothing is sent before it is complete"
    if campaign.state in _WANTED_STATES[action]:
        return None
    if action is CampaignAction.RELEASE and campaign.state is CampaignState.AWAITING_RELEASE:
        if campaign.version:
            return "who submitted or edited it cannot release it: somebody else has to"
        return f"it was submitted by {campaign.submitted_by or 'nobody known'}: somebody else has to release it"
    return f"cannot {action} a campaign that is {campaign.state}"

"""Releasing, pausing, resuming and cancelling, the same for the API and the console."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


_HOW: Mapping[CampaignAction, Callable[[Connection, str, datetime], bool]] = {
    CampaignAction.PAUSE: lifecycle.pause,
    CampaignAction.RESUME: lifecycle.resume,
    CampaignAction.CANCEL: lifecycle.cancel,
}
_LEADS_TO: Mapping[CampaignAction, frozenset[CampaignState]] = {
    CampaignAction.RELEASE: frozenset({CampaignState.SCHEDULED, CampaignState.RUNNING}),
    CampaignAction.PAUSE: frozenset({CampaignState.PAUSED}),
    CampaignAction.RESUME: frozenset({CampaignState.SCHEDULED, CampaignState.RUNNING}),
    CampaignAction.CANCEL: frozenset({CampaignState.CANCELLED}),
}


def apply(services: Services, campaign_id: str, move: CampaignAction, by: str) -> Campaign | None:
    """The campaign after the move, or as it was where the move can't be made; None when there is none.

    `by` is the name of whose key it is: a release takes somebody else than who submitted the campaign.
    """
    with lend(services.pool) as connection:
        if move is CampaignAction.RELEASE:
            lifecycle.release(connection, campaign_id, by, services.clock())
        else:
            _HOW[move](connection, campaign_id, services.clock())
        return lifecycle.find(connection, campaign_id)


def is_in_target_state(campaign: Campaign, move: CampaignAction) -> bool:
    """Whether the campaign now is where the move leads, just now or long since."""
    return campaign.state in _LEADS_TO[move]

"""Releasing, pausing, resuming and cancelling, the same for the API and the console."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum

from dispatcher.domain.campaign import CampaignState
from dispatcher.ledger.campaigns import lifecycle
from dispatcher.ledger.campaigns.lifecycle import Campaign
from dispatcher.ledger.connection import Connection, lend
from dispatcher.runtime.services import House


class Move(StrEnum):
    """What a person can do to a campaign."""

    RELEASE = "release"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"


_HOW: Mapping[Move, Callable[[Connection, str, datetime], bool]] = {
    Move.PAUSE: lifecycle.pause,
    Move.RESUME: lifecycle.resume,
    Move.CANCEL: lifecycle.cancel,
}
_LEADS_TO: Mapping[Move, frozenset[CampaignState]] = {
    Move.RELEASE: frozenset({CampaignState.SCHEDULED, CampaignState.RUNNING}),
    Move.PAUSE: frozenset({CampaignState.PAUSED}),
    Move.RESUME: frozenset({CampaignState.SCHEDULED, CampaignState.RUNNING}),
    Move.CANCEL: frozenset({CampaignState.CANCELLED}),
}


def make(house: House, campaign_id: str, move: Move, by: str) -> Campaign | None:
    """The campaign after the move, or as it was where the move can't be made; None when there is none.

    `by` is the name of whose key it is: a release takes somebody else than who submitted the campaign.
    """
    with lend(house.pool) as connection:
        if move is Move.RELEASE:
            lifecycle.release(connection, campaign_id, by, house.clock())
        else:
            _HOW[move](connection, campaign_id, house.clock())
        return lifecycle.find(connection, campaign_id)


def made(campaign: Campaign, move: Move) -> bool:
    """Whether the campaign now is where the move leads, just now or long since."""
    return campaign.state in _LEADS_TO[move]

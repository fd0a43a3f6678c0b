"""States and reasons in plain words, for people at the console. What customers are told stands in `dispatcher.policy.words`."""

from __future__ import annotations

from collections.abc import Mapping

from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.decision import Code
from dispatcher.domain.message import State

STATES: Mapping[State, str] = {
    State.PENDING: "not decided yet",
    State.CLAIMED: "being handed over",
    State.HELD: "kept back until the hour is right",
    State.WAITING: "the provider could not take it; tried again later",
    State.ACCEPTED: "the provider took it, no further news yet",
    State.DELIVERED: "arrived",
    State.READ: "read",
    State.BOUNCED: "came back",
    State.COMPLAINED: "reported as unwanted",
    State.FAILED: "can’t be delivered",
    State.UNRESOLVED: "may have gone; never sent again by a machine",
    State.REFUSED: "must not be sent",
    State.EXPIRED: "its time had passed",
    State.CANCELLED: "cancelled before it left",
    State.HELD_OUT: "control group, on purpose not contacted",
    State.DEAD: "attempts spent; can be replayed",
}

CAMPAIGN_STATES: Mapping[CampaignState, str] = {
    CampaignState.AWAITING_RELEASE: "waits until a second person releases it",
    CampaignState.SCHEDULED: "waits for its moment",
    CampaignState.RUNNING: "is being sent",
    CampaignState.PAUSED: "stands still; nothing of it leaves",
    CampaignState.FINISHED: "nothing is left to do",
    CampaignState.CANCELLED: "stopped for good",
}

REASONS: Mapping[str, str] = {
    Code.ERASED: "the person was erased",
    Code.UNKNOWN_RECIPIENT: "no recipient has this id",
    Code.CANCELLED: "the campaign was cancelled",
    Code.DUPLICATE: "the person is in the audience more than once",
    Code.EXPIRED: "too late to be of use",
    Code.OBJECTED: "the person objects to all marketing",
    Code.CHOICE_NONE: "the person chose no offers of this type",
    Code.NO_CHOICE: "the person made no choice for this type of offer",
    Code.MODE_NOT_ALLOWED: "the template is not written for what the person chose",
    Code.NO_BASIS: "the policy names no lawful basis for this",
    Code.MINOR: "under age",
    Code.AGE_UNKNOWN: "age unknown",
    Code.NO_CURRENT_ACCOUNT: "Kate Coins need a current account",
    Code.CHANNEL_OFF: "the person switched the channel off, or never on",
    Code.SUPPRESSED: "the address is banned: bounce, complaint or STOP",
    Code.NO_ADDRESS: "no address for the channel",
    Code.NO_OS_PERMISSION: "no device lets the app show notifications",
    Code.WITHHELD_VARIABLE: "the text asks for data that the person’s choice withholds",
    Code.MISSING_VARIABLE: "a variable that the text needs is missing",
    Code.CONTENT_GUARD: "the rendered text did not pass our own check",
    Code.TEMPLATE_NOT_APPROVED: "nobody approved the template as it was then",
    Code.HOUSEHOLD: "the person’s partner got it, and the campaign is for one per household",
    Code.HELD_OUT: "drawn into the control group",
    Code.FREQUENCY_CAPPED: "has had enough messages for now",
    Code.QUIET_HOURS: "quiet hours where the person lives",
    Code.FAULT: "a fault of ours; in doubt nothing is sent",
    "worker_lost": "its worker never came back, so it may have gone",
    "not_taken": "asked, the provider knew of no such message",
    "by_hand": "settled by a person",
}
PROVIDERS_OWN = "the provider’s own code"


def reason(code: str) -> str:
    """A reason code in words."""
    return REASONS.get(code, PROVIDERS_OWN)

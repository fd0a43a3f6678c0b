"""States and reasons in plain words, for people at the console. What customers are told stands in `dispatcher.policy.words`."""

from __future__ import annotations

from collections.abc import Mapping

from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.decision import ReasonCode
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
    ReasonCode.ERASED: "the person was erased",
    ReasonCode.UNKNOWN_RECIPIENT: "no recipient has this id",
    ReasonCode.CANCELLED: "the campaign was cancelled",
    ReasonCode.DUPLICATE: "the person is in the audience more than once",
    ReasonCode.EXPIRED: "too late to be of use",
    ReasonCode.OBJECTED: "the person objects to all marketing",
    ReasonCode.CHOICE_NONE: "the person chose no offers of this type",
    ReasonCode.NO_CHOICE: "the person made no choice for this type of offer",
    ReasonCode.MODE_NOT_ALLOWED: "the template is not written for what the person chose",
    ReasonCode.NO_BASIS: "the policy names no lawful basis for this",
    ReasonCode.MINOR: "under age",
    ReasonCode.AGE_UNKNOWN: "age unknown",
    ReasonCode.NO_CURRENT_ACCOUNT: "Kate Coins need a current account",
    ReasonCode.CHANNEL_OFF: "the person switched the channel off, or never on",
    ReasonCode.SUPPRESSED: "the address is banned: bounce, complaint or STOP",
    ReasonCode.NO_ADDRESS: "no address for the channel",
    ReasonCode.NO_OS_PERMISSION: "no device lets the app show notifications",
    ReasonCode.WITHHELD_VARIABLE: "the text asks for data that the person’s choice withholds",
    ReasonCode.MISSING_VARIABLE: "a variable that the text needs is missing",
    ReasonCode.CONTENT_GUARD: "the rendered text did not pass our own check",
    ReasonCode.TEMPLATE_NOT_APPROVED: "nobody approved the template as it was then",
    ReasonCode.HOUSEHOLD: "the person’s partner got it, and the campaign is for one per household",
    ReasonCode.HELD_OUT: "drawn into the control group",
    ReasonCode.FREQUENCY_CAPPED: "has had enough messages for now",
    ReasonCode.QUIET_HOURS: "quiet hours where the person lives",
    ReasonCode.FAULT: "a fault of ours; in doubt nothing is sent",
    "worker_lost": "its worker never came back, so it may have gone",
    "not_taken": "asked, the provider knew of no such message",
    "by_hand": "settled by a person",
}
PROVIDERS_OWN = "the provider’s own code"


def reason(code: str) -> str:
    """A reason code in words."""
    return REASONS.get(code, PROVIDERS_OWN)

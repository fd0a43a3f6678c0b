"""States and reasons in plain words, for operators. What customers read is in `dispatcher/policy/explanations/`."""

from __future__ import annotations

from collections.abc import Mapping

from dispatcher.campaigns.campaign_checks import Outdated
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.decision import ReasonCode
from dispatcher.domain.message import State
from dispatcher.maintenance.standstills import Standstill

STATES: Mapping[State, str] = {
    State.PENDING: "not decided yet",
    State.CLAIMED: "being sent",
    State.HELD: "deferred by our own rules until a given time",
    State.WAITING: "not sent; tried again at a given time",
    State.ACCEPTED: "accepted by the provider, no delivery report yet",
    State.DELIVERED: "arrived, by the provider’s report",
    State.READ: "seen by the recipient, by the provider’s report",
    State.BOUNCED: "accepted by the provider, later rejected by the address",
    State.COMPLAINED: "reported as spam by the recipient",
    State.FAILED: "cannot be delivered",
    State.UNRESOLVED: "may have been sent; the program does not send it again by itself",
    State.REFUSED: "not allowed to be sent",
    State.EXPIRED: "too late to be sent",
    State.CANCELLED: "cancelled before it was sent",
    State.HELD_OUT: "control group, not contacted on purpose",
    State.DEAD: "all attempts used; can be replayed",
}

PROBLEMS: Mapping[int, tuple[str, str]] = {  # by status of HTTP: what is the matter, and what one can do
    403: ("You may not do this", "If you need it for your work, ask an administrator of this program for the right."),
    404: ("There is nothing here", "It does not exist, or it belongs to an entity that you have no rights for."),
    409: ("Something has changed meanwhile", "Go back, look at it as it is now, and try again."),
    422: ("This cannot be used", "Nothing was saved. Go back and correct it."),
    503: ("The database does not answer", "Nothing was saved. Try again in a moment."),
}

CAMPAIGN_STATES: Mapping[CampaignState, str] = {
    CampaignState.AWAITING_RELEASE: "awaiting release by a second person",
    CampaignState.SCHEDULED: "scheduled, starts at its time",
    CampaignState.RUNNING: "running, messages are being sent",
    CampaignState.PAUSED: "paused, nothing is sent",
    CampaignState.FINISHED: "finished, nothing is left to do",
    CampaignState.CANCELLED: "cancelled, cannot be resumed",
}

REASONS: Mapping[str, str] = {
    ReasonCode.ERASED: "the person was erased",
    ReasonCode.UNKNOWN_RECIPIENT: "no recipient has this id",
    ReasonCode.CANCELLED: "the campaign was cancelled",
    ReasonCode.DUPLICATE: "the person is in the audience more than once",
    ReasonCode.EXPIRED: "its expiry time has passed",
    ReasonCode.OBJECTED: "the person objects to all marketing",
    ReasonCode.CHOICE_NONE: "the person chose no offers of this type",
    ReasonCode.NO_CHOICE: "the person made no choice for this type of offer",
    ReasonCode.MODE_NOT_ALLOWED: "the template does not allow the mode that the person chose",
    ReasonCode.NO_BASIS: "the policy names no lawful basis for this message",
    ReasonCode.MINOR: "the person is under age",
    ReasonCode.AGE_UNKNOWN: "the person’s age is unknown",
    ReasonCode.NO_CURRENT_ACCOUNT: "Kate Coins need a current account",
    ReasonCode.CHANNEL_OFF: "the person switched the channel off, or never on",
    ReasonCode.SUPPRESSED: "the address is suppressed: bounce, complaint or STOP",
    ReasonCode.NO_ADDRESS: "no address for the channel",
    ReasonCode.NO_OS_PERMISSION: "no device allows the app to show notifications",
    ReasonCode.WITHHELD_VARIABLE: "the text needs data that the person’s choice does not allow",
    ReasonCode.MISSING_VARIABLE: "a variable that the text needs is missing",
    ReasonCode.CONTENT_GUARD: "the rendered text did not pass the content guard",
    ReasonCode.TEMPLATE_NOT_APPROVED: "the template version was not approved",
    ReasonCode.WHATSAPP_NOT_APPROVED: "WhatsApp has not approved the text",
    ReasonCode.HOUSEHOLD: "the person’s partner got it, and the campaign sends one per household",
    ReasonCode.ONE_PER_ADDRESS: "another recipient with the same address got it, and a campaign sends one to an address",
    ReasonCode.GLOBAL_CONTROL_GROUP: "in the control group across campaigns",
    ReasonCode.HELD_OUT: "chosen at random for the control group",
    ReasonCode.FREQUENCY_CAPPED: "the person already got the maximum number of messages for now",
    ReasonCode.UNREAD_ANSWER: "a reply from the number waits to be read, and may be an opt-out",
    ReasonCode.QUIET_HOURS: "quiet hours where the person lives",
    ReasonCode.FAULT: "an error in this program, so nothing was sent",
    "worker_lost": "its worker was lost during the attempt, so it may have been sent",
    "ledger_restored": "the ledger was restored to an earlier moment, so it may have been sent",
    "not_taken": "the provider has no such message",
    "by_hand": "resolved by a person",
}
PROVIDERS_OWN = "the provider’s own code"


def reason(code: str) -> str:
    """A reason code in words."""
    return REASONS.get(code, PROVIDERS_OWN)


STANDSTILLS: Mapping[Standstill, str] = {
    Standstill.DATABASE: "The database does not answer",
    Standstill.BROKER: "The broker does not answer",
    Standstill.NOTHING_RUNS: "Nothing runs",
    Standstill.BEAT: "Beat is silent",
    Standstill.LANE: "A lane has no worker",
    Standstill.CAMPAIGN_NOT_STARTED: "A campaign has not started",
    Standstill.CAMPAIGN_IDLE: "A campaign makes no progress",
    Standstill.MESSAGES_OVERDUE: "Messages are overdue",
    Standstill.EVENTS_NOT_APPLIED: "Provider events are not applied",
    Standstill.OUTBOX: "Events are not published",
    Standstill.CHANNEL_STOPPED: "A channel is stopped",
    Standstill.LEDGER_RESTORED: "The ledger was restored, and nothing is sent",
    Standstill.POLICY_NOT_IN_FORCE: "Workers have another policy, and send nothing",
    Standstill.OPT_OUT_LATE: "An opt-out took effect too late",
    Standstill.OPT_OUT_NOT_MEASURED: "An opt-out way is not measured",
}

OUTDATED: Mapping[Outdated, str] = {
    Outdated.POLICY: "The policy has changed since this dry run: run it again.",
    Outdated.TEMPLATE: "The campaign was accepted with another version of its template than this dry run: run it again.",
    Outdated.AUDIENCE: "The audience has changed since this dry run: run it again.",
    Outdated.TIME: "The start or the end has been changed since this dry run: run it again.",
    Outdated.AGE: "This dry run is more than an hour old. Customers change their choices all the time: run it again.",
}

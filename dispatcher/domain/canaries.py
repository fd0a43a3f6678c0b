"""Canary recipients: who they are, through which ways they opt out, and what is measured. Pure.

A canary recipient belongs to the program. Its id begins with `canary:`, which no file, API call or job from outside may use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from channels.base import Channel

PREFIX = "canary:"
RESERVED = f"begins with {PREFIX}, which is reserved for canary recipients"


class OptOutWay(StrEnum):
    """A way in which a person can opt out."""

    ONE_CLICK = "one_click"
    PREFERENCE_CENTRE = "preference_centre"
    API = "api"
    STOP_REPLY = "stop_reply"
    PROVIDER_EVENT = "provider_event"
    BRANCH = "branch"


# The channels that an opt-out by this way closes, and so the channels on which its canary gets jobs.
CHANNELS: Mapping[OptOutWay, tuple[Channel, ...]] = {
    OptOutWay.ONE_CLICK: (Channel.EMAIL,),
    OptOutWay.PREFERENCE_CENTRE: (Channel.EMAIL, Channel.SMS, Channel.WHATSAPP, Channel.PUSH),
    OptOutWay.API: (Channel.EMAIL, Channel.SMS, Channel.WHATSAPP, Channel.PUSH),
    OptOutWay.STOP_REPLY: (Channel.SMS, Channel.WHATSAPP),
    OptOutWay.PROVIDER_EVENT: (Channel.EMAIL,),
    OptOutWay.BRANCH: (Channel.EMAIL, Channel.SMS, Channel.WHATSAPP, Channel.PUSH),
}
# The answer comes when the report is stored; the lane `inbound` applies it afterwards. All other ways answer after the commit.
ANSWERED_BEFORE_COMMIT = frozenset({OptOutWay.PROVIDER_EVENT})


class LagStage(StrEnum):
    """What is measured after an opt-out: the last claim, the last hand-off, the last arrival."""

    CLAIM = "claim"
    HAND_OFF = "hand_off"
    ARRIVAL = "arrival"


class RoundOutcome(StrEnum):
    """How a round ended."""

    MEASURED = "measured"
    NOT_MEASURED = "not_measured"


@dataclass(frozen=True, slots=True)
class OptOutLags:
    """Seconds from the answered opt-out to the last event of each stage after it; 0 where there was none.

    `awaits_arrivals`: an accepted message has no delivery report yet.
    """

    claim: float
    hand_off: float
    arrival: float
    awaits_arrivals: bool = False

    def is_late(self, way: OptOutWay, bound_seconds: float) -> bool:
        """Whether the promise is broken.

        Nothing arrives later than the bound. Where the answer follows the commit, nothing is claimed after it at all.
        """
        claimed_max = bound_seconds if way in ANSWERED_BEFORE_COMMIT else 0.0
        return self.claim > claimed_max or max(self.hand_off, self.arrival) > bound_seconds


def is_canary(recipient_id: str) -> bool:
    """Whether an id is that of a canary recipient."""
    return recipient_id.startswith(PREFIX)


def not_reserved(recipient_id: str) -> str:
    """The id of a recipient from outside. Raises `ValueError` for one that is reserved."""
    if is_canary(recipient_id):
        raise ValueError(RESERVED)
    return recipient_id


def canary_id(way: OptOutWay, made_at: datetime) -> str:
    """The id of a new canary recipient."""
    return f"{PREFIX}{way}:{made_at:%Y%m%d%H%M%S%f}"

"""What a campaign's results count. Pure: frozen types without input or output."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from dispatcher.domain.message import State

# States that contain an earlier one: a read message was delivered, and a complaint is about a message that was delivered.
ACCEPTED = (State.ACCEPTED, State.DELIVERED, State.READ, State.BOUNCED, State.COMPLAINED)
DELIVERED = (State.DELIVERED, State.READ, State.COMPLAINED)
FAILED = (State.FAILED, State.BOUNCED, State.DEAD)
ATTEMPTED = (*ACCEPTED, State.FAILED, State.DEAD, State.UNRESOLVED)

OPT_OUT_DAYS = 7  # after the end of a campaign: opt-outs until then are in its results


class Dimension(StrEnum):
    """What results are split by. Channel and domain count messages, all others recipients."""

    CHANNEL = "channel"
    LANGUAGE = "language"
    ENTITY = "entity"
    DOMAIN = "domain"
    VARIANT = "variant"


class Step(StrEnum):
    """The length of the intervals of a time series."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"


class Measure(StrEnum):
    """What is counted over time."""

    ACCEPTED = "accepted"
    DELIVERED = "delivered"
    READ = "read"
    FAILED = "failed"
    REFUSED = "refused"
    COMPLAINED = "complained"
    OPTED_OUT = "opted_out"


@dataclass(frozen=True, slots=True)
class Tally:
    """Recipients, or messages of one channel or domain, by what became of them.

    `attempted`: the program tried to send. `accepted`, `delivered` and `read` each contain the next. `opted_out` and `converted`
    are of the attempted; those of the control group (`held_out`) have fields of their own. `opted_out` counts opt-outs that came
    from a message of the campaign; `opted_out_in_window` and `held_out_opted_out` count all, so that the groups can be compared.
    """

    recipients: int = 0
    held_out: int = 0
    refused: int = 0
    attempted: int = 0
    accepted: int = 0
    delivered: int = 0
    read: int = 0
    failed: int = 0
    complained: int = 0
    opted_out: int = 0
    converted: int = 0
    held_out_opted_out: int = 0
    held_out_converted: int = 0
    opted_out_in_window: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Occurrences:
    """So many messages reached `measure` in the minute that begins at `at`."""

    measure: Measure
    at: datetime
    count: int


@dataclass(frozen=True, slots=True)
class GoalCount:
    """How many recipients reached a goal: of those to whom the campaign tried to send, and of the control group."""

    goal: str
    attempted: int
    held_out: int

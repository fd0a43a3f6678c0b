"""The complaint brake: pause a campaign that too many people complain about, or whose messages bounce too often.

`brake_verdict` is pure; the sweep calls `apply_brake`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from dispatcher.ledger.campaigns import complaint_brake
from dispatcher.ledger.connection import Connection
from dispatcher.policy.data import ComplaintBrake


@dataclass(frozen=True, slots=True)
class BrakeVerdict:
    """What the brake does to a campaign: pause it, or only leave the note."""

    pause: bool
    note: str


def brake_verdict(numbers: ComplaintBrake, taken: int, complained: int, bounced: int) -> BrakeVerdict | None:
    """Compare a campaign's shares of complaints and bounces with the policy's limits; None where all are below."""
    if taken < numbers.minimum:
        return None
    complaints, bounces = complained / taken, bounced / taken
    if complaints >= numbers.complaint_rate_pause:
        return BrakeVerdict(True, f"paused itself: {_share('complained', complaints, taken, numbers.complaint_rate_pause)}")
    if bounces >= numbers.bounce_rate_pause:
        return BrakeVerdict(True, f"paused itself: {_share('bounced', bounces, taken, numbers.bounce_rate_pause)}")
    if complaints >= numbers.complaint_rate_warn:
        return BrakeVerdict(False, f"warning: {_share('complained', complaints, taken, numbers.complaint_rate_warn)}")
    return None


def apply_brake(connection: Connection, numbers: ComplaintBrake, now: datetime) -> None:
    """Pause or warn each running campaign by its verdict; the campaign's note says why."""
    for rates in complaint_brake.campaign_rates(connection):
        verdict = brake_verdict(numbers, rates.taken, rates.complained, rates.bounced)
        if verdict is None:
            continue
        if verdict.pause:
            complaint_brake.stop(connection, rates, verdict.note, now)
        elif verdict.note != rates.note:
            complaint_brake.warn(connection, rates, verdict.note)


def _share(what: str, rate: float, taken: int, limit: float) -> str:
    return f"{rate:.2%} of {taken:,} messages {what}; the limit is {limit:.2%}"

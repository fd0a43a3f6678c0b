"""What follows an attempt, or a provider's later news. Pure: a table told in code, one error one action.

Two promises shape it. A message that may have gone is never sent again by a machine: silence costs one message, a
double costs trust. And news, which comes late, twice and out of order, never moves a message backwards.
"""

from __future__ import annotations

from dataclasses import dataclass

from dispatcher.policy.data import ComplaintBrake

# -- the complaint brake -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BrakeVerdict:
    """What the brake has to say of a campaign."""

    pause: bool
    note: str


def brake_verdict(numbers: ComplaintBrake, taken: int, complained: int, bounced: int) -> BrakeVerdict | None:
    """Whether a campaign should stop itself, or only be warned, by its share of complaints and bounces; None if all is well."""
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


def _share(what: str, rate: float, taken: int, limit: float) -> str:
    return f"{rate:.2%} of {taken:,} messages {what}; the limit is {limit:.2%}"

"""When a message is tried again: backoff after an error, throttling, and the hints that providers give in later events. Pure.

The numbers are in `[retry]` of `policy.toml` (`RetryPolicy`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta

from channels.base import RetryHint
from dispatcher.domain.message import MessageStatus
from dispatcher.policy.data import RetryPolicy

STALE_SECONDS = 2.0  # what a claim's deadline kept back is tried again within this time
THROTTLE_SECONDS_MAX = 86_400.0  # after a provider says "in a year", the next attempt is tomorrow
JITTER = 0.25  # share of the waiting time added at random, so that retries do not all come at once


def backoff_seconds(attempts: int, random: Callable[[], float], numbers: RetryPolicy) -> float:
    """Exponential backoff with full jitter: evenly drawn between 0 and a bound that doubles with each spent attempt."""
    doublings = min(attempts, 60)  # beyond that the cap applies anyway, and the float would overflow
    return random() * min(numbers.cap_seconds, numbers.base_seconds * 2.0**doublings)


def throttle_seconds(requested: float | None, numbers: RetryPolicy) -> float:
    """How long a throttled message waits: as long as the provider says, within a day, else as long as the policy says."""
    if requested is None or math.isnan(requested) or requested < 0:
        return numbers.throttle_seconds
    return min(requested, THROTTLE_SECONDS_MAX)


def retry_at(
    retry_hint: RetryHint | None,
    status: MessageStatus,
    fallback_seconds: float | None,
    now: datetime,
    random: Callable[[], float],
    numbers: RetryPolicy,
) -> datetime | None:
    """When a message that reached nobody is sent again; None where it is not, or has no attempts left.

    A fallback channel that is due sooner comes before a retry. `fallback_seconds` is when it is due; None: there is none.
    """
    returns = len(status.returned)
    if retry_hint is None or status.cancelled or returns >= retry_hint.times_max or status.attempts >= numbers.attempts_max:
        return None
    seconds = retry_hint.wait_seconds * 2.0**returns * (1 + JITTER * random())
    if fallback_seconds is not None and seconds > fallback_seconds:
        return None
    return now + timedelta(seconds=seconds)

"""What follows an attempt, or a provider's later news. Pure: a table told in code, one error one action.

Two promises shape it. A message that may have gone is never sent again by a machine: silence costs one message, a
double costs trust. And news, which comes late, twice and out of order, never moves a message backwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from channels.base import (
    BadAddress,
    Channel,
    ChannelError,
    EventKind,
    Misconfigured,
    NoAddress,
    OptedOut,
    Outbound,
    Receipt,
    Rejected,
    Result,
    RetryHint,
    Throttled,
    Unavailable,
    Uncertain,
)
from dispatcher.domain.campaign import Spec
from dispatcher.domain.message import MessageStatus, State
from dispatcher.policy.data import RetryPolicy

THROTTLE_SECONDS_MAX = 86_400.0  # a provider that says "in a year" is asked again tomorrow


JITTER = 0.25  # share of the waiting time added at random, so that a crowd does not come back as a crowd


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of a message after one attempt.

    `reason` is the provider's code; `until` is set exactly when the state is waiting. `suppress` bans the address on
    its channel, and `everywhere` on all that share its kind; `opt_out` records a no of the person, `stop_channel` halts the
    channel until our settings are mended.
    """

    state: State
    reason: str | None = None
    until: datetime | None = None
    receipt: str | None = None
    attempt_spent: bool = True
    suppress: bool = False
    opt_out: bool = False
    stop_channel: bool = False
    everywhere: bool = False


def conclude(result: Result, attempts: int, now: datetime, random: Callable[[], float], numbers: RetryPolicy) -> Outcome:
    """The action for one result. `attempts` counts those spent before this one; `dice` gives a number from 0 to 1."""
    match result:
        case Receipt(name):
            return Outcome(State.ACCEPTED, receipt=name)
        case Throttled():
            seconds = _throttle_seconds(result.retry_after_seconds, numbers) * (1 + JITTER * random())
            return Outcome(State.WAITING, result.code, now + timedelta(seconds=seconds), attempt_spent=False)
        case Misconfigured():
            until = now + timedelta(seconds=numbers.stopped_seconds)
            return Outcome(State.WAITING, result.code, until, attempt_spent=False, stop_channel=True)
        case Unavailable():
            if attempts + 1 >= numbers.attempts_max:
                return Outcome(State.DEAD, result.code)
            return Outcome(State.WAITING, result.code, now + timedelta(seconds=backoff_seconds(attempts, random, numbers)))
        case Rejected():
            return Outcome(State.FAILED, result.code)
        case BadAddress():
            return Outcome(State.FAILED, result.code, suppress=True, everywhere=isinstance(result, NoAddress))
        case OptedOut():  # the provider blocks the address too, so a service message would only fail there as well
            return Outcome(State.FAILED, result.code, suppress=True, opt_out=True)
        case _:  # Uncertain, and any error this table does not know: it may have gone
            return Outcome(State.UNRESOLVED, result.code)


def backoff_seconds(attempts: int, random: Callable[[], float], numbers: RetryPolicy) -> float:
    """Exponential with full jitter: evenly drawn between nothing and a bound that doubles with each spent attempt."""
    doublings = min(attempts, 60)  # beyond that the cap rules anyway, and the float would overflow
    return random() * min(numbers.cap_seconds, numbers.base_seconds * 2.0**doublings)


def _throttle_seconds(said: float | None, numbers: RetryPolicy) -> float:
    if said is None or math.isnan(said) or said < 0:
        return numbers.throttle_seconds
    return min(said, THROTTLE_SECONDS_MAX)


# -- several devices, one message --------------------------------------------------------------------------------------

# Strongest first. "It may have gone" beats all that would try again; what would try again beats what gives up; and an
# address is blamed only when every device's was bad.
_FOLD: tuple[type[ChannelError], ...] = (
    Uncertain,
    Misconfigured,
    Throttled,
    Unavailable,
    OptedOut,
    Rejected,
    BadAddress,
)


def fold(results: Sequence[Result]) -> Result:
    """One result for a message that went to several devices: any receipt wins, for then the person has it."""
    if not results:
        raise ValueError("no results to fold")
    return min(results, key=_strength)


def _strength(result: Result) -> int:
    if isinstance(result, Receipt):
        return -1
    return next((rank for rank, kind in enumerate(_FOLD) if isinstance(result, kind)), 0)


def dead_addresses(results: Iterable[tuple[Outbound, Result]]) -> list[Outbound]:
    """The devices to strike off, each judged alone, whatever `fold` makes of the message."""
    return [outbound for outbound, result in results if isinstance(result, BadAddress)]


# -- later news --------------------------------------------------------------------------------------------------------

# How much is known of a message's fate. News only moves it up, so any order of the same news ends in the same state.
_FATE: Mapping[State, int] = {
    State.CLAIMED: 0,
    State.UNRESOLVED: 0,
    State.WAITING: 0,  # we thought that nothing had left; the provider knows better
    State.DEAD: 0,
    State.ACCEPTED: 1,
    State.FAILED: 2,
    State.DELIVERED: 3,
    State.BOUNCED: 4,  # some mail servers take a mail and return it later
    State.READ: 5,
    State.COMPLAINED: 6,
}


_NEWS: Mapping[EventKind, State] = {
    EventKind.ACCEPTED: State.ACCEPTED,
    EventKind.FAILED: State.FAILED,
    EventKind.HALTED: State.FAILED,
    EventKind.DELIVERED: State.DELIVERED,
    EventKind.ENGAGED: State.DELIVERED,  # scanners open and click too: it arrived, more is not sure
    EventKind.BOUNCED: State.BOUNCED,
    EventKind.READ: State.READ,
    EventKind.COMPLAINED: State.COMPLAINED,
}


def after_event(state: State, kind: EventKind) -> State | None:
    """The state that a piece of news leads to; None where it changes nothing.

    A message that was never handed over (pending, held, refused, expired, cancelled, held out) is not moved by news.
    """
    news = _NEWS.get(kind)
    if news is None or state not in _FATE:
        return None
    return news if _FATE[news] > _FATE[state] else None


_ARRIVED = frozenset({State.DELIVERED, State.READ, State.COMPLAINED})


_BEFORE_AGAIN = frozenset({State.PENDING, State.HELD})


def after_provider_event(standing: MessageStatus, kind: EventKind, attempt: str) -> State | None:
    """As `after_event`, of a message that may have left more than once. `attempt` is the receipt that the news is about.

    Late news of an attempt that had reached nobody counts only where that one arrived after all: then no other leaves.
    """
    if attempt not in standing.returned:
        return after_event(standing.state, kind)
    if _NEWS.get(kind) not in _ARRIVED:
        return None
    return after_event(State.CLAIMED if standing.state in _BEFORE_AGAIN else standing.state, kind)


def retry_at(
    retry_hint: RetryHint | None,
    standing: MessageStatus,
    spec: Spec | None,
    channel: Channel,
    now: datetime,
    random: Callable[[], float],
    numbers: RetryPolicy,
) -> datetime | None:
    """When a message that reached nobody leaves again; None where it shall not, or has spent its tries.

    Another channel that is to be tried sooner goes before a repetition. `spec` is that of a job with a fallback, else None.
    """
    returns = len(standing.returned)
    if retry_hint is None or standing.cancelled or returns >= retry_hint.times_max or standing.attempts >= numbers.attempts_max:
        return None
    seconds = retry_hint.wait_seconds * 2.0**returns * (1 + JITTER * random())
    if spec is not None and spec.after(channel) and seconds > (spec.fallback_after_seconds or 0.0):
        return None
    return now + timedelta(seconds=seconds)


CURABLE = frozenset({State.FAILED, State.DEAD, State.BOUNCED})  # another channel may still reach the person


def fallback_at(spec: Spec | None, channel: Channel, state: State, now: datetime) -> datetime | None:
    """When the next channel should be tried, now that a leg on this one is in this state; None where none should be.

    A leg that is with the provider gets its time to be delivered; one that has failed gives way at once. What may have
    arrived (unresolved) or has angered somebody (complained) is followed by nothing.
    """
    if spec is None or spec.fallback_after_seconds is None or not spec.after(channel):
        return None
    if state is State.ACCEPTED:
        return now + timedelta(seconds=spec.fallback_after_seconds)
    return now if state in CURABLE else None


@dataclass(frozen=True, slots=True)
class EventEffect:
    """What news says about the address and the person, whatever the state of the message."""

    suppress: bool = False
    opt_out: bool = False
    stop_channel: bool = False  # ours to mend, as with `Misconfigured` at sending
    lift: bool = False  # the provider's own block is gone; this never grants what the bank's switch refuses


_MEANING: Mapping[EventKind, EventEffect] = {
    EventKind.BOUNCED: EventEffect(suppress=True),
    EventKind.COMPLAINED: EventEffect(suppress=True, opt_out=True),
    EventKind.OPTED_OUT: EventEffect(suppress=True, opt_out=True),
    EventKind.OPTED_IN: EventEffect(lift=True),
    EventKind.HALTED: EventEffect(stop_channel=True),
}


_NO_MEANING = EventEffect()


def event_effect(kind: EventKind) -> EventEffect:
    """What news means for suppression and opt-out."""
    return _MEANING.get(kind, _NO_MEANING)

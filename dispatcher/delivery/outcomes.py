"""What follows from an attempt, or from a later provider event. Pure: a table in code, one action for each error.

Two rules shape it. No machine sends a message again that may have been sent: a lost message costs one message, a duplicate costs
trust. And events, which come late, twice and out of order, never move a message backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from channels.base import (
    BadAddress,
    ChannelError,
    EventKind,
    Misconfigured,
    NoAddress,
    OptedOut,
    Outbound,
    Receipt,
    Rejected,
    Result,
    StaleClaim,
    Throttled,
    Unavailable,
    Uncertain,
)
from dispatcher.delivery.retries import JITTER, STALE_SECONDS, backoff_seconds, throttle_seconds
from dispatcher.domain.message import MessageStatus, State
from dispatcher.policy.data import RetryPolicy


@dataclass(frozen=True, slots=True)
class Outcome:
    """The state of a message after one attempt, and its side effects.

    `reason` is the provider's code. `until`: when the message is due again, for a retry or for the next fallback leg. `suppress`
    suppresses the address on its channel, and with `everywhere` on all channels that share it; `opt_out` records an opt-out of the
    person; `stop_channel` stops the channel until our settings are corrected.
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
    """The action for one result. `attempts` counts those spent before this one; `random` gives a number from 0 to 1."""
    match result:
        case Receipt(name):
            return Outcome(State.ACCEPTED, receipt=name)
        case Throttled():
            seconds = throttle_seconds(result.retry_after_seconds, numbers) * (1 + JITTER * random())
            return Outcome(State.WAITING, result.code, now + timedelta(seconds=seconds), attempt_spent=False)
        case Misconfigured():
            until = now + timedelta(seconds=numbers.stopped_seconds)
            return Outcome(State.WAITING, result.code, until, attempt_spent=False, stop_channel=True)
        case StaleClaim():
            until = now + timedelta(seconds=STALE_SECONDS * random())
            return Outcome(State.WAITING, result.code, until, attempt_spent=False)
        case Unavailable():
            if attempts + 1 >= numbers.attempts_max:
                return Outcome(State.DEAD, result.code)
            return Outcome(State.WAITING, result.code, now + timedelta(seconds=backoff_seconds(attempts, random, numbers)))
        case Rejected():
            return Outcome(State.FAILED, result.code)
        case BadAddress():
            return Outcome(State.FAILED, result.code, suppress=True, everywhere=isinstance(result, NoAddress))
        case OptedOut():  # the provider blocks the address too, so a service message would fail as well
            return Outcome(State.FAILED, result.code, suppress=True, opt_out=True)
        case _:  # Uncertain, and any error that this table does not know: it may have been sent
            return Outcome(State.UNRESOLVED, result.code)


# -- several devices, one message --------------------------------------------------------------------------------------

# Strongest first. "May have been sent" comes before everything that tries again; what tries again before what gives up; and the
# address counts as bad only when it was bad on every device.
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
    """One result for a message that went to several devices: any receipt wins, because then the person has it."""
    if not results:
        raise ValueError("no results to fold")
    return min(results, key=_strength)


def _strength(result: Result) -> int:
    if isinstance(result, Receipt):
        return -1
    return next((rank for rank, kind in enumerate(_FOLD) if isinstance(result, kind)), 0)


def dead_addresses(results: Iterable[tuple[Outbound, Result]]) -> list[Outbound]:
    """The devices to delete, each by its own result, whatever `fold` returns for the message."""
    return [outbound for outbound, result in results if isinstance(result, BadAddress)]


# -- later events ------------------------------------------------------------------------------------------------------

# How much is known of a message. Events only increase it, so any order of the same events leads to the same state.
_PROGRESS: Mapping[State, int] = {
    State.CLAIMED: 0,
    State.UNRESOLVED: 0,
    State.WAITING: 0,  # we concluded that it was not sent; the provider knows better
    State.DEAD: 0,
    State.ACCEPTED: 1,
    State.FAILED: 2,
    State.DELIVERED: 3,
    State.BOUNCED: 4,  # some mail servers take a mail and return it later
    State.READ: 5,
    State.COMPLAINED: 6,
}


_STATE_OF_EVENT: Mapping[EventKind, State] = {
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
    """The state that an event leads to; None where it changes nothing.

    Events do not change a message that was never handed off (pending, held, refused, expired, cancelled, held out).
    """
    new = _STATE_OF_EVENT.get(kind)
    if new is None or state not in _PROGRESS:
        return None
    return new if _PROGRESS[new] > _PROGRESS[state] else None


_ARRIVED = frozenset({State.DELIVERED, State.READ, State.COMPLAINED})


_BEFORE_AGAIN = frozenset({State.PENDING, State.HELD})


def after_provider_event(status: MessageStatus, kind: EventKind, attempt: str) -> State | None:
    """As `after_event`, for a message that may have been sent more than once. `attempt` is the receipt that the event is about.

    A late event of an attempt that had reached nobody counts only if it says that this attempt arrived after all; then no other
    attempt follows.
    """
    if attempt not in status.returned:
        return after_event(status.state, kind)
    if _STATE_OF_EVENT.get(kind) not in _ARRIVED:
        return None
    return after_event(State.CLAIMED if status.state in _BEFORE_AGAIN else status.state, kind)


@dataclass(frozen=True, slots=True)
class EventEffect:
    """What an event means for address and person, whatever the state of the message."""

    suppress: bool = False
    opt_out: bool = False
    stop_channel: bool = False  # our settings are wrong, as with `Misconfigured` at sending
    lift: bool = False  # the provider's own block is gone; a switch that is off stays off


_EFFECTS: Mapping[EventKind, EventEffect] = {
    EventKind.BOUNCED: EventEffect(suppress=True),
    EventKind.COMPLAINED: EventEffect(suppress=True, opt_out=True),
    EventKind.OPTED_OUT: EventEffect(suppress=True, opt_out=True),
    EventKind.OPTED_IN: EventEffect(lift=True),
    EventKind.HALTED: EventEffect(stop_channel=True),
}


_NO_EFFECT = EventEffect()


def event_effect(kind: EventKind) -> EventEffect:
    """What an event means for suppression and opt-out."""
    return _EFFECTS.get(kind, _NO_EFFECT)

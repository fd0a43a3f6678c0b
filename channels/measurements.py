"""Measurements: what a provider did with a batch, and what waits for our own rate limit. They contain counts and times only.

The program that runs the adapters calls `set_observer` to collect them. Without an observer nothing is measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from channels.base import (
    BadAddress,
    ChannelError,
    Misconfigured,
    OptedOut,
    Receipt,
    Rejected,
    Result,
    StaleClaim,
    Throttled,
    Unavailable,
    Uncertain,
)

# The first class that matches gives the name; every other error is "uncertain", as in the outcomes.
_CLASSES: Sequence[tuple[type[ChannelError], str]] = (
    (StaleClaim, "stale_claim"),
    (Throttled, "throttled"),
    (Misconfigured, "misconfigured"),
    (Unavailable, "unavailable"),
    (BadAddress, "bad_address"),
    (OptedOut, "opted_out"),
    (Rejected, "rejected"),
    (Uncertain, "uncertain"),
)
ACCEPTED = "accepted"
RESULT_CLASSES = frozenset({ACCEPTED, *(name for _, name in _CLASSES)})


class Observer(Protocol):
    """Collects measurements. Its methods must not raise, and be quick."""

    def batch_sent(self, provider: str, channel: str, results: Mapping[str, int], seconds: Sequence[float]) -> None:
        """`results`: messages by class of result. `seconds`: for each answer, the time from the start of the batch."""
        ...

    def rate_limited(self, channel: str, messages: int, seconds_max: float) -> None:
        """So many messages wait for our own rate limit, the last of them so long."""
        ...

    def breaker_opened(self, provider: str, channel: str, seconds: float) -> None:
        """The circuit breaker of this process has opened, for so long."""
        ...


_observers: list[Observer] = []
_names: dict[type[Result], str] = {}


def set_observer(observer: Observer) -> None:
    """Use this observer in this process, in place of the one set before."""
    _observers[:] = [observer]


def observer() -> Observer | None:
    """The observer of this process."""
    return _observers[0] if _observers else None


def result_class(result: Result) -> str:
    """The class of a result: a closed set, unlike the providers' codes."""
    return class_name(type(result))


def class_name(kind: type[Result]) -> str:
    """The class of all results of a type. Searched once for each type: this is the hot path."""
    if kind not in _names:
        found = (name for each, name in _CLASSES if issubclass(kind, each))
        _names[kind] = ACCEPTED if issubclass(kind, Receipt) else next(found, "uncertain")
    return _names[kind]

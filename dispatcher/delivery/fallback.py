"""The fallback order: which channels come next, and when. Pure; `ledger/delivery/fallback_legs.py` adds a leg that is due."""

from __future__ import annotations

from datetime import datetime, timedelta

from channels.base import Channel
from dispatcher.domain.campaign import Spec
from dispatcher.domain.message import State

FALLBACK_STATES = frozenset({State.FAILED, State.DEAD, State.BOUNCED})  # another channel may still reach the person


def channels_after(spec: Spec, channel: Channel) -> tuple[Channel, ...]:
    """The channels that come after this one in the fallback order."""
    return spec.channels[spec.channels.index(channel) + 1 :] if channel in spec.channels else ()


def fallback_seconds(spec: Spec | None, channel: Channel) -> float | None:
    """How long after an accepted leg on this channel the next one is tried; None where no other channel follows."""
    return spec.fallback_after_seconds if spec is not None and channels_after(spec, channel) else None


def fallback_at(spec: Spec | None, channel: Channel, state: State, now: datetime) -> datetime | None:
    """When the next channel is tried after a leg on this one reached this state; None where no other channel follows.

    An accepted leg gets its time to be delivered; a failed one is followed at once. What may have arrived (unresolved) or was
    complained about is followed by nothing.
    """
    if spec is None or spec.fallback_after_seconds is None or not channels_after(spec, channel):
        return None
    if state is State.ACCEPTED:
        return now + timedelta(seconds=spec.fallback_after_seconds)
    return now if state in FALLBACK_STATES else None

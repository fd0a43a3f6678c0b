"""Asking providers afterwards what they took, through whatever brakes stand around them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from channels.base import ChannelError, Provider, ProviderRecord, SupportsLookup, Uncertain


def look_up(provider: Provider, address: str, since: datetime) -> list[ProviderRecord] | ChannelError:
    """All that the channel's providers took for an address since a moment; an error unless each of them could tell."""
    found: list[ProviderRecord] = []
    for adapter in unwrap(provider):
        if not supports_lookup(adapter):
            return Uncertain("cannot_be_asked", adapter.name)
        asked: SupportsLookup = adapter  # type: ignore[assignment]  # told by its method
        told = asked.look_up(address, since)
        if isinstance(told, ChannelError):
            return told
        found += told
    return found


def supports_lookup(provider: Provider) -> bool:
    """Whether every provider of the channel can be asked."""
    return all(hasattr(adapter, "look_up") for adapter in unwrap(provider))


def unwrap(provider: Provider) -> Iterator[Provider]:
    """The adapters behind a provider's brakes: one, or each of those that stand in for one another."""
    if hasattr(provider, "inner"):
        yield from unwrap(provider.inner)
    elif hasattr(provider, "providers"):
        for each in provider.providers:
            yield from unwrap(each)
    else:
        yield provider

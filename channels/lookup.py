"""Look-ups: ask providers what they took, through the wrappers around their adapters. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from channels.base import ChannelError, Provider, ProviderRecord, SupportsLookup, Uncertain


def look_up(provider: Provider, address: str, since: datetime) -> list[ProviderRecord] | ChannelError:
    """Return all that the channel's providers took for an address since a time; an error unless each of them answered."""
    records: list[ProviderRecord] = []
    for adapter in unwrap(provider):
        if not supports_lookup(adapter):
            return Uncertain("cannot_be_asked", adapter.name)
        provider_with_lookup: SupportsLookup = adapter  # type: ignore[assignment]  # it has the method
        answer = provider_with_lookup.look_up(address, since)
        if isinstance(answer, ChannelError):
            return answer
        records += answer
    return records


def supports_lookup(provider: Provider) -> bool:
    """Tell whether every provider of the channel can be asked."""
    return all(hasattr(adapter, "look_up") for adapter in unwrap(provider))


def unwrap(provider: Provider) -> Iterator[Provider]:
    """Yield the adapters inside a provider's wrappers: one, or all of a failover."""
    if hasattr(provider, "inner"):
        yield from unwrap(provider.inner)
    elif hasattr(provider, "providers"):
        for each in provider.providers:
            yield from unwrap(each)
    else:
        yield provider

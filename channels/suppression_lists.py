"""Lists of addresses to which a provider sends nothing more: what is read of them, and which providers can be asked. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from channels.base import Channel, ChannelError, Provider
from channels.lookup import unwrap


@dataclass(frozen=True, slots=True)
class ListedByProvider:
    """An entry of a list. `reason` is ours: opted_out, complained, bounced or invalid_address. `at` None: the provider gives no
    time that can be read."""

    address: str
    reason: str
    at: datetime | None


class SupportsSuppressionLists(Protocol):
    """A provider whose lists can be read."""

    name: str
    channel: Channel

    def suppression_lists(self, since: datetime | None) -> Iterator[Sequence[ListedByProvider] | ChannelError]:
        """Yield all entries since a time, in pages; an error, which ends it, unless every list was read to its end."""
        ...


def with_lists(providers: Iterable[Provider]) -> Iterator[SupportsSuppressionLists]:
    """Yield those of the adapters inside these providers whose lists can be read."""
    for provider in providers:
        for adapter in unwrap(provider):
            if hasattr(adapter, "suppression_lists"):
                yield adapter  # type: ignore[misc]  # it has the method

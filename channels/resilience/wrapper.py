"""Base class of the wrappers around a provider."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from channels.base import ChannelError, Outbound, Provider, Result

Results: TypeAlias = Iterator[tuple[Outbound, Result]]


class ProviderWrapper:
    """A provider around another provider, with the same name and channel."""

    def __init__(self, inner: Provider) -> None:
        self.inner = inner
        self.name, self.channel = inner.name, inner.channel

    def check(self) -> ChannelError | None:
        """Return the result of the inner provider's check."""
        return self.inner.check()

    def close(self) -> None:
        """Close connections."""
        self.inner.close()

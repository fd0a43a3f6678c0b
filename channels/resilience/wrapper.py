"""Brakes around a provider: a rate that all workers share, a pause after trouble, a second provider for what surely did not leave.

Each is itself a `Provider`. What a brake holds back has not left the house: it ends in `Throttled`, which costs no attempt.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from channels.base import ChannelError, Outbound, Provider, Result

Results: TypeAlias = Iterator[tuple[Outbound, Result]]


class ProviderWrapper:
    """What all brakes have in common: the name and channel of the provider inside."""

    def __init__(self, inner: Provider) -> None:
        self.inner = inner
        self.name, self.channel = inner.name, inner.channel

    def check(self) -> ChannelError | None:
        """The provider's own check."""
        return self.inner.check()

    def close(self) -> None:
        """Let go of connections."""
        self.inner.close()

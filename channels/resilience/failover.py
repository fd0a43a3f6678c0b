"""Failover: several providers of one channel. The next one gets what a provider certainly did not accept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from channels.alerts import alert
from channels.base import ChannelError, Misconfigured, Outbound, Provider, Result, StaleClaim, Throttled, Unavailable
from channels.resilience.wrapper import Results
from channels.send_window import SendWindow


@dataclass(frozen=True, slots=True)
class WeightedProvider:
    """One of several providers of a channel. With a `weight` of 0 it is a reserve: it gets only what others did not accept."""

    provider: Provider
    weight: float


class Failover:
    """Each message goes to one provider, chosen by weight. If that one does not accept it, it goes to the others.

    Messages that a provider did not accept (`Unavailable`, `Throttled`, `Misconfigured`) go to the next one, in the configured
    order. Others do not. `StaleClaim` does not either: the deadline has passed. `random` returns a number from 0 to 1.
    """

    def __init__(self, members: Sequence[WeightedProvider], random: Callable[[], float]) -> None:
        if not any(member.weight > 0 for member in members):
            raise ValueError("no provider has a weight")
        self._members, self._random = tuple(members), random
        self.name = "+".join(member.provider.name for member in members)
        self.channel = members[0].provider.channel

    @property
    def providers(self) -> tuple[Provider, ...]:
        """All providers, in the configured order."""
        return tuple(member.provider for member in self._members)

    def send(self, batch: Sequence[Outbound], window: SendWindow) -> Results:
        """See `channels.base.Provider`."""
        assignments: list[list[Outbound]] = [[] for _ in self._members]
        for outbound in batch:
            assignments[self._choose_provider()].append(outbound)
        not_accepted: dict[int, tuple[Outbound, Result]] = {}  # by object identity: equal outbounds are different hand-offs
        tried: dict[int, set[int]] = {}
        for provider_index, assigned in enumerate(assignments):
            if assigned:
                yield from self._try(provider_index, assigned, window, not_accepted, tried)
        for provider_index, member in enumerate(self._members):
            remaining = [outbound for outbound, _ in not_accepted.values() if provider_index not in tried[id(outbound)]]
            if remaining:
                alert(member.provider.name, "failover")
                for outbound in remaining:
                    del not_accepted[id(outbound)]
                yield from self._try(provider_index, remaining, window, not_accepted, tried)
        yield from not_accepted.values()

    def check(self) -> ChannelError | None:
        """Return the first error of a provider, or None if all work."""
        return next(filter(None, (member.provider.check() for member in self._members)), None)

    def close(self) -> None:
        """Close connections."""
        for member in self._members:
            member.provider.close()

    def _try(
        self,
        provider_index: int,
        assigned: Sequence[Outbound],
        window: SendWindow,
        not_accepted: dict[int, tuple[Outbound, Result]],
        tried: dict[int, set[int]],
    ) -> Results:
        for outbound, result in self._members[provider_index].provider.send(assigned, window):
            tried.setdefault(id(outbound), set()).add(provider_index)
            if isinstance(result, Unavailable | Throttled | Misconfigured) and not isinstance(result, StaleClaim):
                not_accepted[id(outbound)] = (outbound, result)
            else:
                yield outbound, result

    def _choose_provider(self) -> int:
        point = self._random() * sum(member.weight for member in self._members)
        for provider_index, member in enumerate(self._members):
            if point < member.weight:
                return provider_index
            point -= member.weight
        return max(provider_index for provider_index, member in enumerate(self._members) if member.weight > 0)

"""Brakes around a provider: a rate that all workers share, a pause after trouble, a second provider for what surely did not leave.

Each is itself a `Provider`. What a brake holds back has not left the house: it ends in `Throttled`, which costs no attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from channels.alerts import alert
from channels.base import ChannelError, Misconfigured, Outbound, Provider, Result, Throttled, Unavailable
from channels.resilience.wrapper import Results

# -- a second way ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FailoverRoute:
    """One of several providers of a channel. A `weight` of 0 makes it a reserve: only what others could not take goes there."""

    provider: Provider
    weight: float


class Failover:
    """Several providers of one channel: each takes its share, and what one surely did not take goes to the next, in their order.

    What may have left (`Uncertain`) and what nobody would take (`Rejected`, a bad address) ends where it is. `dice` gives a number
    from 0 to 1.
    """

    def __init__(self, routes: Sequence[FailoverRoute], random: Callable[[], float]) -> None:
        if not any(route.weight > 0 for route in routes):
            raise ValueError("no route has a weight")
        self._routes, self._dice = tuple(routes), random
        self.name = "+".join(route.provider.name for route in routes)
        self.channel = routes[0].provider.channel

    @property
    def providers(self) -> tuple[Provider, ...]:
        """Those that stand in for one another."""
        return tuple(route.provider for route in self._routes)

    def send(self, batch: Sequence[Outbound]) -> Results:
        """See `channels.base.Provider`."""
        shares: list[list[Outbound]] = [[] for _ in self._routes]
        for outbound in batch:
            shares[self._draw()].append(outbound)
        left: dict[int, tuple[Outbound, Result]] = {}  # by place in memory: equal outbounds are different hand-offs
        tried: dict[int, set[int]] = {}
        for number, share in enumerate(shares):
            if share:
                yield from self._try(number, share, left, tried)
        for number, route in enumerate(self._routes):
            retry_hint = [outbound for outbound, _ in left.values() if number not in tried[id(outbound)]]
            if retry_hint:
                alert(route.provider.name, "failover")
                for outbound in retry_hint:
                    del left[id(outbound)]
                yield from self._try(number, retry_hint, left, tried)
        yield from left.values()

    def check(self) -> ChannelError | None:
        """None when all routes work."""
        return next(filter(None, (route.provider.check() for route in self._routes)), None)

    def close(self) -> None:
        """Let go of connections."""
        for route in self._routes:
            route.provider.close()

    def _try(
        self, number: int, share: Sequence[Outbound], left: dict[int, tuple[Outbound, Result]], tried: dict[int, set[int]]
    ) -> Results:
        for outbound, result in self._routes[number].provider.send(share):
            tried.setdefault(id(outbound), set()).add(number)
            if isinstance(result, Unavailable | Throttled | Misconfigured):
                left[id(outbound)] = (outbound, result)
            else:
                yield outbound, result

    def _draw(self) -> int:
        point = self._dice() * sum(route.weight for route in self._routes)
        for number, route in enumerate(self._routes):
            if point < route.weight:
                return number
            point -= route.weight
        return max(number for number, route in enumerate(self._routes) if route.weight > 0)

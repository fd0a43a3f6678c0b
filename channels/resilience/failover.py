"""Failover: several providers of one channel. The next one takes what a provider certainly did not take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from channels.alerts import alert
from channels.base import ChannelError, Misconfigured, Outbound, Provider, Result, StaleClaim, Throttled, Unavailable
from channels.resilience.wrapper import Results
from channels.send_window import SendWindow


@dataclass(frozen=True, slots=True)
class FailoverRoute:
    """One of several providers of a channel. With a `weight` of 0 it is a reserve: it gets only what others did not take."""

    provider: Provider
    weight: float


class Failover:
    """Each provider gets its share of the messages. What it certainly did not take goes to the next, in the order of routes.

    Messages that may have been sent (`Uncertain`) or that no provider would take (`Rejected`, `BadAddress`) go no further.
    `random` returns a number from 0 to 1.
    """

    def __init__(self, routes: Sequence[FailoverRoute], random: Callable[[], float]) -> None:
        if not any(route.weight > 0 for route in routes):
            raise ValueError("no route has a weight")
        self._routes, self._random = tuple(routes), random
        self.name = "+".join(route.provider.name for route in routes)
        self.channel = routes[0].provider.channel

    @property
    def providers(self) -> tuple[Provider, ...]:
        """The providers of all routes."""
        return tuple(route.provider for route in self._routes)

    def send(self, batch: Sequence[Outbound], window: SendWindow) -> Results:
        """See `channels.base.Provider`."""
        shares: list[list[Outbound]] = [[] for _ in self._routes]
        for outbound in batch:
            shares[self._draw()].append(outbound)
        not_taken: dict[int, tuple[Outbound, Result]] = {}  # by object identity: equal outbounds are different hand-offs
        tried: dict[int, set[int]] = {}
        for number, share in enumerate(shares):
            if share:
                yield from self._try(number, share, window, not_taken, tried)
        for number, route in enumerate(self._routes):
            remaining = [outbound for outbound, _ in not_taken.values() if number not in tried[id(outbound)]]
            if remaining:
                alert(route.provider.name, "failover")
                for outbound in remaining:
                    del not_taken[id(outbound)]
                yield from self._try(number, remaining, window, not_taken, tried)
        yield from not_taken.values()

    def check(self) -> ChannelError | None:
        """Return the first error of a route, or None if all work."""
        return next(filter(None, (route.provider.check() for route in self._routes)), None)

    def close(self) -> None:
        """Close connections."""
        for route in self._routes:
            route.provider.close()

    def _try(
        self,
        number: int,
        share: Sequence[Outbound],
        window: SendWindow,
        not_taken: dict[int, tuple[Outbound, Result]],
        tried: dict[int, set[int]],
    ) -> Results:
        for outbound, result in self._routes[number].provider.send(share, window):
            tried.setdefault(id(outbound), set()).add(number)
            if isinstance(result, Unavailable | Throttled | Misconfigured) and not isinstance(result, StaleClaim):
                not_taken[id(outbound)] = (outbound, result)
            else:
                yield outbound, result

    def _draw(self) -> int:
        point = self._random() * sum(route.weight for route in self._routes)
        for number, route in enumerate(self._routes):
            if point < route.weight:
                return number
            point -= route.weight
        return max(number for number, route in enumerate(self._routes) if route.weight > 0)

"""Brakes around a provider: a rate that all workers share, a pause after trouble, a second provider for what surely did not leave.

Each is itself a `Provider`. What a brake holds back has not left the house: it ends in `Throttled`, which costs no attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, TypeAlias

from redis import Redis
from redis.exceptions import RedisError

from channels.alerts import alert
from channels.base import ChannelError, Misconfigured, Outbound, Provider, Result, Throttled, Unavailable, Uncertain
from channels.handover import Clock

Pairs: TypeAlias = Iterator[tuple[Outbound, Result]]

# -- a rate ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rate:
    """What a provider's account may take: `per_second` in the long run, `burst` at once.

    `reserve` is the share of the burst that campaigns leave to triggers; `alone_share` the share of the rate that each worker
    allows itself while it can't ask the others.
    """

    per_second: float
    burst: int
    reserve: float = 0.1
    alone_share: float = 0.05

    def alone(self) -> Rate:
        """What one worker allows itself while it can't ask the others."""
        return Rate(self.per_second * self.alone_share, max(1, int(self.burst * self.alone_share)), self.reserve)

    def floor(self, *, first_class: bool) -> float:
        """The tokens that must be left over."""
        return 0.0 if first_class else self.burst * self.reserve


@dataclass(frozen=True, slots=True)
class Grant:
    """What a bucket gives: tokens now, and how long until the first of the refused ones has its turn behind all refused before."""

    tokens: int
    wait_seconds: float


class Bucket(Protocol):
    """Tokens, one for each message. What is refused queues up in thought, so that it comes back spread out and not all at once."""

    def take(self, wanted: int, *, first_class: bool) -> Grant:
        """As many of the wanted tokens as there are now."""
        ...


# The queue of the refused is no longer than this: some of them may never come back, and others shall not wait for them.
QUEUE_SECONDS_MAX = 300.0


class LocalBucket:
    """A bucket of this process alone. Starts empty: a crowd of new workers is no reason for a burst."""

    def __init__(self, rate: Rate, now: Clock) -> None:
        self._rate, self._now = rate, now
        self._tokens, self._at, self._queue_seconds = 0.0, now(), 0.0

    def take(self, wanted: int, *, first_class: bool) -> Grant:
        """See `Bucket`."""
        now, rate = self._now(), self._rate
        passed = max(0.0, (now - self._at).total_seconds())
        self._tokens, self._at = min(float(rate.burst), self._tokens + passed * rate.per_second), now
        granted = max(0, min(wanted, int(self._tokens - rate.floor(first_class=first_class))))
        self._tokens -= granted
        wait_seconds = max(0.0, self._queue_seconds - passed)
        self._queue_seconds = min(QUEUE_SECONDS_MAX, wait_seconds + (wanted - granted) / rate.per_second)
        return Grant(granted, wait_seconds)


# The store's own clock counts, so that hosts need not agree on the time. A bucket that nobody used is full, and forgotten.
_TAKE = """
local now = redis.call('TIME')
local at = now[1] + now[2] / 1000000
local per_second, burst, floor, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local kept = redis.call('HMGET', KEYS[1], 'tokens', 'at', 'queue')
local tokens, wait = burst, 0
if kept[1] then
  local passed = math.max(0, at - kept[2])
  tokens, wait = math.min(burst, kept[1] + passed * per_second), math.max(0, kept[3] - passed)
end
local granted = math.max(0, math.min(wanted, math.floor(tokens - floor)))
local queue = math.min(tonumber(ARGV[5]), wait + (wanted - granted) / per_second)
local function text(number) return string.format('%.6f', number) end
redis.call('HSET', KEYS[1], 'tokens', text(tokens - granted), 'at', text(at), 'queue', text(queue))
redis.call('PEXPIRE', KEYS[1], math.ceil(math.max(queue, burst / per_second) * 1000) + 1000)
return {granted, text(wait)}
"""
STORE_RETRY = timedelta(seconds=5)


class SharedBucket:
    """A bucket that all workers share, in the broker's store. While the store is away, a small one of this process's own."""

    def __init__(self, store: Redis, name: str, rate: Rate, now: Clock) -> None:
        self._take = store.register_script(_TAKE)
        self._key, self._rate, self._now = f"dispatcher:rate:{name}", rate, now
        self._name, self._away_until = name, now()
        self._alone = LocalBucket(rate.alone(), now)

    def take(self, wanted: int, *, first_class: bool) -> Grant:
        """See `Bucket`."""
        if self._now() >= self._away_until:
            rate = self._rate
            numbers = [rate.per_second, rate.burst, rate.floor(first_class=first_class), wanted, QUEUE_SECONDS_MAX]
            try:
                tokens, wait_seconds = self._take(keys=[self._key], args=numbers)
                return Grant(int(tokens), float(wait_seconds))
            except RedisError:
                alert(self._name, "rate_store_away")
                self._away_until = self._now() + STORE_RETRY
        return self._alone.take(wanted, first_class=first_class)


class Wrapped:
    """What all brakes have in common: the name and channel of the provider inside."""

    def __init__(self, inside: Provider) -> None:
        self.inside = inside
        self.name, self.channel = inside.name, inside.channel

    def check(self) -> ChannelError | None:
        """The provider's own check."""
        return self.inside.check()

    def close(self) -> None:
        """Let go of connections."""
        self.inside.close()


class Limited(Wrapped):
    """A provider that is given no more than its account may take.

    What is over the rate is told to come back when its turn is, by the rate alone. A batch of one is somebody who waits, a trigger
    most likely: it may use the reserve.
    """

    def __init__(self, inside: Provider, bucket: Bucket, per_second: float) -> None:
        super().__init__(inside)
        self._bucket, self._per_second = bucket, per_second

    def send(self, batch: Sequence[Outbound]) -> Pairs:
        """See `channels.base.Provider`."""
        if not batch:
            return
        grant = self._bucket.take(len(batch), first_class=len(batch) == 1)
        if grant.tokens:
            yield from self.inside.send(batch[: grant.tokens])
        for turn, outbound in enumerate(batch[grant.tokens :], 1):
            seconds = min(QUEUE_SECONDS_MAX, grant.wait_seconds + turn / self._per_second)
            yield outbound, Throttled("rate_limited", "over our own rate", seconds)


# -- trouble -----------------------------------------------------------------------------------------------------------


class Breaker(Wrapped):
    """A provider that is left in peace for some seconds once `faults_max` requests in a row had no good end.

    After the pause one message goes ahead to see. Mails that shared a request count once.
    """

    def __init__(self, inside: Provider, now: Clock, faults_max: int = 5, pause_seconds: float = 10.0) -> None:
        super().__init__(inside)
        self._now, self._faults_max, self._pause_seconds = now, faults_max, pause_seconds
        self._faults, self._open_until = 0, now()

    def send(self, batch: Sequence[Outbound]) -> Pairs:
        """See `channels.base.Provider`."""
        if self._now() < self._open_until:
            yield from self._hold(batch)
        elif self._faults < self._faults_max:
            yield from self._watch(batch)
        else:
            yield from self._watch(batch[:1])
            yield from self._hold(batch[1:]) if self._faults else self._watch(batch[1:])

    def _watch(self, batch: Sequence[Outbound]) -> Pairs:
        last: Result | None = None
        for outbound, result in self.inside.send(batch):
            if result is not last:
                self._count(result)
            last = result
            yield outbound, result

    def _count(self, result: Result) -> None:
        if not isinstance(result, Unavailable | Uncertain):
            self._faults = 0
            return
        self._faults += 1
        if self._faults >= self._faults_max:
            if self._now() >= self._open_until:
                alert(self.name, "paused")
            self._open_until = self._now() + timedelta(seconds=self._pause_seconds)

    def _hold(self, batch: Sequence[Outbound]) -> Pairs:
        seconds = max(0.0, (self._open_until - self._now()).total_seconds())
        yield from ((outbound, Throttled("paused", "the provider is left in peace", seconds)) for outbound in batch)


# -- a second way ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Route:
    """One of several providers of a channel. A `weight` of 0 makes it a reserve: only what others could not take goes there."""

    provider: Provider
    weight: float


class Failover:
    """Several providers of one channel: each takes its share, and what one surely did not take goes to the next, in their order.

    What may have left (`Uncertain`) and what nobody would take (`Rejected`, a bad address) ends where it is. `dice` gives a number
    from 0 to 1.
    """

    def __init__(self, routes: Sequence[Route], dice: Callable[[], float]) -> None:
        if not any(route.weight > 0 for route in routes):
            raise ValueError("no route has a weight")
        self._routes, self._dice = tuple(routes), dice
        self.name = "+".join(route.provider.name for route in routes)
        self.channel = routes[0].provider.channel

    @property
    def providers(self) -> tuple[Provider, ...]:
        """Those that stand in for one another."""
        return tuple(route.provider for route in self._routes)

    def send(self, batch: Sequence[Outbound]) -> Pairs:
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
            again = [outbound for outbound, _ in left.values() if number not in tried[id(outbound)]]
            if again:
                alert(route.provider.name, "failover")
                for outbound in again:
                    del left[id(outbound)]
                yield from self._try(number, again, left, tried)
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
    ) -> Pairs:
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

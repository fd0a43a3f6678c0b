"""Brakes around a provider: a rate that all workers share, a pause after trouble, a second provider for what surely did not leave.

Each is itself a `Provider`. What a brake holds back has not left the house: it ends in `Throttled`, which costs no attempt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate
from typing import Protocol

from redis import Redis
from redis.exceptions import RedisError

from channels.alerts import alert
from channels.base import Outbound, Provider, Sms, Throttled
from channels.http_adapter import Clock
from channels.resilience.wrapper import Results, ProviderWrapper
from channels.sms_segments import count_segments

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
    fallback_share: float = 0.05

    def fallback(self) -> Rate:
        """What one worker allows itself while it can't ask the others."""
        return Rate(self.per_second * self.fallback_share, max(1, int(self.burst * self.fallback_share)), self.reserve)

    def reserved_tokens(self, *, trigger: bool) -> float:
        """The tokens that must be left over."""
        return 0.0 if trigger else self.burst * self.reserve


@dataclass(frozen=True, slots=True)
class Grant:
    """What a bucket gives: how many of the messages may leave now, and when the turn of those behind them comes.

    `wait_seconds` is how long all that was refused before takes; the rest of this asking follows it at `per_second` tokens.
    """

    messages: int
    wait_seconds: float
    per_second: float


class TokenBucket(Protocol):
    """Tokens, for messages that cost one or several. What is refused queues up in thought, so that it comes back spread out.

    A message leaves when there is a token for its first part; what is missing of the others is owed. So none is too dear for ever,
    and in the long run the rate holds all the same.
    """

    def take(self, costs: Sequence[int], flow: str) -> Grant:
        """As many of these messages, from the first on, as there are tokens for now. `flow` is whose they are: see `Outbound`."""
        ...


# The queue of the refused is no longer than this: some of them may never come back, and others shall not wait for them.
QUEUE_SECONDS_MAX = 300.0


FLOW_IDLE_SECONDS = 5.0  # a flow that has not asked for so long, and for which nothing waits, has no share


class LocalBucket:
    """A bucket of this process alone, one queue for all. Starts empty: a crowd of new workers is no reason for a burst."""

    def __init__(self, rate: Rate, now: Clock) -> None:
        self._rate, self._now = rate, now
        self._tokens, self._at, self._queue_seconds = 0.0, now(), 0.0

    def take(self, costs: Sequence[int], flow: str) -> Grant:
        """See `TokenBucket`."""
        now, rate = self._now(), self._rate
        passed = max(0.0, (now - self._at).total_seconds())
        self._tokens, self._at = min(float(rate.burst), self._tokens + passed * rate.per_second), now
        messages, spent, free = 0, 0, self._tokens - rate.reserved_tokens(trigger=not flow)
        while messages < len(costs) and free - spent >= 1:
            spent += costs[messages]
            messages += 1
        self._tokens -= spent
        wait_seconds = max(0.0, self._queue_seconds - passed)
        self._queue_seconds = min(QUEUE_SECONDS_MAX, wait_seconds + sum(costs[messages:]) / rate.per_second)
        return Grant(messages, wait_seconds, rate.per_second)


# The store's own clock counts, so that hosts need not agree on the time. A bucket that nobody used is full, and forgotten.
#
# Fair shares: each campaign that asks has an account of its own beside the bucket, filled at its share of the rate. Where there are
# several, one may take what is on its account, or what lies in the upper half of the bucket: that is what others left.
_TAKE_SCRIPT = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local per_second, burst, floor = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local patience, idle, flow = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local tokens, own, wait, sharing, known = burst, nil, 0, 0, false
local kept = redis.call('HGETALL', KEYS[1])
for i = 1, #kept, 2 do
  local name, first, second, third = kept[i], string.match(kept[i + 1], '(%S+) (%S+) ?(%S*)')
  local passed = math.max(0, now - second)
  if name == 'bucket' then
    tokens = math.min(burst, first + passed * per_second)
  elseif name == 'flow:' .. flow then
    own, wait, known = first + 0, math.max(0, third - passed), passed
  elseif passed > idle + third then
    redis.call('HDEL', KEYS[1], name)
  elseif name ~= 'flow:' then
    sharing = sharing + 1
  end
end
local share, free = per_second, tokens - floor
if flow ~= '' then
  share = per_second / (sharing + 1)
  own = math.min(burst / (sharing + 1), (own or burst) + (known or 0) * share)
  if sharing > 0 then free = math.min(free, math.max(own, tokens - burst / 2)) end
end
local granted, spent, left, dearest = 0, 0, 0, 0
for i = 7, #ARGV do
  local cost = tonumber(ARGV[i])
  if free - spent >= 1 then
    granted, spent, dearest = granted + 1, spent + cost, math.max(dearest, cost)
  else
    left = left + cost
  end
end
local queue = math.min(patience, wait + left / share)
local function text(number) return string.format('%.6f', number) end
redis.call('HSET', KEYS[1], 'bucket', text(tokens - spent) .. ' ' .. text(now))
redis.call('HSET', KEYS[1], 'flow:' .. flow, text(math.max((own or 0) - spent, -dearest)) .. ' ' .. text(now) .. ' ' .. text(queue))
redis.call('PEXPIRE', KEYS[1], math.ceil((queue + idle + (burst + dearest) / per_second) * 1000) + 1000)
return {granted, text(wait), text(share)}
"""


STORE_RETRY_AFTER = timedelta(seconds=5)


class SharedBucket:
    """A bucket that all workers share, in the broker's store. While the store is away, a small one of this process's own."""

    def __init__(self, store: Redis, name: str, rate: Rate, now: Clock) -> None:
        self._take = store.register_script(_TAKE_SCRIPT)
        self._key, self._rate, self._now = f"dispatcher:rate:{name}", rate, now
        self._name, self._away_until = name, now()
        self._fallback = LocalBucket(rate.fallback(), now)

    def take(self, costs: Sequence[int], flow: str) -> Grant:
        """See `TokenBucket`. Campaigns that ask at the same time get equal shares, whatever the number of their workers."""
        if self._now() >= self._away_until:
            rate = self._rate
            numbers = (rate.per_second, rate.burst, rate.reserved_tokens(trigger=not flow), QUEUE_SECONDS_MAX, FLOW_IDLE_SECONDS)
            try:
                messages, wait_seconds, per_second = self._take(keys=[self._key], args=[*numbers, flow, *costs])
                return Grant(int(messages), float(wait_seconds), float(per_second))
            except RedisError:
                alert(self._name, "rate_store_away")
                self._away_until = self._now() + STORE_RETRY_AFTER
        return self._fallback.take(costs, flow)


def token_cost(outbound: Outbound) -> int:
    """What a message costs: an SMS its segments, for that is what carriers and providers count; any other message one."""
    if not isinstance(outbound.content, Sms):
        return 1
    try:
        return max(1, count_segments(outbound.content.text).count)
    except TypeError:  # no text where a text belongs: the adapter will refuse it
        return 1


class RateLimited(ProviderWrapper):
    """A provider that is given no more than its account may take.

    What is over the rate is told to come back when its turn is, by the rate alone. What belongs to no campaign is a trigger's: it
    may use the reserve.
    """

    def __init__(self, inner: Provider, bucket: TokenBucket) -> None:
        super().__init__(inner)
        self._bucket = bucket

    def send(self, batch: Sequence[Outbound]) -> Results:
        """See `channels.base.Provider`."""
        flows: dict[str, list[Outbound]] = {}
        for outbound in batch:
            flows.setdefault(outbound.flow, []).append(outbound)
        for flow, mine in flows.items():
            yield from self._send(mine, flow)

    def _send(self, batch: Sequence[Outbound], flow: str) -> Results:
        costs = [token_cost(outbound) for outbound in batch]
        grant = self._bucket.take(costs, flow)
        if grant.messages:
            yield from self.inner.send(batch[: grant.messages])
        turns = accumulate(costs[grant.messages :])
        for turn, outbound in zip(turns, batch[grant.messages :], strict=True):
            seconds = min(QUEUE_SECONDS_MAX, grant.wait_seconds + turn / grant.per_second)
            yield outbound, Throttled("rate_limited", "over our own rate", seconds)

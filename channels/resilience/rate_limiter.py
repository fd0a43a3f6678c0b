"""Rate limiter: token buckets that keep all workers together under the rate of a channel, over both its providers.

Messages over the rate are not sent and end in `Throttled`, which costs no attempt.
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
from channels.measurements import observer
from channels.resilience.wrapper import ProviderWrapper, Results
from channels.send_window import SendWindow
from channels.sms_segments import count_segments


@dataclass(frozen=True, slots=True)
class Rate:
    """The rate of a channel, over all workers and both its providers: `per_second` on average, `burst` at once.

    `reserve` is the share of the burst that only triggers may use. `fallback_share` is the share of the rate that each worker
    uses alone while the shared bucket cannot be reached.
    """

    per_second: float
    burst: int
    reserve: float = 0.1
    fallback_share: float = 0.05

    def fallback(self) -> Rate:
        """Return the rate of one worker while the shared bucket cannot be reached."""
        return Rate(self.per_second * self.fallback_share, max(1, int(self.burst * self.fallback_share)), self.reserve)

    def reserved_tokens(self, *, trigger: bool) -> float:
        """Return the tokens that must remain in the bucket."""
        return 0.0 if trigger else self.burst * self.reserve


@dataclass(frozen=True, slots=True)
class Grant:
    """How many of the messages may be sent now, and when the others may.

    `wait_seconds` is the time that earlier refused messages need. The rest of these messages follows at `per_second` tokens.
    """

    messages: int
    wait_seconds: float
    per_second: float


class TokenBucket(Protocol):
    """A token bucket for messages that cost one or more tokens. Refused messages get times in a virtual queue, so that they come
    back spread out.

    A message is sent if there is a token for its first segment; the missing tokens become a debt. So a message that costs more
    than the burst is not refused for ever, and the average rate still holds.
    """

    def take(self, costs: Sequence[int], flow: str) -> Grant:
        """Take tokens for as many of these messages, from the first on, as possible. For `flow` see `Outbound`."""
        ...


# The virtual queue is no longer than this: some refused messages never come back, and others must not wait for them.
QUEUE_SECONDS_MAX = 300.0


FLOW_IDLE_SECONDS = 5.0  # after this time without a request or a queue, a flow has no share


class LocalBucket:
    """A bucket of this process, with one queue. It starts empty, so that many new workers do not cause a burst."""

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


# The script uses the store's clock, so that hosts need not agree on the time. An unused bucket is full, and its key expires.
#
# Fair shares: each active campaign has an account beside the bucket, filled at its share of the rate. With several campaigns, one
# may take what is on its account, or what is in the upper half of the bucket, which the others did not use.
_TAKE_SCRIPT = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local per_second, burst, floor = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local queue_max, idle, flow = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local tokens, account, wait, sharing, known = burst, nil, 0, 0, false
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  local name, first, second, third = fields[i], string.match(fields[i + 1], '(%S+) (%S+) ?(%S*)')
  local passed = math.max(0, now - second)
  if name == 'bucket' then
    tokens = math.min(burst, first + passed * per_second)
  elseif name == 'flow:' .. flow then
    account, wait, known = first + 0, math.max(0, third - passed), passed
  elseif passed > idle + third then
    redis.call('HDEL', KEYS[1], name)
  elseif name ~= 'flow:' then
    sharing = sharing + 1
  end
end
local share, free = per_second, tokens - floor
if flow ~= '' then
  share = per_second / (sharing + 1)
  account = math.min(burst / (sharing + 1), (account or burst) + (known or 0) * share)
  if sharing > 0 then free = math.min(free, math.max(account, tokens - burst / 2)) end
end
local granted, spent, refused, largest = 0, 0, 0, 0
for i = 7, #ARGV do
  local cost = tonumber(ARGV[i])
  if free - spent >= 1 then
    granted, spent, largest = granted + 1, spent + cost, math.max(largest, cost)
  else
    refused = refused + cost
  end
end
local queue = math.min(queue_max, wait + refused / share)
local function text(number) return string.format('%.6f', number) end
redis.call('HSET', KEYS[1], 'bucket', text(tokens - spent) .. ' ' .. text(now))
local rest = math.max((account or 0) - spent, -largest)
redis.call('HSET', KEYS[1], 'flow:' .. flow, text(rest) .. ' ' .. text(now) .. ' ' .. text(queue))
redis.call('PEXPIRE', KEYS[1], math.ceil((queue + idle + (burst + largest) / per_second) * 1000) + 1000)
return {granted, text(wait), text(share)}
"""


STORE_RETRY_AFTER = timedelta(seconds=5)


class SharedBucket:
    """A bucket that all workers share, in Valkey or Redis. While the store cannot be reached, a small local bucket."""

    def __init__(self, store: Redis, name: str, rate: Rate, now: Clock) -> None:
        self._take = store.register_script(_TAKE_SCRIPT)
        self._key, self._rate, self._now = f"dispatcher:rate:{name}", rate, now
        self._name, self._away_until = name, now()
        self._fallback = LocalBucket(rate.fallback(), now)

    def take(self, costs: Sequence[int], flow: str) -> Grant:
        """See `TokenBucket`. Campaigns that send at the same time get equal shares, whatever the number of their workers."""
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
    """Return the tokens that a message costs: an SMS its segments, which carriers and providers count; any other message one."""
    if not isinstance(outbound.content, Sms):
        return 1
    try:
        return max(1, count_segments(outbound.content.text).count)
    except TypeError:  # the text is not a string: the adapter will refuse it
        return 1


class RateLimited(ProviderWrapper):
    """Sends no more than the rate of the channel, over all workers and both its providers.

    Messages over the rate get `Throttled` with the time at which the rate allows them. Messages without a campaign are triggers
    and may use the reserve.
    """

    def __init__(self, inner: Provider, bucket: TokenBucket) -> None:
        super().__init__(inner)
        self._bucket = bucket

    def send(self, batch: Sequence[Outbound], window: SendWindow) -> Results:
        """See `channels.base.Provider`."""
        flows: dict[str, list[Outbound]] = {}
        for outbound in batch:
            flows.setdefault(outbound.flow, []).append(outbound)
        for flow, messages in flows.items():
            yield from self._send(messages, flow, window)

    def _send(self, batch: Sequence[Outbound], flow: str, window: SendWindow) -> Results:
        costs = [token_cost(outbound) for outbound in batch]
        grant = self._bucket.take(costs, flow)
        if grant.messages:
            yield from self.inner.send(batch[: grant.messages], window)
        turns = list(accumulate(costs[grant.messages :]))
        if turns and (listener := observer()) is not None:
            longest = min(QUEUE_SECONDS_MAX, grant.wait_seconds + turns[-1] / grant.per_second)
            listener.rate_limited(self.channel, len(turns), longest)
        for turn, outbound in zip(turns, batch[grant.messages :], strict=True):
            seconds = min(QUEUE_SECONDS_MAX, grant.wait_seconds + turn / grant.per_second)
            yield outbound, Throttled("rate_limited", "over our own rate limit", seconds)

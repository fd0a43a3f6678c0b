"""Rate limiter, circuit breaker and failover."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis
from structlog.testing import capture_logs

from channels.base import (
    BadAddress,
    Channel,
    ChannelError,
    Misconfigured,
    OptedOut,
    Outbound,
    Receipt,
    Rejected,
    Result,
    Sms,
    Throttled,
    Unavailable,
    Uncertain,
)
from channels.providers.outbox import Outbox
from channels.resilience.circuit_breaker import CircuitBreaker
from channels.resilience.failover import Failover, WeightedProvider
from channels.resilience.rate_limiter import (
    QUEUE_SECONDS_MAX,
    LocalBucket,
    Rate,
    RateLimited,
    SharedBucket,
    TokenBucket,
    token_cost,
)
from channels.send_window import window_of
from tests.support.provider_cases import EMAIL, closed_port, mailbox, phone
from tests.support.services import Clock

SLOW = Rate(per_second=0.001, burst=100)


def mails(count: int, first: int = 0) -> list[Outbound]:
    return [Outbound(f"m-{number}", Channel.EMAIL, mailbox(number), EMAIL) for number in range(first, first + count)]


def kinds(pairs: Iterator[tuple[Outbound, Result]]) -> Counter[type[Any]]:
    return Counter(type(result) for _, result in pairs)


@pytest.fixture
def store(broker_url: str) -> Iterator[Redis]:
    with Redis.from_url(broker_url.replace("redis+socket://", "unix://").replace("virtual_host", "db")) as client:
        yield client


# -- rates -------------------------------------------------------------------------------------------------------------


def leaving(bucket: TokenBucket, wanted: int, flow: str = "spring") -> int:
    return bucket.take([1] * wanted, flow).messages


def test_workers_share_a_rate_and_triggers_have_a_reserve(store: Redis) -> None:
    clock = Clock()
    buckets = [SharedBucket(store, "mail", SLOW, clock) for _ in range(3)]
    assert [leaving(bucket, 40) for bucket in buckets] == [40, 40, 10]
    assert [leaving(bucket, 6, flow="") for bucket in buckets] == [6, 4, 0]
    assert leaving(SharedBucket(store, "texts", SLOW, clock), 1) == 1


def test_a_bucket_fills_at_its_rate_up_to_the_burst(store: Redis) -> None:
    clock = Clock()
    bucket = LocalBucket(Rate(per_second=2, burst=10, reserve=0), clock)
    assert leaving(bucket, 5) == 0
    clock.pass_(2)
    assert leaving(bucket, 9) == 4
    clock.pass_(1000)
    assert leaving(bucket, 99) == 10
    shared = SharedBucket(store, "mail", Rate(per_second=1e6, burst=10, reserve=0), clock)
    assert [leaving(shared, 99) for _ in range(3)] == [10, 10, 10]


@pytest.mark.parametrize("shared", [True, False])
def test_a_token_debt_is_paid_before_the_next_message(store: Redis, shared: bool) -> None:
    clock, rate = Clock(), Rate(per_second=0.001, burst=10, reserve=0)
    bucket: TokenBucket = SharedBucket(store, "texts", rate, clock) if shared else LocalBucket(rate, clock)
    clock.pass_(10_000)
    assert bucket.take([4, 4, 4, 4], "spring").messages == 3
    refused = bucket.take([1], "")
    assert refused.messages == 0  # a debt of two tokens
    if not shared:
        clock.pass_(2_000)
        assert bucket.take([1], "").messages == 0
        clock.pass_(1_001)
        assert bucket.take([24], "").messages == 1  # costs more than the burst, and is still sent


def test_campaigns_get_equal_shares_with_any_workers(store: Redis) -> None:
    bucket = SharedBucket(store, "texts", Rate(per_second=2_000, burst=400), Clock())
    taken: Counter[str] = Counter()
    leaving(bucket, 1, "small")
    while bucket.take([1] * 50, "large").messages:  # alone, it uses the whole rate
        pass
    for _ in range(100):
        for flow in (*["large"] * 8, "small"):
            taken[flow] += leaving(bucket, 50, flow)
        time.sleep(0.003)
    assert taken["small"] > 100
    assert 0.6 < taken["large"] / taken["small"] < 1.7  # with eight requests to one


def test_an_unused_share_goes_to_other_campaigns(store: Redis) -> None:
    bucket = SharedBucket(store, "texts", SLOW, Clock())
    assert leaving(bucket, 1, "small") == 1
    assert leaving(bucket, 200, "large") == 50  # its half, or the unused upper half
    assert leaving(bucket, 200, "large") == 0
    assert leaving(bucket, 200, "small") == 39  # down to the reserve
    assert leaving(bucket, 200, "") == 10


def test_a_campaign_waits_only_for_its_own_messages(store: Redis) -> None:
    bucket = SharedBucket(store, "texts", Rate(per_second=1, burst=10, reserve=0), Clock())
    assert bucket.take([1] * 110, "large").wait_seconds == 0
    assert bucket.take([1] * 10, "large").wait_seconds > 90
    grant = bucket.take([1] * 10, "small")
    assert (grant.wait_seconds, grant.per_second) == (0, 0.5)
    assert 15 < bucket.take([1], "small").wait_seconds <= 20  # ten at its half of the rate


def test_a_campaign_pays_its_token_debt_first(store: Redis) -> None:
    bucket = SharedBucket(store, "texts", Rate(per_second=100, burst=1_000, reserve=0), Clock())
    leaving(bucket, 1, "small")
    assert bucket.take([900], "large").messages == 1  # its half is 500
    time.sleep(0.05)
    assert (leaving(bucket, 50, "large"), leaving(bucket, 50, "small")) == (0, 50)


def test_the_upper_half_of_the_bucket_is_free_for_all(store: Redis) -> None:
    bucket = SharedBucket(store, "texts", SLOW, Clock())
    assert [leaving(bucket, 1, flow) for flow in ("first", "second")] == [1, 1]
    assert leaving(bucket, 200, "third") == 48  # more than a third


def test_an_sms_costs_its_segments() -> None:
    long = "x" * 161
    sms = [Outbound("m", Channel.SMS, phone(1), Sms(text)) for text in ("x", long, "€" * 80, "ç" * 71, "")]
    assert [token_cost(each) for each in sms] == [1, 2, 1, 2, 1]
    assert [token_cost(each) for each in mails(2)] == [1, 1]
    clock, outbox = Clock(), Outbox(Channel.SMS)
    limited = RateLimited(outbox, LocalBucket(Rate(per_second=1, burst=4, reserve=0), clock))
    clock.pass_(4)
    batch = [Outbound(f"m-{number}", Channel.SMS, phone(number), Sms(long), flow="spring") for number in range(4)]
    found = [result for _, result in limited.send(batch, window_of(30))]
    assert [type(result) for result in found] == [Receipt, Receipt, Throttled, Throttled]
    assert [result.retry_after_seconds for result in found if isinstance(result, Throttled)] == [2.0, 4.0]
    broken = replace(batch[0], content=Sms(None))  # type: ignore[arg-type]
    assert isinstance(dict(limited.send([broken], window_of(30)))[broken], Throttled)


def test_a_message_without_campaign_uses_the_reserve(store: Redis) -> None:
    outbox = Outbox(Channel.EMAIL)
    limited = RateLimited(outbox, SharedBucket(store, "mail", SLOW, Clock()))
    campaign = [replace(mail, flow="spring") for mail in mails(100)]
    assert kinds(limited.send(campaign, window_of(30))) == {Receipt: 90, Throttled: 10}
    assert kinds(limited.send([campaign[-1]], window_of(30))) == {Throttled: 1}  # a campaign message is not a trigger
    assert kinds(limited.send(mails(12), window_of(30))) == {Receipt: 10, Throttled: 2}


def test_without_the_store_a_small_local_rate_applies() -> None:
    clock = Clock()
    away = Redis(port=closed_port(), socket_connect_timeout=1)
    bucket = SharedBucket(away, "mail", Rate(per_second=100, burst=100, reserve=0), clock)
    with capture_logs() as logs:
        assert leaving(bucket, 50) == 0
        clock.pass_(1)
        assert leaving(bucket, 50) == 5
    assert [entry["code"] for entry in logs] == ["rate_store_away"]  # it is not used again at once


def test_the_store_is_used_again_after_an_outage(store: Redis) -> None:
    clock = Clock()
    bucket = SharedBucket(store, "mail", SLOW, clock)
    store.set("dispatcher:rate:mail", "not a bucket")  # the store answers with an error
    assert leaving(bucket, 1, flow="") == 0
    store.delete("dispatcher:rate:mail")
    clock.pass_(6)
    assert leaving(bucket, 1, flow="") == 1


def test_messages_over_the_rate_get_a_time() -> None:
    clock, outbox = Clock(), Outbox(Channel.EMAIL)
    limited = RateLimited(outbox, LocalBucket(Rate(per_second=4, burst=8, reserve=0), clock))
    clock.pass_(1)
    found = list(limited.send(mails(7), window_of(30)))
    assert [type(result) for _, result in found] == [Receipt] * 4 + [Throttled] * 3
    assert [result.retry_after_seconds for _, result in found if isinstance(result, Throttled)] == [0.25, 0.5, 0.75]
    assert len(outbox.sent) == 4
    later = [result for _, result in limited.send(mails(2), window_of(30))]
    assert [result.retry_after_seconds for result in later if isinstance(result, Throttled)] == [1.0, 1.25]  # behind the others


def test_the_virtual_queue_is_shared_and_limited(store: Redis) -> None:
    clock = Clock()
    first, second = (SharedBucket(store, "mail", Rate(per_second=1, burst=10, reserve=0), clock) for _ in range(2))
    assert first.take([1] * 110, "spring").wait_seconds == 0
    assert 10 < second.take([1] * 1000, "spring").wait_seconds <= 100
    assert first.take([1], "spring").wait_seconds <= QUEUE_SECONDS_MAX


def test_an_unused_bucket_expires(store: Redis) -> None:
    bucket = SharedBucket(store, "mail", Rate(per_second=1, burst=10), Clock())
    leaving(bucket, 30)
    assert 0 < store.pttl("dispatcher:rate:mail") <= 60_000


# -- trouble -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Unavailable("refused"), Uncertain("no_answer")])
def test_an_open_breaker_pauses_then_sends_one_probe(fault: ChannelError) -> None:
    clock, outbox = Clock(), Outbox(Channel.EMAIL)
    breaker = CircuitBreaker(outbox, clock, failures_max=3, pause_seconds=10)
    outbox.answers = {mailbox(number): type(fault)(fault.code) for number in range(5)}
    assert kinds(breaker.send(mails(5), window_of(30))) == {type(fault): 5}
    held = list(breaker.send(mails(5, 5), window_of(30)))
    assert {type(result) for _, result in held} == {Throttled}
    clock.pass_(10)
    assert kinds(breaker.send(mails(2), window_of(30))) == {type(fault): 1, Throttled: 1}
    outbox.answers = {}
    clock.pass_(10)
    assert kinds(breaker.send(mails(5, 5), window_of(30))) == {Receipt: 5}


def test_refusals_and_one_failure_do_not_open_the_breaker() -> None:
    clock, outbox = Clock(), Outbox(Channel.EMAIL)
    breaker = CircuitBreaker(outbox, clock, failures_max=3)
    outbox.answers = {"": Uncertain("no_answer")}  # one answer, shared by all: mails of one request
    assert kinds(breaker.send(mails(50), window_of(30))) == {Uncertain: 50}
    outbox.answers = {"": Rejected("http_400")}
    assert kinds(breaker.send(mails(50), window_of(30))) == {Rejected: 50}
    assert kinds(breaker.send(mails(50), window_of(30))) == {Rejected: 50}


# -- the second way ----------------------------------------------------------------------------------------------------

STAYED: Sequence[ChannelError] = (Unavailable("refused"), Throttled("http_429"), Misconfigured("http_401"))
ENDED: Sequence[ChannelError] = (Uncertain("no_answer"), Rejected("http_400"), BadAddress("550"), OptedOut("21610"))


def test_failover_takes_only_what_was_not_sent() -> None:
    first, second = Outbox(Channel.EMAIL), Outbox(Channel.EMAIL)
    first.answers = {mailbox(number): error for number, error in enumerate((*STAYED, *ENDED))}
    both = Failover([WeightedProvider(first, 1), WeightedProvider(second, 0)], lambda: 0.5)
    found = {sent.id: result for sent, result in both.send(mails(8), window_of(30))}
    assert [sent.id for sent in second.sent] == ["m-0", "m-1", "m-2"]
    assert [found[f"m-{number}"] for number in range(3, 7)] == list(ENDED)
    assert isinstance(found["m-7"], Receipt)


def test_each_route_is_tried_once_and_the_last_error_stays() -> None:
    first, second = Outbox(Channel.EMAIL), Outbox(Channel.EMAIL)
    first.answers, second.answers = {"": Unavailable("refused")}, {"": Throttled("450")}
    both = Failover([WeightedProvider(first, 1), WeightedProvider(second, 1)], itertools.cycle([0.0, 0.99]).__next__)
    batch = [*mails(3), *mails(3)]  # a push message to two devices has the same id twice; here all messages have
    found = list(both.send(batch, window_of(30)))
    assert len(found) == 6
    assert Counter(type(result) for _, result in found) == {Throttled: 3, Unavailable: 3}


def test_each_route_takes_its_share() -> None:
    first, second = Outbox(Channel.EMAIL), Outbox(Channel.EMAIL)
    random = itertools.cycle(number / 100 for number in range(100)).__next__
    assert kinds(Failover([WeightedProvider(first, 9), WeightedProvider(second, 1)], random).send(mails(100), window_of(30))) == {
        Receipt: 100
    }
    assert (len(first.sent), len(second.sent)) == (90, 10)


def test_wrappers_pass_on_check_and_close() -> None:
    clock, outbox = Clock(), Outbox(Channel.EMAIL)
    outbox.answers = {"": Misconfigured("http_401")}
    for braked in (
        CircuitBreaker(outbox, clock),
        RateLimited(outbox, LocalBucket(SLOW, clock)),
        Failover([WeightedProvider(outbox, 1)], lambda: 0.5),
    ):
        assert (braked.name, braked.channel) == ("outbox", Channel.EMAIL)
        assert isinstance(braked.check(), Misconfigured)
        assert list(braked.send([], window_of(30))) == []
        braked.close()

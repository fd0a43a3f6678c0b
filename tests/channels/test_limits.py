"""Brakes: a rate is shared and never exceeded, trouble brings a pause, and only what surely stayed takes the second way."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
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
    Throttled,
    Unavailable,
    Uncertain,
)
from channels.limits import QUEUE_SECONDS_MAX, Breaker, Failover, Limited, LocalBucket, Rate, Route, SharedBucket
from channels.outbox import Outbox
from tests.channels.rigs import EMAIL, closed_port, mailbox
from tests.houses import Clock

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


def test_all_workers_share_one_rate_and_campaigns_leave_the_reserve(store: Redis) -> None:
    clock = Clock()
    buckets = [SharedBucket(store, "mail", SLOW, clock) for _ in range(3)]
    assert [bucket.take(40, first_class=False).tokens for bucket in buckets] == [40, 40, 10]
    assert [bucket.take(6, first_class=True).tokens for bucket in buckets] == [6, 4, 0]
    assert SharedBucket(store, "texts", SLOW, clock).take(1, first_class=False).tokens == 1


def test_a_bucket_fills_at_its_rate_up_to_its_brim(store: Redis) -> None:
    clock = Clock()
    bucket = LocalBucket(Rate(per_second=2, burst=10, reserve=0), clock)
    assert bucket.take(5, first_class=False).tokens == 0
    clock.pass_(2)
    assert bucket.take(9, first_class=False).tokens == 4
    clock.pass_(1000)
    assert bucket.take(99, first_class=False).tokens == 10
    shared = SharedBucket(store, "mail", Rate(per_second=1e6, burst=10, reserve=0), clock)
    assert [shared.take(99, first_class=False).tokens for _ in range(3)] == [10, 10, 10]


def test_without_the_store_a_small_rate_of_ones_own_holds() -> None:
    clock = Clock()
    away = Redis(port=closed_port(), socket_connect_timeout=1)
    bucket = SharedBucket(away, "mail", Rate(per_second=100, burst=100, reserve=0), clock)
    with capture_logs() as logs:
        assert bucket.take(50, first_class=False).tokens == 0
        clock.pass_(1)
        assert bucket.take(50, first_class=False).tokens == 5
    assert [entry["code"] for entry in logs] == ["rate_store_away"]  # it is not asked again at once


def test_the_store_is_used_again_when_it_is_back(store: Redis) -> None:
    clock = Clock()
    bucket = SharedBucket(store, "mail", SLOW, clock)
    store.set("dispatcher:rate:mail", "not a bucket")  # the store answers with an error
    assert bucket.take(1, first_class=True).tokens == 0
    store.delete("dispatcher:rate:mail")
    clock.pass_(6)
    assert bucket.take(1, first_class=True).tokens == 1


def test_what_is_over_the_rate_comes_back_at_its_turn() -> None:
    clock, outbox = Clock(), Outbox(Channel.EMAIL)
    limited = Limited(outbox, LocalBucket(Rate(per_second=4, burst=8, reserve=0), clock), 4)
    clock.pass_(1)
    found = list(limited.send(mails(7)))
    assert [type(result) for _, result in found] == [Receipt] * 4 + [Throttled] * 3
    assert [result.retry_after_seconds for _, result in found if isinstance(result, Throttled)] == [0.25, 0.5, 0.75]
    assert len(outbox.sent) == 4
    later = [result for _, result in limited.send(mails(2))]
    assert [result.retry_after_seconds for result in later if isinstance(result, Throttled)] == [1.0, 1.25]  # behind the others


def test_the_queue_of_the_refused_is_shared_too_and_has_an_end(store: Redis) -> None:
    clock = Clock()
    first, second = (SharedBucket(store, "mail", Rate(per_second=1, burst=10, reserve=0), clock) for _ in range(2))
    assert first.take(110, first_class=False).wait_seconds == 0
    assert 10 < second.take(1000, first_class=False).wait_seconds <= 100
    assert first.take(1, first_class=False).wait_seconds <= QUEUE_SECONDS_MAX


# -- trouble -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Unavailable("refused"), Uncertain("no_answer")])
def test_a_provider_in_trouble_is_left_in_peace_and_tried_with_one(fault: ChannelError) -> None:
    clock, outbox = Clock(), Outbox(Channel.EMAIL)
    breaker = Breaker(outbox, clock, faults_max=3, pause_seconds=10)
    outbox.answers = {mailbox(number): type(fault)(fault.code) for number in range(5)}
    assert kinds(breaker.send(mails(5))) == {type(fault): 5}
    held = list(breaker.send(mails(5, 5)))
    assert {type(result) for _, result in held} == {Throttled}
    clock.pass_(10)
    assert kinds(breaker.send(mails(2))) == {type(fault): 1, Throttled: 1}
    outbox.answers = {}
    clock.pass_(10)
    assert kinds(breaker.send(mails(5, 5))) == {Receipt: 5}


def test_refusals_and_a_single_lost_request_bring_no_pause() -> None:
    clock, outbox = Clock(), Outbox(Channel.EMAIL)
    breaker = Breaker(outbox, clock, faults_max=3)
    outbox.answers = {"": Uncertain("no_answer")}  # one answer, shared by all: mails of one request
    assert kinds(breaker.send(mails(50))) == {Uncertain: 50}
    outbox.answers = {"": Rejected("http_400")}
    assert kinds(breaker.send(mails(50))) == {Rejected: 50}
    assert kinds(breaker.send(mails(50))) == {Rejected: 50}


# -- the second way ----------------------------------------------------------------------------------------------------

STAYED: Sequence[ChannelError] = (Unavailable("refused"), Throttled("http_429"), Misconfigured("http_401"))
ENDED: Sequence[ChannelError] = (Uncertain("no_answer"), Rejected("http_400"), BadAddress("550"), OptedOut("21610"))


def test_only_what_surely_stayed_takes_the_second_way() -> None:
    first, second = Outbox(Channel.EMAIL), Outbox(Channel.EMAIL)
    first.answers = {mailbox(number): error for number, error in enumerate((*STAYED, *ENDED))}
    both = Failover([Route(first, 1), Route(second, 0)], lambda: 0.5)
    found = {sent.id: result for sent, result in both.send(mails(8))}
    assert [sent.id for sent in second.sent] == ["m-0", "m-1", "m-2"]
    assert [found[f"m-{number}"] for number in range(3, 7)] == list(ENDED)
    assert isinstance(found["m-7"], Receipt)


def test_what_neither_takes_keeps_the_last_word_and_goes_round_once() -> None:
    first, second = Outbox(Channel.EMAIL), Outbox(Channel.EMAIL)
    first.answers, second.answers = {"": Unavailable("refused")}, {"": Throttled("450")}
    both = Failover([Route(first, 1), Route(second, 1)], itertools.cycle([0.0, 0.99]).__next__)
    batch = [*mails(3), *mails(3)]  # a push to two devices has one id twice; here whole messages are
    found = list(both.send(batch))
    assert len(found) == 6
    assert Counter(type(result) for _, result in found) == {Throttled: 3, Unavailable: 3}


def test_each_route_takes_its_share() -> None:
    first, second = Outbox(Channel.EMAIL), Outbox(Channel.EMAIL)
    dice = itertools.cycle(number / 100 for number in range(100)).__next__
    assert kinds(Failover([Route(first, 9), Route(second, 1)], dice).send(mails(100))) == {Receipt: 100}
    assert (len(first.sent), len(second.sent)) == (90, 10)


def test_brakes_pass_on_what_is_asked() -> None:
    clock, outbox = Clock(), Outbox(Channel.EMAIL)
    outbox.answers = {"": Misconfigured("http_401")}
    for braked in (Breaker(outbox, clock), Limited(outbox, LocalBucket(SLOW, clock), 1), Failover([Route(outbox, 1)], lambda: 0.5)):
        assert (braked.name, braked.channel) == ("outbox", Channel.EMAIL)
        assert isinstance(braked.check(), Misconfigured)
        assert list(braked.send([])) == []
        braked.close()

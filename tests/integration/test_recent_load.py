"""The load of the last hour: collected by each process, added up in the ledger, shown on the operations page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

import pytest

from channels.base import Channel, ChannelError, Outbound, Provider, Push, Receipt, Result, Unavailable
from channels.measurements import observer, set_observer
from channels.resilience.circuit_breaker import CircuitBreaker
from channels.resilience.observed import Observed
from channels.resilience.rate_limiter import LocalBucket, Rate, RateLimited
from channels.resilience.wrapper import Results
from channels.send_window import SendWindow
from dispatcher.ledger.connection import lend
from dispatcher.ledger.maintenance import load_samples
from dispatcher.maintenance import recent_load
from dispatcher.maintenance.recent_load import RecentLoad, quantile
from dispatcher.runtime.metrics import ChannelObserver
from dispatcher.runtime.minute_recorder import MinuteRecorder
from dispatcher.runtime.services import Services
from tests.integration.test_console import Visitor, visitor
from tests.support.services import NOON, Clock, make_services

__all__ = ["visitor"]

PLANTED = "+32470123456"


@pytest.fixture
def services(database: str) -> Iterator[Services]:
    with make_services(database, Clock()) as made:
        yield made


def clock(services: Services) -> Clock:
    assert isinstance(services.clock, Clock)
    return services.clock


def recorder(services: Services) -> MinuteRecorder:
    """That of one more process."""
    return MinuteRecorder(lambda: services.clock().timestamp())


def stored(services: Services, *recorders: MinuteRecorder) -> RecentLoad:
    for each in recorders:
        recent_load.record(services, each)
    return recent_load.last_hour(services)


def test_the_counts_of_two_processes_add_up(services: Services) -> None:
    one, other = recorder(services), recorder(services)
    one.add_batch("sendgrid", "email", {"accepted": 8, "rejected": 1, "throttled": 2}, [0.02] * 3)
    other.add_batch("sendgrid", "email", {"accepted": 5, "uncertain": 1, "stale_claim": 9}, [0.2, 70.0])
    other.add_batch("twilio", "sms", {"accepted": 1}, [0.02])
    clock(services).now += timedelta(minutes=1)
    one.add_batch("sendgrid", "email", {"accepted": 4, "misconfigured": 3}, [])
    load = stored(services, one, other)
    email, sms = load.providers
    assert ((email.channel, email.provider), (sms.channel, sms.provider)) == (("email", "sendgrid"), ("sms", "twilio"))
    total = email.total
    assert (total.accepted, total.refused, total.throttled, total.unavailable, total.uncertain) == (17, 1, 2, 3, 1)
    assert email.minutes[NOON].accepted == 13
    assert sum(email.minutes[NOON].answers) == 5
    assert load.minutes[-1] == NOON


def test_what_is_stored_is_not_stored_again(services: Services) -> None:
    one = recorder(services)
    one.add_batch("sendgrid", "email", {"accepted": 8}, [])
    assert stored(services, one, one).providers[0].total.accepted == 8


def test_names_come_from_closed_sets(services: Services) -> None:
    one = recorder(services)
    one.add_batch(PLANTED, PLANTED, {"accepted": 1, PLANTED: 1}, [0.1])
    one.add_batch("sendgrid", PLANTED, {"accepted": 1}, [0.1])
    (first, second) = stored(services, one).providers
    assert {(each.provider, each.channel) for each in (first, second)} == {("other", "other"), ("sendgrid", "other")}


class Scripted(Provider):
    """A provider that fails as long as it is told to."""

    name, channel = "sendgrid", Channel.EMAIL
    is_down = True

    def send(self, batch: Sequence[Outbound], window: SendWindow) -> Results:  # noqa: ARG002  the protocol's signature
        result: Result = Unavailable("down", "") if self.is_down else Receipt("r")
        yield from ((outbound, result) for outbound in batch)

    def check(self) -> ChannelError | None:
        return None

    def close(self) -> None:
        pass


def message(number: int) -> Outbound:
    return Outbound(f"202611-1-{number}-0", Channel.PUSH, "token", Push("Title", "Body", "https://example.org"), flow="1")


@pytest.fixture
def observed(services: Services) -> Iterator[MinuteRecorder]:
    before, made = observer(), recorder(services)
    set_observer(ChannelObserver(made))
    yield made
    if before is not None:
        set_observer(before)


def test_an_open_breaker_and_a_full_rate_are_recorded(services: Services, observed: MinuteRecorder) -> None:
    breaker = CircuitBreaker(Observed(Scripted()), services.clock, failures_max=2, pause_seconds=10.0)
    limited = RateLimited(breaker, LocalBucket(Rate(1.0, 2), services.clock))
    clock(services).now += timedelta(seconds=2)
    window = SendWindow(float("inf"), lambda: 0.0)
    for number in range(2):
        list(limited.send([message(number)], window))
        clock(services).now += timedelta(seconds=1)
    list(limited.send([message(number) for number in range(5)], window))
    load = stored(services, observed)
    (provider,), (limit,) = load.providers, load.limits
    assert (provider.total.openings, limit.channel) == (1, "email")
    assert provider.total.open_until is not None
    assert services.clock() < provider.total.open_until <= services.clock() + timedelta(seconds=10)
    assert (limit.total.put_back, provider.total.put_back) == (4, 0)
    assert limit.total.wait_seconds_max > 0


def test_minutes_are_deleted_after_a_day(services: Services) -> None:
    one = recorder(services)
    one.add_batch("sendgrid", "email", {"accepted": 8}, [])
    stored(services, one)
    with lend(services.pool) as connection:
        load_samples.note_lanes(connection, NOON, {"campaign": 3})
        load_samples.note_lanes(connection, NOON, {"campaign": 1})
    assert recent_load.last_hour(services).lanes == {}  # the minute still runs
    clock(services).now += timedelta(minutes=1)
    assert recent_load.last_hour(services).lanes == {NOON: {"campaign": 3}}
    clock(services).now += timedelta(days=1)
    recent_load.record_lanes(services)
    with lend(services.pool) as connection:
        assert (load_samples.providers_since(connection, NOON), load_samples.lanes_since(connection, NOON)) == ([], [])


@pytest.mark.parametrize(
    ("answers", "share", "seconds"),
    [([], 0.5, None), ([0, 10], 0.5, 0.0075), ([10, 10], 0.95, 0.0095), ([0] * 13 + [4], 0.5, 60.0)],
)
def test_a_quantile_is_read_from_buckets(answers: list[int], share: float, seconds: float | None) -> None:
    padded = answers + [0] * (14 - len(answers)) if answers else []
    assert quantile(padded, share) == (pytest.approx(seconds) if seconds is not None else None)


def test_the_operations_page_shows_the_last_hour(visitor: Visitor) -> None:
    visitor.sign_in()
    assert "Nothing was sent in the last hour." in visitor.get("/console/operations")
    one = recorder(visitor.services)
    one.add_batch("sendgrid", "email", {"accepted": 1234, "throttled": 2}, [0.042] * 9)
    one.add_opening("sendgrid", "email", 3_600)
    one.add_put_back("sms", 77, 4.5)
    recent_load.record(visitor.services, one)
    with lend(visitor.services.pool) as connection:
        load_samples.note_lanes(connection, visitor.clock().replace(second=0, microsecond=0), {"campaign": 5, "clock": 0})
    visitor.clock.now += timedelta(minutes=1)
    text = visitor.get("/console/operations")
    for shown in (
        "email · sendgrid",
        "1\u202f234",
        "open until",
        "1 opening",
        'data-count="1234"',
        'data-count="5"',
        ">77<",
        "4.5 s",
    ):
        assert shown in text, shown
    assert text.count('<figure class="chart"') == 3
    assert 'data-count=""' in text  # no answer in the other minutes

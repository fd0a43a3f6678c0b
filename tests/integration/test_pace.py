"""A campaign keeps its rate and its time: after quiet hours, a standstill, a pause or a late release."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from channels.base import Channel, Throttled
from dispatcher.campaigns import scheduler, submission
from dispatcher.delivery.pipeline import run_chunk
from dispatcher.domain.campaign import CampaignState
from dispatcher.intake.campaign import parse_campaign
from dispatcher.ledger.campaigns import lifecycle
from dispatcher.ledger.campaigns.lifecycle import Campaign
from dispatcher.ledger.connection import lend
from dispatcher.ledger.delivery.scheduling import DueChunk
from dispatcher.runtime.services import Services
from tests.support.services import Clock, add_people, make_services, outbox, person, states, work

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
HOUR = 3_600.0
MONDAY = datetime(2026, 11, 23, 11, 0, tzinfo=UTC)
FRIDAY_11 = datetime(2026, 11, 27, 11, 0, tzinfo=UTC)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def services(database: str, clock: Clock) -> Iterator[Services]:
    with make_services(database, clock) as made:
        yield made


def submit(services: Services, count: int, **changes: Any) -> None:
    people = [f"c-{number}" for number in range(count)]
    add_people(services, *(person(each, phone=f"+32470{number:06}") for number, each in enumerate(people)))
    rows = [{"recipient": recipient_id, "data": OFFER} for recipient_id in people]
    form = {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": rows, **changes}
    submission.submit(services, parse_campaign(form, submission.validation_context(services)), by="Anne")


def campaign(services: Services) -> Campaign:
    with lend(services.pool) as connection:
        found = lifecycle.find(connection, "spring")
    assert found is not None
    return found


def per_tick(services: Services, clock: Clock, ticks: int, seconds: float = 1.0, channel: Channel = Channel.EMAIL) -> list[int]:
    """The messages that were handed off at each tick of the clock, the first of them now."""
    counts = []
    for _ in range(ticks):
        before = len(outbox(services, channel).sent)
        work(services)
        counts.append(len(outbox(services, channel).sent) - before)
        clock.pass_(seconds)
    return counts


# -- the rate ----------------------------------------------------------------------------------------------------------


def test_messages_held_over_night_leave_in_the_morning_at_the_campaign_s_rate(services: Services, clock: Clock) -> None:
    clock.now = datetime(2026, 11, 23, 18, 59, 30, tzinfo=UTC)  # 19:59:30 in Brussels
    submit(services, 120, channels=["sms"], rate_per_second=1)
    assert sum(per_tick(services, clock, 120, channel=Channel.SMS)) == 30
    assert states(services) == {"accepted": 30, "held": 90}
    clock.now = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
    assert per_tick(services, clock, 91, channel=Channel.SMS) == [1] * 90 + [0]


def test_the_rate_holds_after_everything_stood_still(services: Services, clock: Clock) -> None:
    submit(services, 1_000, rate_per_second=10)
    assert per_tick(services, clock, 3) == [10] * 3
    clock.pass_(63)
    assert per_tick(services, clock, 40) == [10] * 40


def test_the_rate_holds_after_only_the_workers_stood_still(services: Services, clock: Clock) -> None:
    submit(services, 1_000, rate_per_second=10)
    on_the_broker: list[DueChunk] = []
    for _ in range(63):
        on_the_broker += scheduler.due_chunks(services)
        clock.pass_(1)
    for due in on_the_broker:
        run_chunk(services, due.period, due.number)
    assert len(outbox(services).sent) == 10
    clock.pass_(1)
    assert per_tick(services, clock, 40) == [10] * 40


@pytest.mark.parametrize("seconds", [0.4, 0.97, 1.03, 1.6])
def test_a_clock_that_ticks_unevenly_loses_nothing_of_the_rate(services: Services, clock: Clock, seconds: float) -> None:
    submit(services, 400, rate_per_second=10)
    clock.pass_(1_000)  # all of it is overdue, so that only the rate holds it back
    ticks = int(30 / seconds)
    assert abs(sum(per_tick(services, clock, ticks, seconds)) - 10 * ticks * seconds) <= 20


def test_retries_that_are_due_at_one_moment_leave_at_the_rate(services: Services, clock: Clock) -> None:
    submit(services, 60, rate_per_second=10)
    outbox(services).answers[""] = Throttled("429", retry_after_seconds=60)
    per_tick(services, clock, 6)
    assert states(services) == {"waiting": 60}
    outbox(services).answers.clear()
    clock.pass_(HOUR)
    assert per_tick(services, clock, 7) == [10] * 6 + [0]


def test_a_high_rate_is_reached(services: Services, clock: Clock) -> None:
    submit(services, 9_000, rate_per_second=2_500)
    clock.pass_(HOUR)
    counts = per_tick(services, clock, 4)
    assert abs(sum(counts[:3]) - 7_500) <= 1_500
    assert sum(counts) == 9_000


def test_a_campaign_without_a_rate_leaves_at_once(services: Services) -> None:
    submit(services, 3_500)
    assert len(scheduler.due_chunks(services)) == 4
    with lend(services.pool) as connection:
        connection.execute("UPDATE chunks SET touched_at = NULL")
    work(services)
    assert states(services) == {"accepted": 3_500}
    with lend(services.pool) as connection:
        assert connection.execute("SELECT count(*) FROM campaign_paces").fetchone() == (0,)


def test_every_channel_of_route_all_counts_as_a_message(services: Services, clock: Clock) -> None:
    submit(services, 40, channels=["email", "push"], route="all", rate_per_second=10)
    assert per_tick(services, clock, 9) == [5] * 8 + [0]
    assert states(services) == {"accepted": 40}


# -- pause and release -------------------------------------------------------------------------------------------------


def test_a_pause_before_its_hour_does_not_move_a_campaign(services: Services, clock: Clock) -> None:
    clock.now = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)
    submit(services, 3, send_at=datetime(2026, 11, 23, 21, 0, tzinfo=UTC).isoformat())
    with lend(services.pool) as connection:
        assert lifecycle.pause_by_id(connection, "spring", clock.now)
        clock.pass_(5 * HOUR)
        assert lifecycle.resume(connection, "spring", clock.now)
    clock.pass_(HOUR - 1)
    work(services)
    assert states(services) == {"pending": 3}
    clock.pass_(1)
    work(services)
    assert states(services) == {"accepted": 3}


def released_on_wednesday(services: Services, clock: Clock, **changes: Any) -> None:
    services = replace(services, policy=replace(services.policy, four_eyes_audience_min=1))
    submit(services, 3, send_at=FRIDAY_11.isoformat(), **changes)
    clock.pass_(48 * HOUR)
    with lend(services.pool) as connection:
        assert lifecycle.release(connection, "spring", "Bart")


def test_a_release_before_its_hour_does_not_move_a_campaign(services: Services, clock: Clock) -> None:
    released_on_wednesday(services, clock)
    clock.now = FRIDAY_11 - timedelta(seconds=1)
    work(services)
    assert states(services) == {"pending": 3}
    clock.pass_(1)
    work(services)
    assert states(services) == {"accepted": 3}


def test_a_release_before_its_hour_does_not_let_the_audience_expire(services: Services, clock: Clock) -> None:
    released_on_wednesday(services, clock, expires_at=(FRIDAY_11 + timedelta(hours=8)).isoformat())
    for _ in range(24):
        clock.pass_(HOUR * 5)
        work(services)
    assert states(services) == {"accepted": 3}


def test_a_campaign_paused_while_it_ran_keeps_its_rate(services: Services, clock: Clock) -> None:
    submit(services, 20, rate_per_second=2)
    assert per_tick(services, clock, 3) == [2] * 3
    with lend(services.pool) as connection:
        assert lifecycle.pause_by_id(connection, "spring", clock.now)
    assert per_tick(services, clock, 5) == [0] * 5
    with lend(services.pool) as connection:
        assert lifecycle.resume(connection, "spring", clock.now)
    assert per_tick(services, clock, 8) == [2] * 7 + [0]
    assert campaign(services).state is CampaignState.FINISHED


@pytest.mark.parametrize("late_seconds", [0.0, 10 * HOUR])
def test_a_campaign_resumed_after_its_hour_starts_at_once_with_its_rate(
    services: Services, clock: Clock, late_seconds: float
) -> None:
    submit(services, 10, send_at=(clock.now + timedelta(hours=1)).isoformat(), rate_per_second=2)
    with lend(services.pool) as connection:
        assert lifecycle.pause_by_id(connection, "spring", clock.now)
        clock.pass_(HOUR + late_seconds)
        assert lifecycle.resume(connection, "spring", clock.now)
    assert per_tick(services, clock, 6) == [2] * 5 + [0]


def test_a_campaign_released_after_its_hour_starts_at_once_with_its_rate(services: Services, clock: Clock) -> None:
    large = replace(services, policy=replace(services.policy, four_eyes_audience_min=1))
    submit(large, 10, send_at=(clock.now + timedelta(hours=1)).isoformat(), rate_per_second=2)
    clock.pass_(3 * HOUR)
    with lend(services.pool) as connection:
        assert lifecycle.release(connection, "spring", "Bart")
    assert per_tick(services, clock, 6) == [2] * 5 + [0]


def test_two_campaigns_have_each_their_own_rate(services: Services, clock: Clock) -> None:
    submit(services, 30, rate_per_second=2)
    rows: Sequence[Any] = [{"recipient": f"c-{number}", "data": OFFER} for number in range(30)]
    form = {"id": "summer", "template": "loan_offer", "channels": ["push"], "audience": rows, "rate_per_second": 3}
    submission.submit(services, parse_campaign(form, submission.validation_context(services)))
    clock.pass_(HOUR)
    before = len(outbox(services, Channel.PUSH).sent)
    assert per_tick(services, clock, 5) == [2] * 5
    assert len(outbox(services, Channel.PUSH).sent) - before == 15

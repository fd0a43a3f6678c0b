"""What is put on the broker: each chunk once, again only where it seems lost, and one task for all waiting events."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from psycopg.types.json import Jsonb

from dispatcher.campaigns import scheduler, submission
from dispatcher.campaigns.scheduler import DueChunk, LaneDepths
from dispatcher.delivery.pipeline import run_chunk, run_chunks
from dispatcher.inbound import provider_events
from dispatcher.intake.campaign import parse_campaign
from dispatcher.intake.trigger import parse_trigger
from dispatcher.ledger.connection import lend
from dispatcher.runtime.services import Services
from tests.support.services import Clock, add_people, make_services, person

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
LEASE = 60.0
TRIGGERS = 434


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def services(database: str, clock: Clock) -> Iterator[Services]:
    with make_services(database, clock) as made:
        yield made


def take_triggers(services: Services, count: int) -> list[DueChunk]:
    """Triggers as the API takes them: each is put on the broker at once."""
    context = submission.validation_context(services)
    taken = []
    for number in range(count):
        job = {"key": f"k-{number}", "recipient": "c-1", "template": "optout_acknowledgement", "data": {"first_name": "An"}}
        taken.append(submission.chunk_of(submission.take_trigger(services, parse_trigger(job, context))))
    return taken


def submit(services: Services, count: int) -> None:
    add_people(services, *(person(f"c-{number}", number % 100) for number in range(count)))
    rows = [{"recipient": f"c-{number}", "data": OFFER} for number in range(count)]
    form = {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": rows}
    submission.submit(services, parse_campaign(form, submission.validation_context(services)))


@pytest.mark.parametrize("broker_tells", [True, False])
def test_while_workers_are_stopped_the_broker_does_not_fill_with_repeats(
    services: Services, clock: Clock, broker_tells: bool
) -> None:
    add_people(services, person("c-1"))
    waiting = len(take_triggers(services, TRIGGERS))
    for _ in range(60):
        clock.pass_(LEASE / 6)
        waiting += len(scheduler.due_chunks(services, LaneDepths(0, waiting) if broker_tells else LaneDepths()))
    assert waiting == TRIGGERS if broker_tells else waiting <= 4 * TRIGGERS


def test_chunks_of_campaigns_are_not_repeated_either_and_no_more_than_the_window_is_published(
    services: Services, clock: Clock
) -> None:
    submit(services, 2_500)
    waiting = len(scheduler.due_chunks(services))
    for _ in range(60):
        clock.pass_(LEASE / 6)
        waiting += len(scheduler.due_chunks(services, LaneDepths(waiting, 0)))
    assert waiting == 3


def test_a_chunk_says_which_one_of_its_campaign_it_is(services: Services) -> None:
    submit(services, 2_500)
    take_triggers(services, 1)
    assert [due.place for due in scheduler.due_chunks(services)] == [("spring", 1, 3), ("spring", 2, 3), ("spring", 3, 3)]


def test_what_the_broker_lost_is_published_again_after_a_lease(services: Services, clock: Clock) -> None:
    submit(services, 2_500)
    published = scheduler.due_chunks(services)
    taken = take_triggers(services, 3)
    clock.pass_(LEASE - 1)
    assert scheduler.due_chunks(services, LaneDepths(0, 0)) == []
    clock.pass_(2)
    again = scheduler.due_chunks(services, LaneDepths(0, 1))  # one of the triggers still waits
    assert [due.number for due in again if due.priority is not None] == [due.number for due in published]
    assert len([due for due in again if due.priority is None]) == 2
    assert all(due.is_repeat for due in again)
    assert {due.number for due in again if due.priority is None} < {due.number for due in taken}


def submit_chunks(services: Services, chunks: int, *, paced: bool = False) -> None:
    """A campaign of so many chunks of one job each: a chunk holds what its campaign's rate lets out in one second."""
    people = [f"c-{number}" for number in range(chunks)]
    add_people(services, *(person(each, number) for number, each in enumerate(people)))
    form = {
        "id": "spring",
        "template": "loan_offer",
        "channels": ["email"],
        "audience": [{"recipient": each, "data": OFFER} for each in people],
        "rate_per_second": 1,
    }
    submission.submit(services, parse_campaign(form, submission.validation_context(services)))
    with lend(services.pool) as connection:
        connection.execute("UPDATE chunks SET due_at = '2020-01-01'")
        rate = {"rate_per_second": 9_000} if paced else {}
        connection.execute("UPDATE campaigns SET spec = (spec - 'rate_per_second') || %s", (Jsonb(rate),))


def test_chunks_of_a_large_campaign_share_messages(services: Services) -> None:
    submit_chunks(services, 43)
    dues = scheduler.due_chunks(services)
    assert [len(due.numbers) for due in dues] == [1, *[5] * 8, 2]
    assert dues[0].is_first_of_campaign
    assert [number for due in dues for number in due.numbers] == list(range(1, 44))


def test_a_small_campaign_is_split_among_the_processes(services: Services) -> None:
    submit_chunks(services, 9)
    assert [len(due.numbers) for due in scheduler.due_chunks(services)] == [1, 2, 2, 2, 2]


def test_each_chunk_of_a_campaign_with_a_rate_waits_for_its_turn_alone(services: Services) -> None:
    submit_chunks(services, 43, paced=True)
    assert [due.more for due in scheduler.due_chunks(services)] == [()] * 18  # of at most 1,000, what leaves within two seconds


def test_a_task_takes_as_many_chunks_again_as_it_had(services: Services) -> None:
    submit_chunks(services, 43)
    services = replace(services, limits=replace(services.limits, window_chunks=11))
    due = scheduler.due_chunks(services)[1]
    assert len(due.numbers) == 2
    chunk = run_chunks(services, due.period, due.numbers)
    assert chunk is not None
    assert [each.numbers for each in scheduler.next_chunk(services, chunk, 2)] == [(12, 13)]


def test_chunks_that_wait_in_shared_messages_do_not_count_as_lost(services: Services, clock: Clock) -> None:
    submit_chunks(services, 43)
    waiting = len(scheduler.due_chunks(services))
    clock.pass_(LEASE + 1)
    assert scheduler.due_chunks(services, LaneDepths(waiting, 0)) == []
    again = scheduler.due_chunks(services, LaneDepths(0, 0))
    assert sorted(due.numbers for due in again) == [(number,) for number in range(1, 44)]


def test_a_message_of_a_chunk_that_is_done_or_in_another_workers_hands_has_nothing_to_do(services: Services, clock: Clock) -> None:
    submit(services, 10)
    (due,) = scheduler.due_chunks(services)
    assert not scheduler.needs_no_work(services, due.period, due.number)
    clock.pass_(1)
    with lend(services.pool) as connection:  # as a claim does
        connection.execute("UPDATE chunks SET touched_at = %s", (clock(),))
    assert scheduler.needs_no_work(services, due.period, due.number)
    clock.pass_(LEASE + 1)  # that worker was lost
    assert not scheduler.needs_no_work(services, due.period, due.number)
    scheduler.due_chunks(services)
    assert not scheduler.needs_no_work(services, due.period, due.number)
    run_chunk(services, due.period, due.number)
    assert scheduler.needs_no_work(services, due.period, due.number)


def test_one_task_applies_all_events_that_come_before_it_starts(services: Services, clock: Clock) -> None:
    assert provider_events.should_publish_apply_task(services)
    assert not provider_events.should_publish_apply_task(services)
    provider_events.mark_apply_task_started(services)
    assert provider_events.should_publish_apply_task(services)
    clock.pass_(timedelta(minutes=1).total_seconds())  # its message was lost
    assert provider_events.should_publish_apply_task(services)
    assert not provider_events.should_publish_apply_task(services)


# Publishes old triggers again, then new ones, and reads the lane as a worker does.
PUBLISH = """
from kombu import Queue
from dispatcher import celery_app, tasks
from dispatcher.campaigns.scheduler import DueChunk

assert tasks.lane_depths().transactional == 0
tasks.publish(DueChunk(202611, number, None, is_repeat=True) for number in range(434))
tasks.publish(DueChunk(202611, number, None) for number in range(1000, 1200))
print(tasks.lane_depths().transactional)
with celery_app.app.connection() as connection:
    lane = connection.SimpleQueue(next(queue for queue in celery_app.app.conf.task_queues if queue.name == "transactional"))
    numbers = [lane.get(timeout=60).payload[0][1] for _ in range(200)]
print(min(numbers), max(numbers))
"""


def test_new_triggers_overtake_repeats_and_the_broker_tells_its_depth(broker_url: str) -> None:
    environ = {**os.environ, "DISPATCHER_BROKER_URL": broker_url}
    done = subprocess.run((sys.executable, "-c", PUBLISH), env=environ, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["634", "1000", "1199"], done.stderr

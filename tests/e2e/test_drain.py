"""A worker that is asked to stop in the middle of a campaign: it finishes what a provider has, and gives back the rest at once."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dispatcher.campaigns import scheduler, submission
from dispatcher.intake.campaign import parse_campaign
from dispatcher.ledger.connection import lend
from tests.e2e.test_workers import OFFER, STOP_SECONDS_MAX, IdleMachine, idle_machine, wait_until
from tests.support.services import add_people, person

__all__ = ["idle_machine"]

PEOPLE = 600  # six batches of one chunk
LEASE_SECONDS = "540"  # a claim or chunk that waits for its end waits beyond the end of this test


@contextmanager
def worker(machine: IdleMachine, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of the campaign lane with one process."""
    options = ("--queues", "campaign", "--concurrency", "1", "--hostname", f"{name}@test", "--loglevel", "INFO")
    with machine.log.open("ab") as log:
        process = subprocess.Popen(
            (sys.executable, "-m", "celery", "-A", "dispatcher", "worker", *options),
            stdout=log,
            stderr=log,
            env={**machine.environ, "DISPATCHER_LEASE_SECONDS": LEASE_SECONDS},
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(STOP_SECONDS_MAX)


def start_campaign(machine: IdleMachine) -> None:
    """Submit a campaign of one chunk, and put its chunk on the broker as beat does."""
    add_people(machine.services, *(person(f"c-{number}", number % 100) for number in range(PEOPLE)))
    rows = [{"recipient": f"c-{number}", "data": OFFER} for number in range(PEOPLE)]
    form = {"id": "spring", "template": "loan_offer", "channels": ["push"], "audience": rows}
    submission.submit(machine.services, parse_campaign(form, submission.validation_context(machine.services)))
    publish_due(machine)


def publish_due(machine: IdleMachine) -> None:
    for due in scheduler.due_chunks(machine.services):
        machine.celery.send_task("dispatcher.send_chunk", (due.period, due.number), queue="campaign")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_stopped_worker_gives_back_its_chunk_at_once(idle_machine: IdleMachine, number: signal.Signals) -> None:
    start_campaign(idle_machine)
    idle_machine.sandbox.set_faults([{"provider": "fcm", "delay_seconds": 2.0}])
    with worker(idle_machine, "first") as first:
        wait_until(idle_machine.has_begun_to_send, idle_machine)
        first.send_signal(number)
        first.wait(STOP_SECONDS_MAX)
    after = idle_machine.balance()
    with lend(idle_machine.services.pool) as connection:
        assert connection.execute("SELECT FROM messages WHERE state IN ('claimed', 'unresolved')").rowcount == 0
    assert 0 < after["accepted"] < PEOPLE  # those that the provider had
    assert after["accepted"] + after["pending"] == PEOPLE
    assert idle_machine.on_the_broker("campaign") == 1

    idle_machine.sandbox.clear_faults()
    with worker(idle_machine, "second"):  # no beat: only what the first one gave back is there
        wait_until(lambda: idle_machine.balance() == {"accepted": PEOPLE}, idle_machine)
    assert set(Counter(arrival["message_id"] for arrival in idle_machine.sandbox.log()).values()) == {1}

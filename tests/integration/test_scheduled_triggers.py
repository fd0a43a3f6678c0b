"""Triggers with a time, and their cancellation: never before the time, once, and never after a cancel."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from channels.base import Channel
from dispatcher import celery_app, tasks
from dispatcher.campaigns import scheduler, submission, trigger_cancellation
from dispatcher.delivery.pipeline import run_chunk
from dispatcher.intake.errors import BadInput
from dispatcher.ledger.campaigns.audience import TriggerPlace
from dispatcher.ledger.connection import lend
from dispatcher.runtime.services import Services
from tests.integration.test_api import Desk, open_desk
from tests.support.services import Clock, add_people, make_services, outbox, person, work

AFTERNOON = "2026-11-23T16:00:00+01:00"
THREE = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)
LOAN = {"offer_url": "https://www.bank.example/loan", "project": "a bike", "amount": 5_000}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def services(database: str, clock: Clock) -> Iterator[Services]:
    with make_services(database, clock) as made:
        add_people(made, person("anna"))
        yield made


def job(**changes: Any) -> dict[str, Any]:
    return {"key": "k-1", "recipient": "anna", "template": "optout_acknowledgement", "data": {"scope": "email"}, **changes}


def accept(services: Services, **changes: Any) -> TriggerPlace:
    return submission.accept_trigger(services, job(**changes))


def sent(services: Services) -> int:
    return len(outbox(services).sent)


def state(services: Services) -> str:
    result = trigger_cancellation.cancel_by_key(services, "k-1")
    assert result is not None
    return result.message.state.value


def test_a_trigger_with_a_time_is_sent_at_it_and_once(services: Services, clock: Clock) -> None:
    place = accept(services, send_at=AFTERNOON)
    assert (place.due_at, submission.is_due(services, place)) == (datetime(2026, 11, 23, 15, 0, tzinfo=UTC), False)
    clock.now = datetime(2026, 11, 23, 14, 59, 59, tzinfo=UTC)
    work(services)
    assert sent(services) == 0
    clock.pass_(1)
    work(services)
    work(services)
    assert sent(services) == 1
    again = accept(services, send_at="2026-11-23T15:00:00Z")
    assert (again.fresh, again.chunk) == (False, place.chunk)
    clock.pass_(86_400)  # its time lies far in the past by now, and it is the same trigger
    assert accept(services, send_at=AFTERNOON).chunk == place.chunk


def test_a_worker_accepts_a_trigger_for_later(services: Services, clock: Clock) -> None:
    celery_app._per_thread.services = services
    try:
        for _ in range(2):  # the broker delivers twice
            tasks.trigger.apply(args=[job(send_at=AFTERNOON)], throw=True)
        assert sent(services) == 0
    finally:
        del celery_app._per_thread.services
    clock.now = THREE
    work(services)
    assert sent(services) == 1


def test_a_time_that_cannot_be_is_refused(services: Services) -> None:
    for field, changes in (
        ("send_at", {"send_at": "2025-11-23T16:00:00Z"}),
        ("send_at", {"send_at": "2026-11-24T16:00:00"}),
        ("expires_at", {"send_at": AFTERNOON, "expires_at": "2026-11-23T15:00:00Z"}),
    ):
        with pytest.raises(BadInput) as caught:
            accept(services, **changes)
        assert [fault.field for fault in caught.value.faults] == [field]


def test_a_cancelled_trigger_is_not_sent(services: Services, clock: Clock) -> None:
    accept(services, send_at=AFTERNOON)
    for _ in range(2):
        result = trigger_cancellation.cancel_by_key(services, "k-1")
        assert result is not None
        assert (result.refusal, result.message.state, result.message.reason) == (None, "cancelled", "cancelled")
    clock.now = THREE
    work(services)
    assert (sent(services), state(services)) == (0, "cancelled")
    with lend(services.pool) as connection:
        assert connection.execute("SELECT count(*) FROM chunks WHERE done_at IS NULL").fetchone() == (0,)


def test_a_held_trigger_can_be_cancelled_and_a_sent_one_not(services: Services, clock: Clock) -> None:
    clock.now = datetime(2026, 11, 23, 22, 0, tzinfo=UTC)
    place = accept(services, template="loan_offer", data=LOAN, channels=["sms"])
    run_chunk(services, place.period, place.chunk)
    result = trigger_cancellation.cancel_by_key(services, "k-1")
    assert result is not None
    assert (result.refusal, result.message.state) == (None, "cancelled")
    clock.pass_(86_400)
    work(services)
    assert not outbox(services, Channel.SMS).sent
    place = accept(services, key="k-2")
    run_chunk(services, place.period, place.chunk)
    result = trigger_cancellation.cancel_by_key(services, "k-2")
    assert result is not None
    assert result.refusal == "cannot cancel a message that is accepted"
    assert trigger_cancellation.cancel_by_key(services, "k-3") is None


def test_a_cancel_waits_for_a_claim_and_then_sees_it(database: str, services: Services) -> None:
    """The message's key decides: the claim was first, so nothing is cancelled."""
    place = accept(services)
    with ThreadPoolExecutor(1) as other, lend(services.pool) as connection:
        with connection.transaction():
            connection.execute(
                "INSERT INTO messages (period, chunk, row, updated_at, recipient_id, state, decision)"
                " VALUES (%s, %s, 0, now(), 'anna', 'claimed', '{}')",
                (place.period, place.chunk),
            )
            cancelling = other.submit(trigger_cancellation.cancel_by_key, services, "k-1")
            wait_for_lock(database)
        result = cancelling.result()
    assert result is not None
    assert (result.refusal, result.message.state) == ("cannot cancel a message that is claimed", "claimed")


def wait_for_lock(database: str) -> None:
    """Wait until a session waits for a lock; only the owner sees what others wait for."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with psycopg.connect(database, autocommit=True) as owner:
        for _ in range(500):
            if owner.execute(waiting).fetchone() != (0,):
                return
            time.sleep(0.02)
    pytest.fail("nobody waits for a lock")


def test_a_trigger_for_later_is_cancelled_by_api(database: str, tmp_path: Path) -> None:
    with open_desk(database, tmp_path) as desk:
        _cancel_by_api(desk)


def _cancel_by_api(desk: Desk) -> None:
    add_people(desk.services, person("anna"))
    later = desk.call("POST", "/v1/messages", job(send_at=AFTERNOON))
    assert (later.status_code, desk.broker.dues) == (202, [])
    path = f"/v1/messages/{later.json()['id']}"
    assert desk.call("POST", f"{path}/cancel").json()["state"] == "cancelled"
    assert desk.call("POST", "/v1/messages/cancel", {"key": "k-1"}).json()["state"] == "cancelled"
    desk.call("POST", "/v1/messages", job(key="k-2"))
    desk.work()
    assert desk.call("POST", "/v1/messages/cancel", {"key": "k-2"}).status_code == 409
    assert desk.call("POST", "/v1/messages/cancel", {"key": "k-3"}).status_code == 404
    assert desk.call("POST", "/v1/messages/cancel", {"id": "k-3"}).status_code == 422
    assert desk.call("POST", "/v1/messages/202611-77-0-0/cancel").status_code == 404
    rows = [{"recipient": "anna", "data": LOAN}]
    desk.call("POST", "/v1/campaigns", {"id": "spring", "template": "loan_offer", "audience": rows, "channels": ["email"]})
    line = desk.call("GET", "/v1/messages?campaign=spring").json()["messages"][0]
    answer = desk.call("POST", f"/v1/messages/{line['id']}/cancel")
    assert (answer.status_code, "cancel the campaign" in answer.text) == (409, True)
    assert scheduler.due_chunks(desk.services) == []

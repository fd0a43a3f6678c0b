"""Data is deleted when its retention period is over, not before, and nothing else with it; on a real PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from channels.base import Channel, Event, EventKind, InboundText
from dispatcher.campaigns import submission
from dispatcher.delivery.pipeline import run_chunk
from dispatcher.domain.preferences import Change
from dispatcher.inbound import customer_replies, provider_events
from dispatcher.intake.campaign import parse_campaign
from dispatcher.intake.trigger import parse_trigger
from dispatcher.ledger import partitions
from dispatcher.ledger.campaigns import lifecycle
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import erasure, events
from dispatcher.ledger.consent.events import ConsentStatement, Provenance
from dispatcher.ledger.maintenance import audit
from dispatcher.maintenance import retention
from dispatcher.runtime.services import Services
from tests.support.services import Broker, Clock, add_people, make_services, person, states, work

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
DAY = 86_400
LONG_AGO = datetime(2014, 3, 10, 11, 0, tzinfo=UTC)
WAITS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
NOW = datetime(2026, 11, 23, 11, 0, tzinfo=UTC)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def services(database: str, clock: Clock) -> Iterator[Services]:
    with make_services(database, clock) as made:
        yield made


def submit(services: Services, campaign_id: str = "spring", **changes: Any) -> None:
    rows = [{"recipient": recipient_id, "data": OFFER} for recipient_id in ("c-1", "c-2")]
    form = {"id": campaign_id, "template": "loan_offer", "channels": ["email"], "audience": rows, **changes}
    submission.submit(services, parse_campaign(form, submission.validation_context(services)))


def trigger(services: Services, key: str, **changes: Any) -> None:
    job = {"key": key, "recipient": "c-1", "template": "loan_offer", "data": OFFER, **changes}
    place = submission.take_trigger(services, parse_trigger(job, submission.validation_context(services)))
    run_chunk(services, place.period, place.chunk)


def clear(services: Services, steps_max: int = retention.STEPS_MAX) -> dict[str, int]:
    """What a run cleared, by class; the report before it must give the same numbers."""
    due = {standing.data.what: standing.overdue for standing in retention.backlogs(services)}
    cleared = {done.data.what: done.cleared for done in retention.clear(services, steps_max)}
    if steps_max == retention.STEPS_MAX:
        assert cleared == due
        assert not any(standing.overdue for standing in retention.backlogs(services))
    return {what: count for what, count in cleared.items() if count}


def ask(services: Services, statement: str) -> list[tuple[Any, ...]]:
    with lend(services.pool) as connection:
        return connection.execute(statement.encode()).fetchall()


# -- content -----------------------------------------------------------------------------------------------------------


def test_variables_go_thirty_days_after_the_end_and_decisions_stay(services: Services, clock: Clock) -> None:
    add_people(services, person("c-1", 1), person("c-2", 2))
    submit(services)
    trigger(services, "k-1")
    submit(services, "later", send_at=datetime(2027, 6, 1, tzinfo=UTC).isoformat())
    work(services)
    clock.pass_(30 * DAY - 1)
    assert clear(services) == {}
    clock.pass_(2)
    assert clear(services) == {"campaigns' variables": 1, "triggers' variables": 1}
    kept = ask(
        services, "SELECT c.id, j.data = '{}', count(*) FROM jobs j LEFT JOIN campaigns c ON c.no = j.campaign_no GROUP BY 1, 2"
    )
    assert sorted(kept, key=str) == [("later", False, 2), ("spring", True, 2), (None, True, 1)]
    assert states(services) == {"accepted": 2}
    assert ask(services, "SELECT count(*) FROM messages WHERE decision <> '{}'") == [(3,)]


def test_a_trigger_keeps_its_variables_while_another_leg_may_follow(services: Services, clock: Clock) -> None:
    services = replace(services, policy=replace(services.policy, quiet_hours={}))
    add_people(services, person("c-1", 1))
    trigger(services, "k-1", channels=["push", "email"], fallback_after_seconds=30 * DAY)
    clock.pass_(DAY)
    trigger(services, "k-2")
    clock.pass_(30 * DAY + 1)
    assert clear(services) == {"triggers' variables": 1}
    work(services)
    assert ask(services, "SELECT channel, state FROM messages ORDER BY chunk, leg") == [
        ("push", "accepted"),
        ("email", "accepted"),
        ("push", "accepted"),
    ]
    clock.pass_(30 * DAY + 1)
    assert clear(services) == {"triggers' variables": 1}


def test_what_one_run_leaves_the_next_one_takes(services: Services, clock: Clock) -> None:
    for name in ("spring", "summer", "autumn"):
        submit(services, name)
    work(services)
    clock.pass_(31 * DAY)
    assert [clear(services, steps_max=2), clear(services)] == [{"campaigns' variables": 2}, {"campaigns' variables": 1}]


def test_what_providers_say_beyond_what_is_acted_on_goes_and_the_news_stays(services: Services, clock: Clock) -> None:
    told = Event("sendgrid", "e-1", Channel.EMAIL, EventKind.DELIVERED, clock.now, message_id="202611-1-0-0", extra={"ip": "x"})
    provider_events.store_events(services, [told])
    clock.pass_(31 * DAY)
    assert clear(services) == {"additional fields of provider events": 1}
    assert ask(services, "SELECT kind, extra FROM provider_events") == [("delivered", None)]


# -- prospects ---------------------------------------------------------------------------------------------------------


def test_prospects_who_tell_us_nothing_for_five_years_are_erased_and_customers_are_not(services: Services, clock: Clock) -> None:
    add_people(
        services, *(person(name, n, person="prospect") for n, name in enumerate(("silent", "spoke"), 1)), person("customer", 3)
    )
    clock.now = datetime(2030, 1, 1, tzinfo=UTC)
    with lend(services.pool) as connection:
        word = [Change("channel:email", "off")]
        events.record(
            connection,
            services.secret,
            ConsentStatement("spoke", tuple(word), clock.now),
            Provenance("mobile", "tests"),
            clock.now,
        )
        word = [Change("channel:sms_whatsapp", "off")]
        events.record(
            connection,
            services.secret,
            ConsentStatement("silent", tuple(word), clock.now),
            Provenance("import", "tests"),
            clock.now,
        )
    assert clear(services) == {}
    clock.now = datetime(2031, 11, 25, tzinfo=UTC)
    assert clear(services) == {"prospects without any contact": 1}
    assert ask(services, "SELECT id FROM recipients WHERE erased_at IS NOT NULL") == [("silent",)]
    clock.now = datetime(2035, 1, 2, tzinfo=UTC)
    assert clear(services) == {"prospects without any contact": 1}
    assert ask(services, "SELECT id, email FROM recipients WHERE erased_at IS NULL") == [("customer", "customer@example.org")]


def test_a_prospect_who_wrote_since_is_not_erased(services: Services, clock: Clock) -> None:
    add_people(services, person("silent", 1, person="prospect"), person("wrote", 2, person="prospect"))
    clock.now = datetime(2030, 1, 1, tzinfo=UTC)
    number = person("wrote", 2, person="prospect")["phone"]
    text = InboundText("SM1", Channel.SMS, number, "Is this offer still open?")
    customer_replies.handle_reply(services, lambda _: None, text)
    clock.now = datetime(2031, 12, 25, tzinfo=UTC)  # the text itself is deleted by now
    assert clear(services)["prospects without any contact"] == 1
    assert ask(services, "SELECT id FROM recipients WHERE erased_at IS NOT NULL") == [("silent",)]
    clock.now = datetime(2035, 1, 2, tzinfo=UTC)
    assert clear(services)["prospects without any contact"] == 1


def test_a_prospect_who_becomes_a_customer_meanwhile_is_not_erased(services: Services, database: str, clock: Clock) -> None:
    """The import commits after retention found the prospect and before it locks the person."""
    add_people(services, person("anna", 1, person="prospect"), person("bert", 2, person="prospect"))
    clock.now = datetime(2031, 12, 25, tzinfo=UTC)
    with ThreadPoolExecutor(1) as thread, psycopg.connect(database, autocommit=True) as importer:
        with importer.transaction():
            importer.execute("UPDATE recipients SET person = 'customer', version = version + 1 WHERE id = 'anna'")
            future = thread.submit(lambda: list(retention.clear(services)))
            with psycopg.connect(database, autocommit=True) as watcher:
                while not future.done() and watcher.execute(WAITS).fetchone() == (0,):
                    time.sleep(0.01)
        cleared = {done.data.policy_key: done.cleared for done in future.result(timeout=120)}
    assert cleared["prospects"] == 1
    assert ask(services, "SELECT id FROM recipients WHERE erased_at IS NOT NULL") == [("bert",)]


# -- decisions and consent ---------------------------------------------------------------------------------------------


def old_times(services: Services, clock: Clock) -> None:
    """A campaign, a trigger and a text of twelve years ago, and the same campaign of today."""
    clock.now = LONG_AGO
    add_people(services, person("c-1", 1), person("c-2", 2))
    submit(services)
    trigger(services, "k-1")
    broker = Broker()
    customer_replies.handle_reply(services, broker.publish, InboundText("SM-1", Channel.SMS, "+32470000001", "STOP"))
    broker.work(services)
    work(services)
    clock.now = NOW
    submit(services, "today")
    work(services)


def test_months_in_which_all_ended_ten_years_ago_are_dropped_whole(services: Services, clock: Clock) -> None:
    old_times(services, clock)
    assert clear(services)["months of decisions"] == 3  # with the two that were created ahead
    with lend(services.pool) as connection:
        assert partitions.periods(connection) == [202611, 202612, 202701]
        assert lifecycle.find(connection, "spring") is None
        assert audit.verify(connection, services.secret, clock.now, 60) == []
    assert ask(services, "SELECT (SELECT count(*) FROM triggers), (SELECT count(*) FROM inbound_texts)") == [(0, 0)]
    assert sum(states(services, "today").values()) == 2


def test_a_month_in_which_something_is_not_over_stays(services: Services, clock: Clock) -> None:
    clock.now = LONG_AGO
    submit(services, send_at=datetime(2026, 12, 1, tzinfo=UTC).isoformat())
    clock.now = NOW
    assert clear(services) == {}


def test_an_erased_person_s_chain_goes_whole_after_ten_years_and_the_others_hold(
    services: Services, clock: Clock, database: str
) -> None:
    clock.now = LONG_AGO
    add_people(services, person("c-1", 1), person("c-2", 2))
    with lend(services.pool) as connection:
        erasure.erase(connection, services.secret, "c-1", "tests", clock.now)
    clock.now = datetime(2024, 3, 9, tzinfo=UTC)
    assert clear(services) == {}
    clock.now = datetime(2024, 3, 11, tzinfo=UTC)
    assert clear(services) == {"consent events of erased people": 1}
    with lend(services.pool) as connection:
        assert audit.verify(connection, services.secret, clock.now, 60) == []
        assert events.history(connection, "c-1") == []
        assert len(events.history(connection, "c-2")) > 0
    with psycopg.connect(database) as owner, pytest.raises(psycopg.errors.RaiseException, match="append-only"):
        owner.execute("DELETE FROM consent_events WHERE recipient_id = 'c-2'")


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("SELECT forget_month(202611)", psycopg.errors.RaiseException),
        ("SELECT forget_erased(now(), 1)", psycopg.errors.RaiseException),
        ("DROP TABLE messages", psycopg.errors.InsufficientPrivilege),
        ("DELETE FROM consent_events", psycopg.errors.InsufficientPrivilege),
        ("SET dispatcher.retention = 'on'; DELETE FROM consent_events", psycopg.errors.InsufficientPrivilege),
    ],
)
def test_whatever_a_worker_asks_for_nothing_young_goes(services: Services, statement: str, error: type[Exception]) -> None:
    with lend(services.pool) as worker, pytest.raises(error):
        worker.execute(statement.encode())

"""A provider event that cannot be applied waits on its own; everybody's other events are applied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from channels.base import Channel, Event, EventKind
from dispatcher.campaigns import submission
from dispatcher.inbound import provider_events
from dispatcher.intake.campaign import parse_campaign
from dispatcher.ledger.connection import lend
from dispatcher.ledger.delivery import messages
from dispatcher.ledger.maintenance import alerts
from dispatcher.runtime.services import Services
from tests.support.services import Clock, add_people, make_services, person, states, work

OFFER = {"project": "a boat", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
PEOPLE = ("anna", "bert", "cleo")

# A trigger of the database that raises is like any fault that only one person's data have.
RAISE = """
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'anna@example.org'; END $$;
CREATE TRIGGER fail BEFORE UPDATE ON {table} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION fail();
"""
FAULTS = {
    "person": RAISE.format(table="recipients", when="NEW.id = 'anna' AND NEW.erased_at IS NULL"),
    "message": RAISE.format(table="messages_202611", when="NEW.recipient_id = 'anna'"),
    "reading": "UPDATE provider_events SET kind = 'of a newer version' WHERE id = 'e-anna'",
}
REPAIRS = {
    "person": "DROP TRIGGER fail ON recipients",
    "message": "DROP TRIGGER fail ON messages_202611",
    "reading": "UPDATE provider_events SET kind = 'complained' WHERE id = 'e-anna'",
}


@pytest.fixture
def services(database: str) -> Iterator[Services]:
    with make_services(database, Clock()) as made:
        add_people(made, *(person(name, number) for number, name in enumerate(PEOPLE, 1)))
        rows = [{"recipient": name, "data": OFFER} for name in PEOPLE]
        form: dict[str, Any] = {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": rows}
        submission.submit(made, parse_campaign(form, submission.validation_context(made)))
        work(made)
        yield made


def keep(services: Services) -> None:
    """One complaint of each person; anna's is the oldest."""
    with lend(services.pool) as connection:
        refs = {name: str(messages.of_campaign(connection, "spring", name)[0].ref) for name in PEOPLE}
    told = [Event("sendgrid", f"e-{name}", Channel.EMAIL, EventKind.COMPLAINED, services.clock(), refs[name]) for name in PEOPLE]
    provider_events.store_events(services, told)


def settle(services: Services) -> int:
    """What the task does: until nothing is left."""
    tried = 0
    for _ in range(10):
        count = provider_events.apply_batch(services, lambda _: None)
        if not count:
            return tried
        tried += count
    raise AssertionError("the failing event is tried again at once")


def ask(database: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database, autocommit=True) as owner:
        cursor = owner.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


@pytest.mark.parametrize("fault", FAULTS)
def test_one_that_fails_waits_and_the_others_are_applied(
    services: Services, database: str, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(services)
    ask(database, FAULTS[fault])
    assert settle(services) == 3
    assert states(services) == {"accepted": 1, "complained": 2}
    failed = ask(database, "SELECT id, attempts, next_try_at - received_at FROM provider_events WHERE settled_at IS NULL")
    assert [(row[0], row[1], row[2].total_seconds()) for row in failed] == [("e-anna", 1, 60.0)]
    assert ask(database, "SELECT error FROM provider_events WHERE error LIKE '%@%' OR error IS NULL AND settled_at IS NULL") == []
    with lend(services.pool) as connection:
        assert [(alert.provider, alert.code) for alert in alerts.newest(connection)] == [("sendgrid", "event_not_applied")]
    assert "anna@" not in "".join(capsys.readouterr())

    assert isinstance(services.clock, Clock)
    services.clock.pass_(61)
    assert settle(services) == 1
    assert ask(database, "SELECT attempts, next_try_at - received_at > '2 minutes' FROM provider_events WHERE id = 'e-anna'") == [
        (2, True)
    ]
    assert not provider_events.any_pending(services)
    ask(database, REPAIRS[fault])
    services.clock.pass_(121)
    assert settle(services) == 1
    assert states(services) == {"complained": 3}
    assert len(ask(database, "SELECT no FROM suppressions")) == 3


def test_waits_grow_to_six_hours(services: Services, database: str) -> None:
    keep(services)
    ask(database, FAULTS["person"])
    assert isinstance(services.clock, Clock)
    waits = []
    for _ in range(12):
        settle(services)
        (row,) = ask(database, "SELECT next_try_at FROM provider_events WHERE id = 'e-anna'")
        waits.append((row[0] - services.clock.now).total_seconds())
        services.clock.now = row[0]
    assert waits[:3] == [60, 120, 240]
    assert waits[-1] == waits[-2] == 6 * 3_600


def test_nothing_is_deferred_when_the_database_goes_away(services: Services, database: str) -> None:
    keep(services)
    ask(database, FAULTS["person"].replace("RAISE EXCEPTION 'anna@example.org'", "PERFORM pg_terminate_backend(pg_backend_pid())"))
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute("ALTER FUNCTION fail() SECURITY DEFINER")
    with pytest.raises(Exception, match="database can't be reached"):
        settle(services)
    assert ask(database, "SELECT id FROM provider_events WHERE attempts > 0") == []

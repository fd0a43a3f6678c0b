"""An erasure that commits between the look and the write of another transaction is never undone by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from channels.base import Channel, InboundText
from dispatcher.domain.preferences import Change
from dispatcher.inbound import customer_replies
from dispatcher.intake.recipient import parse
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.consent import erasure, events, recipients, suppressions
from dispatcher.ledger.consent.events import ConsentStatement, Provenance
from dispatcher.ledger.consent.recipients import UpsertResult
from dispatcher.ledger.delivery import cool_downs
from dispatcher.ledger.inbound import inbound_messages
from dispatcher.runtime.services import Services
from tests.support.services import Clock, add_people, make_services, person

ANNA = person("anna", 1)
WAITS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture
def services(database: str) -> Iterator[Services]:
    with make_services(database, Clock()) as made:
        add_people(made, ANNA, person("bert", 2))
        yield made


def erase_meanwhile(services: Services, database: str, write: Callable[[Connection], Any]) -> Any:
    """Let `write` begin while an erasure of anna is open, and commit the erasure once the write waits for her row."""

    def run() -> Any:
        with lend(services.pool) as connection:
            return write(connection)

    with ThreadPoolExecutor(1) as thread, psycopg.connect(database, autocommit=True) as desk:
        with desk.transaction():
            assert erasure.erase(desk, services.secret, "anna", "desk", services.clock())
            future: Future[Any] = thread.submit(run)
            with psycopg.connect(database, autocommit=True) as watcher:
                while not future.done() and watcher.execute(WAITS).fetchone() == (0,):
                    pass
        return future.result(timeout=120)


def kept(services: Services) -> dict[str, Any]:
    with lend(services.pool) as connection:
        return recipients.export(connection, "anna")


def row(services: Services, **changes: Any) -> list[Any]:
    return [parse({**each, **changes}, services.clock()) for each in (ANNA, person("bert", 2))]


def test_an_import_leaves_who_was_erased_meanwhile(services: Services, database: str) -> None:
    before = services.clock() - timedelta(hours=1)
    for batch in (row(services, language="fr"), row(services, language="de", said_at=before.isoformat())):

        def write(connection: Connection, batch: list[Any] = batch) -> UpsertResult:
            return recipients.upsert(connection, services.secret, batch, "nightly", services.clock())

        first = "erased_at" not in kept(services)
        result = erase_meanwhile(services, database, write) if first else _lend(services, write)
        assert (result.erased, result.changed) == ({"anna"}, {"bert"})
        left = kept(services)
        assert left["erased_at"]
        assert "email" not in left
        assert left["offers"]["own"] == "none"


def _lend(services: Services, write: Callable[[Connection], Any]) -> Any:
    with lend(services.pool) as connection:
        return write(connection)


def test_a_row_said_after_the_erasure_still_brings_the_person_back(services: Services, database: str) -> None:
    later = replace(services, clock=lambda: services.clock() + timedelta(hours=2))
    said_at = (services.clock() + timedelta(hours=1)).isoformat()
    batch = [parse({**each, "said_at": said_at}, later.clock()) for each in (ANNA,)]

    def write(connection: Connection) -> UpsertResult:
        return recipients.upsert(connection, services.secret, batch, "branch", later.clock())

    assert erase_meanwhile(services, database, write).changed == {"anna"}
    assert kept(services)["email"] == ANNA["email"]


def test_no_text_of_an_erased_person_is_stored(services: Services, database: str) -> None:
    message = InboundText("SM-1", Channel.SMS, str(ANNA["phone"]), "Hier is Anna, bel mij")
    erase_meanwhile(services, database, lambda _: customer_replies.handle_reply(services, lambda _: None, message))
    assert kept(services)["answers"] == []


def test_an_answer_that_failed_does_not_bring_back_what_was_erased(services: Services) -> None:
    customer_replies.handle_reply(services, lambda _: None, InboundText("SM-1", Channel.SMS, str(ANNA["phone"]), "Bel mij"))
    with lend(services.pool) as connection:
        assert inbound_messages.close(connection, "SM-1", "agent", services.clock())
        erasure.erase(connection, services.secret, "anna", "desk", services.clock())
        inbound_messages.reopen(connection, "SM-1")
        assert [text.text for text in inbound_messages.waiting(connection, 10)] == [""]  # it still holds the number


def test_choices_devices_and_cool_downs_see_the_erasure(services: Services, database: str) -> None:
    now = services.clock()

    def choose(connection: Connection) -> Any:
        statement = ConsentStatement("anna", (Change("offer:own", "tailored"),), now)
        events.record(connection, services.secret, statement, Provenance("mobile", "app"), now)

    def drop(connection: Connection) -> Any:
        return suppressions.drop_device(connection, "anna", "device-anna", now)

    def cool_down(connection: Connection) -> Any:
        cool_downs.add(connection, "anna", Channel.SMS, "63049", now + timedelta(days=1), now)

    erase_meanwhile(services, database, choose)
    for write in (choose, drop, cool_down):
        _lend(services, write)
    with psycopg.connect(database) as owner:
        rests = owner.execute("SELECT rests, devices, choices->'offer:own'->>'value' FROM recipients WHERE id = 'anna'").fetchone()
    assert rests == ({}, [], "none")

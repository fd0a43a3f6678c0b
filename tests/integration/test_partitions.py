"""New months: their partitions are made ahead, in short transactions, and a long one never keeps the others waiting."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from channels.base import Channel, Event, EventKind
from dispatcher.campaigns import dry_run, scheduler, submission
from dispatcher.campaigns.submission import SubmitResult
from dispatcher.consent import acknowledgement
from dispatcher.domain.preferences import Change
from dispatcher.inbound import provider_events
from dispatcher.intake.campaign import Submission, parse_campaign
from dispatcher.ledger import partitions
from dispatcher.ledger.campaigns.audience import AudienceRow
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.consent import events
from dispatcher.ledger.consent.events import ConsentStatement, Provenance
from dispatcher.ledger.inbound import provider_events as provider_event_rows
from dispatcher.maintenance import sweep
from dispatcher.runtime.services import Services
from tests.support.services import Clock, add_people, make_services, person, states, work

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
DECEMBER = datetime(2026, 12, 1, 0, 0, 5, tzinfo=UTC)
AT_ONCE = "500ms"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def services(database: str, clock: Clock) -> Iterator[Services]:
    with make_services(database, clock) as made:
        yield made


def spring(services: Services, name: str = "spring") -> Submission:
    rows = [{"recipient": "c-1", "data": OFFER}]
    form = {"id": name, "template": "loan_offer", "channels": ["email"], "audience": rows}
    return parse_campaign(form, submission.validation_context(services))


@contextmanager
def impatient(database: str) -> Iterator[Connection]:
    """A worker's connection that waits for no lock."""
    with psycopg.connect(database, autocommit=True, options=f"-c lock_timeout={AT_ONCE} -c role=dispatcher_worker") as connection:
        yield connection


def while_it_loads(services: Services, database: str, others_work: Services, loads: str) -> None:
    """In the middle of the first load of a month, do what workers and webhooks do; none of it waits for the load."""
    seen = []

    def audience() -> Iterator[AudienceRow]:
        yield AudienceRow(1, "c-1", OFFER)
        with impatient(database) as connection:
            now, context = others_work.clock(), submission.validation_context(others_work)
            event = Event("sendgrid", "e-1", Channel.EMAIL, EventKind.DELIVERED, now, message_id=None)
            assert provider_event_rows.store(connection, [event], now) == 1
            with connection.transaction():
                said = [Change("channel:email", "off")]
                recorded = events.record(
                    connection, others_work.secret, ConsentStatement("c-2", tuple(said), now), Provenance("mobile", "c-2"), now
                )
                acknowledgement.acknowledge(connection, context, "c-2", recorded.events)
        scheduler.due_chunks(others_work)
        assert provider_events.apply_batch(others_work, lambda _: None) == 1
        seen.append(True)

    long_one = replace(spring(services), audience=audience())
    if loads == "a dry run":
        dry_run.dry_run(services, long_one)
    else:
        assert isinstance(submission.submit(services, long_one), SubmitResult)
    assert seen == [True]


@pytest.mark.parametrize("loads", ["a campaign", "a dry run"])
def test_a_month_s_first_load_keeps_no_webhook_and_no_opt_out_waiting(
    services: Services, database: str, clock: Clock, loads: str
) -> None:
    add_people(services, person("c-1", 1), person("c-2", 2))
    submission.submit(services, spring(services, "november"))
    clock.now = DECEMBER
    with make_services(database, clock) as others:
        while_it_loads(services, database, others, loads)
    work(services)


def test_a_dry_run_as_of_another_time_makes_no_month_for_it(services: Services) -> None:
    dry_run.dry_run(services, spring(services), as_of=datetime(2019, 5, 1, tzinfo=UTC))
    with lend(services.pool) as connection:
        assert 201905 not in partitions.periods(connection)


def test_new_partitions_wait_for_no_reader_and_no_writer(database: str) -> None:
    with psycopg.connect(database) as long_one, impatient(database) as connection:
        for table in ("chunks", "jobs", "messages", "provider_events"):
            long_one.execute(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE")
        partitions.ensure_period(connection, 202701)
        assert partitions.periods(connection) == [202701]


def test_releasing_messages_and_making_months_do_not_deadlock(services: Services, database: str) -> None:
    add_people(services, person("c-1", 1))
    submission.submit(services, spring(services))
    work(services)

    def make() -> None:
        with psycopg.connect(database, autocommit=True, options="-c role=dispatcher_worker") as connection:
            partitions.ensure_period(connection, 203001)

    with ThreadPoolExecutor() as threads, lend(services.pool) as connection:
        with connection.transaction():  # the order in which a release comes by its tables
            connection.execute("SELECT FROM messages FOR UPDATE")
            made = threads.submit(make)
            wait([made], timeout=0.5)
            connection.execute("UPDATE chunks SET touched_at = touched_at")
        made.result(timeout=60)
        assert 203001 in partitions.periods(connection)


def test_the_maintenance_clock_makes_this_month_and_the_next_two(services: Services, clock: Clock) -> None:
    clock.now = datetime(2026, 11, 30, 23, 0, tzinfo=UTC)
    sweep.sweep(services)
    with lend(services.pool) as connection:
        assert partitions.periods(connection) == [202611, 202612, 202701]
    clock.now = DECEMBER
    sweep.sweep(services)
    with lend(services.pool) as connection:
        assert partitions.periods(connection) == [202611, 202612, 202701, 202702]


def test_an_attached_partition_is_like_one_that_postgresql_makes(services: Services, database: str) -> None:
    with lend(services.pool) as connection:
        partitions.ensure_period(connection, 203001)
    with psycopg.connect(database) as owner:
        for parent in ("chunks", "jobs", "messages", "provider_events"):
            owner.execute(f"CREATE TABLE {parent}_203002 PARTITION OF {parent} FOR VALUES IN (203002)".encode())
            attached, native = (_shape(owner, f"{parent}_{period}") for period in (203001, 203002))
            assert attached == native
        fillfactor = owner.execute("SELECT reloptions FROM pg_class WHERE relname = 'messages_203001'").fetchone()
    assert fillfactor == (["fillfactor=50"],)


def _shape(connection: Connection, table: str) -> list[tuple[Any, ...]]:
    """Columns with their defaults, and indexes, without the name of the month."""
    return connection.execute(
        """
        SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull::text, pg_get_expr(d.adbin, d.adrelid)
        FROM pg_attribute a LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
        WHERE a.attrelid = %(table)s::text::regclass AND a.attnum > 0
        UNION ALL
        SELECT 'index', replace(pg_get_indexdef(indexrelid), right(%(table)s::text, 6), ''), indisprimary::text, NULL
        FROM pg_index WHERE indrelid = %(table)s::text::regclass
        ORDER BY 1, 2
        """,
        {"table": table},
    ).fetchall()


def test_deleting_a_month_gives_way_to_who_works(services: Services, database: str, clock: Clock) -> None:
    clock.now = datetime(2014, 3, 10, 11, 0, tzinfo=UTC)
    add_people(services, person("c-1", 1))
    submission.submit(services, spring(services))
    work(services)
    assert states(services) == {"accepted": 1}
    with psycopg.connect(database) as reader, impatient(database) as connection:
        reader.execute("SELECT count(*) FROM messages")
        began = datetime.now(UTC)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            connection.execute("SELECT forget_month(201403)")
        assert (datetime.now(UTC) - began).total_seconds() < 1.0  # shorter than the wait after which PostgreSQL looks for deadlocks

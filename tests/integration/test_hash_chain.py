"""Recorded choices do not change: workers have no right to change them, and a change by the owner is detected."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.preferences import Change
from dispatcher.ledger.connection import Connection, lend, open_pool
from dispatcher.ledger.consent import events, recipients
from dispatcher.ledger.consent.events import ConsentStatement, Provenance
from dispatcher.ledger.consent.recipients import Recipient
from dispatcher.ledger.migrations import migrate
from dispatcher.ledger.partitions import ensure_period

SECRET = KeyRing.of(b"a secret of the tests")
NOW = datetime(2026, 11, 23, 9, tzinfo=UTC)
PEOPLE = ("anna", "bert")
SAID = (
    ("offer:own", "tailored"),
    ("channel:email", "off"),
    ("channel:email", "on"),
    ("offer:own", "none"),
    ("objection:marketing", "on"),
)


@pytest.fixture
def owner(database: str) -> Iterator[Connection]:
    """The owner of a ledger in which two people have made the same choices."""
    with psycopg.connect(database, autocommit=True) as connection:
        recipients.upsert(connection, SECRET, [Recipient(who, "customer", "nl") for who in PEOPLE], "test", NOW)
        for hours, said in enumerate(SAID):
            at = NOW + timedelta(hours=hours)
            for who in PEOPLE:
                events.record(
                    connection, SECRET, ConsentStatement(who, (Change(*said),), at), Provenance("mobile", "app", "v1"), at
                )
        yield connection


# -- workers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE consent_events SET new_value = 'tailored'",
        "DELETE FROM consent_events",
        "TRUNCATE consent_events",
        "ALTER TABLE consent_events DISABLE TRIGGER ALL",
        "ALTER TABLE consent_events DISABLE TRIGGER consent_events_append_only",
        "DROP TRIGGER consent_events_append_only ON consent_events",
        "CREATE OR REPLACE FUNCTION refuse_rewrite() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "DROP TABLE consent_events",
        "SET session_replication_role = replica",
        "DELETE FROM recipients",
        "DELETE FROM messages",
        "UPDATE policies SET body = ''",
        "CREATE TABLE elsewhere (x integer)",
    ],
)
def test_a_worker_has_no_right_to_rewrite_what_people_said(owner: Connection, database: str, statement: str) -> None:
    with (
        open_pool(database) as pool,
        lend(pool) as worker,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        worker.execute(statement.encode())
    assert len(events.history(owner, "anna")) == 8  # tailored switched three channels on
    assert events.verify(owner, SECRET) == []


def test_a_login_of_the_workers_own_can_do_their_work_and_never_become_the_owner(owner: Connection, database: str) -> None:
    owner.execute("CREATE ROLE clerk LOGIN IN ROLE dispatcher_worker")
    try:
        url = database.replace("postgresql://dispatcher@", "postgresql://clerk@")
        migrate(url)  # nothing to do, which a clerk may see
        with open_pool(url) as pool, lend(pool) as worker:
            ensure_period(worker, 203001)
            recipients.upsert(worker, SECRET, [Recipient("carl", "customer", "fr")], "clerk", NOW)
            events.record(
                worker, SECRET, ConsentStatement("carl", (Change("channel:push", "on"),), NOW), Provenance("live", "clerk"), NOW
            )
            assert events.verify(worker, SECRET) == []
            for statement in ("SET ROLE dispatcher", "SET SESSION AUTHORIZATION dispatcher"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    worker.execute(statement.encode())
    finally:
        owner.execute("DROP ROLE clerk")


# -- the owner ---------------------------------------------------------------------------------------------------------

_TEXTS = ("subject", "old_value", "new_value", "source", "actor", "wording", "contract_version", "recipient_id")
_TIMES = ("said_at", "recorded_at")
_HASHES = ("previous_hash", "hash")
_OTHER_TEXTS = st.one_of(
    st.sampled_from(("none", "on", "off", "tailored", "offer:own", "anna", "bert", "", "branch")),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
)
EDITS = st.one_of(
    st.tuples(st.sampled_from(_TEXTS), _OTHER_TEXTS),
    st.tuples(st.sampled_from(_TIMES), st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))),  # noqa: DTZ001
    st.tuples(st.sampled_from(_HASHES), st.binary(max_size=32)),
    st.tuples(st.just("seq"), st.integers(-1, 9)),
    st.tuples(st.just("no"), st.integers(-1, 99)),
)
ROW_EDITS = st.one_of(
    st.tuples(st.just("consent_seq"), st.integers(-1, 9)),
    st.tuples(st.just("consent_head"), st.none() | st.binary(max_size=32)),
    st.tuples(st.just("consent_seal"), st.binary(max_size=32)),
)


def restore(owner: Connection) -> None:
    """Put both tables back as they were."""
    with owner.transaction():
        owner.execute("DELETE FROM consent_events")
        owner.execute("INSERT INTO consent_events OVERRIDING SYSTEM VALUE SELECT * FROM kept_events")
        owner.execute("DELETE FROM recipients")
        owner.execute("INSERT INTO recipients SELECT * FROM kept_recipients")


def test_any_change_to_any_row_by_the_owner_is_found(owner: Connection) -> None:
    owner.execute("ALTER TABLE consent_events DISABLE TRIGGER ALL")
    owner.execute("ALTER TABLE consent_events ALTER no SET GENERATED BY DEFAULT")
    owner.execute("CREATE TABLE kept_events AS SELECT * FROM consent_events")
    owner.execute("CREATE TABLE kept_recipients AS SELECT * FROM recipients")
    rows = st.tuples(st.sampled_from(PEOPLE), st.integers(1, 8))

    def changed(table: str) -> bool:
        kept = sql.Identifier("kept_events" if table == "consent_events" else "kept_recipients")
        query = sql.SQL(
            "SELECT EXISTS (SELECT * FROM {0} EXCEPT SELECT * FROM {1}) OR EXISTS (SELECT * FROM {1} EXCEPT SELECT * FROM {0})"
        )
        row = owner.execute(query.format(sql.Identifier(table), kept)).fetchone()
        return bool(row and row[0])

    def tampered(table: str, statement: sql.Composed, values: tuple[object, ...]) -> None:
        try:
            owner.execute(statement, values)
        except psycopg.errors.IntegrityError:  # the database itself refuses, such as a number twice
            return
        found = events.verify(owner, SECRET)
        assert bool(found) == changed(table)
        restore(owner)

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(rows, EDITS, ROW_EDITS, st.sampled_from(("edit", "row", "delete", "copy", "swap")))
    def tamper(place: tuple[str, int], edit: tuple[str, object], row_edit: tuple[str, object], way: str) -> None:
        who, seq = place
        match way:
            case "edit":
                statement = sql.SQL("UPDATE consent_events SET {} = %s WHERE recipient_id = %s AND seq = %s")
                tampered("consent_events", statement.format(sql.Identifier(edit[0])), (edit[1], who, seq))
            case "row":
                statement = sql.SQL("UPDATE recipients SET {} = %s WHERE id = %s")
                tampered("recipients", statement.format(sql.Identifier(row_edit[0])), (row_edit[1], who))
            case "delete":
                statement = sql.SQL("DELETE FROM consent_events WHERE recipient_id = %s AND seq = %s")
                tampered("consent_events", statement.format(), (who, seq))
            case "copy":
                statement = sql.SQL(
                    "INSERT INTO consent_events (recipient_id, seq, subject, old_value, new_value, source, actor, wording, said_at,"
                    " recorded_at, previous_hash, hash) SELECT %s, 9, subject, old_value, new_value, source, actor, wording,"
                    " said_at, recorded_at, previous_hash, hash FROM consent_events WHERE recipient_id = %s AND seq = %s"
                )
                tampered("consent_events", statement.format(), ("bert", who, seq))
            case _:
                statement = sql.SQL(
                    "UPDATE consent_events e SET (new_value, hash) = (SELECT new_value, hash FROM consent_events o"
                    " WHERE o.recipient_id <> e.recipient_id AND o.seq = e.seq) WHERE recipient_id = %s AND seq = %s"
                )
                tampered("consent_events", statement.format(), (who, seq))

    tamper()
    assert events.verify(owner, SECRET) == []

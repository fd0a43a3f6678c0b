"""Database roles with fewer rights: a worker does its whole work in its own, and PostgreSQL refuses it what only people do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from channels.base import Channel, Event, EventKind, InboundText
from dispatcher.campaigns import schedule_runs, schedules, submission
from dispatcher.campaigns.template_approval import approve_waiting
from dispatcher.consent import erasure, preferences
from dispatcher.consent.preferences import PreferenceChange
from dispatcher.domain.preferences import changes
from dispatcher.events import event_endpoints, publication, webhook_delivery
from dispatcher.inbound import customer_replies, provider_events
from dispatcher.intake.campaign import parse_campaign
from dispatcher.intake.trigger import parse_trigger
from dispatcher.ledger import partitions, roles
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import suppressions
from dispatcher.ledger.delivery import messages
from dispatcher.ledger.keyed_hash import address_key
from dispatcher.ledger.maintenance import audit
from dispatcher.ledger.migrations import migrate
from dispatcher.ledger.roles import READER, TASKS
from dispatcher.maintenance import key_rotation, retention
from dispatcher.runtime.services import Services
from tests.support.http_servers import http_answer
from tests.support.released_ledgers import fill_ledger
from tests.support.services import NOON, Clock, add_people, make_services, outbox, person, states, work
from tests.support.webhook_receiver import receiver

LOAN = {"offer_url": "https://www.bank.example/loan", "project": "a bike", "amount": 5_000}
EVENING = NOON.replace(hour=22)


@pytest.fixture(scope="module")
def owned(running_engines: Any) -> Iterator[str]:
    """The URL of a ledger whose owner, `plain_roles`, is no superuser; logins of both roles; rows in every table."""
    server = running_engines.database_url
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute("CREATE ROLE plain_roles LOGIN NOSUPERUSER CREATEROLE")
        admin.execute("GRANT dispatcher_worker TO plain_roles" if _exists(admin, "dispatcher_worker") else "SELECT 1")
        admin.execute("CREATE DATABASE roles OWNER plain_roles")
        url = urlsplit(server)._replace(path="/roles").geturl().replace("dispatcher@", "plain_roles@")
        try:
            fill_ledger(url, "0001")
            migrate(url)
            roles.create(url)
            for login, role in (("a_worker", TASKS), ("a_reader", READER)):
                admin.execute(f"CREATE ROLE {login} LOGIN".encode())
                admin.execute(f"GRANT {role} TO {login}".encode())
            yield url
        finally:
            admin.execute("DROP DATABASE roles WITH (FORCE)")
            for role in ("a_worker", "a_reader", TASKS, READER, "plain_roles"):
                admin.execute(f"DROP ROLE IF EXISTS {role}".encode())


def _exists(admin: psycopg.Connection, role: str) -> bool:
    return admin.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,)).fetchone() is not None


def login(owned: str, name: str) -> str:
    return owned.replace("plain_roles@", f"{name}@")


@contextmanager
def as_worker(owned: str, clock: Clock) -> Iterator[Services]:
    url = login(owned, "a_worker")
    migrate(url, role=TASKS)  # what each process does at its start: there is nothing to migrate
    with make_services(url, clock, approved=False, role=TASKS) as services:
        yield services


def test_a_worker_does_its_whole_work_in_its_role(owned: str) -> None:
    clock = Clock(EVENING)
    with make_services(owned, clock) as web:
        approve_waiting(web, "tests")
        add_people(web, person("carl", 71), person("dora", 72), person("emil", 73))
        with lend(web.pool) as connection:
            key = address_key(web.secret, "email", "dora@example.org")
            suppressions.suppress(connection, Channel.EMAIL, key, "group_unsubscribe", "sendgrid", clock())
    with as_worker(owned, clock) as worker:
        with lend(worker.pool) as connection:
            partitions.create_ahead(connection, clock())
        work(worker)
        people = [{"recipient": each, "data": LOAN} for each in ("carl", "dora", "emil")]
        form = {"id": "roles", "template": "loan_offer", "channels": ["email"], "audience": people}
        clock.now = NOON.replace(day=24)
        submission.submit(worker, parse_campaign(form, submission.validation_context(worker)))
        job = {"key": "k-roles", "recipient": "carl", "template": "optout_acknowledgement", "data": {"scope": "email"}}
        submission.take_trigger(worker, parse_trigger(job, submission.validation_context(worker)))
        work(worker)
        assert states(worker, "roles") == {"accepted": 2, "refused": 1}
        assert outbox(worker).sent
        with lend(worker.pool) as connection:
            refs = {name: str(messages.of_campaign(connection, "roles", name)[0].ref) for name in ("carl", "emil", "dora")}
        reports = [
            Event("sendgrid", "roles-1", Channel.EMAIL, EventKind.DELIVERED, clock(), refs["carl"]),
            Event("sendgrid", "roles-2", Channel.EMAIL, EventKind.BOUNCED, clock(), refs["emil"], code="550"),
            Event("sendgrid", "roles-3", Channel.EMAIL, EventKind.OPTED_OUT, clock(), refs["carl"], code="unsubscribe"),
        ]
        provider_events.store_events(worker, reports)
        while provider_events.apply_batch(worker, lambda _: None):
            pass
        assert states(worker, "roles") == {"delivered": 1, "bounced": 1, "refused": 1}
        customer_replies.handle_reply(worker, lambda _: None, InboundText("SM-9", Channel.SMS, "+32470000071", "STOP"))
        change = PreferenceChange("emil", changes({"own": "none"}, {}, None, None), "mobile", "app", "")
        preferences.record(worker, lambda _: None, change)
        retention.clear(worker)
        clock.pass_(400 * 86_400)
        cleared = {done.data.what for done in retention.clear(worker) if done.cleared}
        assert "prospects without any contact" in cleared
        work(worker)
        with lend(worker.pool) as connection:
            assert audit.verify(connection, worker.secret, clock(), 60) == []
        key_rotation.status(worker)


def test_a_worker_delivers_events_in_its_role(owned: str) -> None:
    clock = Clock(EVENING)  # before the endpoints of the released ledger are due
    with receiver(lambda _, number: http_answer(410 if number == 2 else 204)) as crm, as_worker(owned, clock) as worker:
        with make_services(owned, clock, approved=False) as web:
            form = {"id": "roles", "url": crm.url, "types": ["recipient"]}
            hosts = frozenset({"127.0.0.1"})
            event_endpoints.add(replace(web, webhook_hosts=hosts), event_endpoints.parse_form(form), "tests")
            for number in (81, 82):
                add_people(web, person(f"leaver-{number}", number))
                erasure.erase(web, f"leaver-{number}", "tests")
        publication.publish(worker, 60.0)
        webhook_delivery.deliver(replace(worker, webhook_hosts=hosts))
        assert len(crm.requests) == 2
        assert event_endpoints.status(worker, "roles").endpoint.disabled_reason == "gone"


def test_a_worker_starts_scheduled_runs_in_its_role(owned: str) -> None:
    clock = Clock(NOON)
    with make_services(owned, clock) as web:
        campaign = {"template": "loan_offer", "channels": ["email"], "audience": {"upload": "roles-*"}}
        form = {"id": "roles-daily", "cron": "0 9 * * *", "zone": "Europe/Brussels", "campaign": campaign}
        schedules.add(web, schedules.parse(web, form), "anna")
    with as_worker(owned, clock) as worker:
        clock.now = NOON.replace(day=24, hour=8)
        schedule_runs.start_due(worker)
        (run,) = schedules.status(worker, "roles-daily").runs
        assert (run.state, run.reason) == ("failed", "audience_missing")


FORBIDDEN = {
    "approve a recurring campaign": "UPDATE schedules SET state = 'active', approved_by = 'me'",
    "add a recurring campaign": "INSERT INTO schedules (id, definition, state, submitted_by, created_at)"
    " VALUES ('x', '{}', 'active', 'me', now())",
    "sign for a change of an endpoint": "INSERT INTO endpoint_changes (endpoint_no, endpoint_id, at, actor, action)"
    " VALUES (1, 'crm', now(), 'me', 'skip')",
    "lift a suppression": "UPDATE suppressions SET lifted_at = now()",
    "delete a suppression": "DELETE FROM suppressions",
    "approve a template": "INSERT INTO template_approvals (template, version, digest, approved, actor, at)"
    " VALUES ('loan_offer', '1', repeat('0', 64), true, 'me', now())",
    "edit an address": "UPDATE recipients SET email = 'else@example.org'",
    "edit a profile": "UPDATE recipients SET profile = '{}'",
    "add a recipient": "INSERT INTO recipients (id, person, language, consent_seal) VALUES ('x', 'customer', 'nl', '')",
    "delete a recipient": "DELETE FROM recipients",
    "change a recorded choice": "UPDATE consent_events SET new_value = 'on'",
    "delete recorded choices": "DELETE FROM consent_events",
    "adopt a policy": "INSERT INTO policies_in_force (digest, actor, at) SELECT digest, 'me', now() FROM policies",
    "introduce a key": "INSERT INTO secret_keys (fingerprint, introduced_at) VALUES ('', now())",
    "send events elsewhere": "UPDATE event_endpoints SET url = 'https://else.example/'",
    "add a receiver of events": "INSERT INTO event_endpoints (id, url) VALUES ('x', 'https://else.example/')",
    "read sessions": "SELECT FROM sessions",
    "start a session": "INSERT INTO sessions VALUES ('', 'user:me', 'console', '', now(), now(), now(), now())",
    "delete a campaign": "DELETE FROM campaigns",
    "edit a campaign in a person's name": "INSERT INTO campaign_edits (campaign_no, version, at, actor, changes, is_material)"
    " VALUES (1, 1, now(), 'me', '{}', false)",
    "keep a dry run in a person's name": "INSERT INTO campaign_dry_runs (campaign_no, made_at, actor, policy, templates, counts)"
    " VALUES (1, now(), 'me', '', '{}', '{}')",
    "create a table": "CREATE TABLE mine (id int)",
    "switch the triggers off": "ALTER TABLE consent_events DISABLE TRIGGER ALL",
    "become the owner": "SET ROLE plain_roles",
    "take the role of the web": "SET ROLE dispatcher_worker",
}


@pytest.mark.parametrize("statement", FORBIDDEN.values(), ids=FORBIDDEN)
def test_postgres_refuses_a_worker_what_only_people_do(owned: str, statement: str) -> None:
    with psycopg.connect(login(owned, "a_worker"), autocommit=True) as worker:
        for before in ("SELECT 1", f"SET ROLE {TASKS}"):
            worker.execute(before.encode())
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                worker.execute(statement.encode())


def test_functions_do_no_more_than_a_worker_needs(owned: str) -> None:
    count = (
        "SELECT (SELECT count(*) FROM suppressions WHERE lifted_at IS NULL), (SELECT count(*) FROM recipients WHERE email IS NULL)"
    )
    with psycopg.connect(login(owned, "a_worker"), autocommit=True) as worker:
        before = worker.execute(count).fetchone()
        worker.execute("SELECT lift_by_report(channel, address_key, ARRAY[reason], now(), now()) FROM suppressions")
        worker.execute("SELECT erase_prospect(id, now()) FROM recipients WHERE person <> 'prospect'")
        with pytest.raises(psycopg.errors.RaiseException, match="never rotated"):
            worker.execute(r"SELECT move_address_keys(ARRAY['\x01'::bytea], ARRAY['\x02'::bytea])")
        assert worker.execute(count).fetchone() == before


def test_a_reader_sees_states_and_no_personal_data(owned: str) -> None:
    with psycopg.connect(login(owned, "a_reader"), autocommit=True) as reader:
        assert reader.execute("SELECT id, state FROM campaigns").fetchall()
        assert reader.execute("SELECT state, reason FROM messages").fetchall()
        for personal in (
            "email FROM recipients",
            "profile FROM recipients",
            "data FROM jobs",
            "words FROM inbound_texts",
            "url FROM event_endpoints",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                reader.execute(f"SELECT {personal}".encode())
        for statement in ("SELECT FROM sessions", "UPDATE campaigns SET note = 'x'", "SELECT make_partitions(202901)"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                reader.execute(statement.encode())

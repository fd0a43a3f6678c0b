"""A person's rights, tested on the whole program: access, erasure, and an explanation that stays true."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from channels.base import Channel, Event, EventKind, InboundText
from dispatcher.campaigns import scheduler, submission
from dispatcher.delivery import explanation
from dispatcher.delivery.pipeline import run_chunk
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.preferences import Change
from dispatcher.domain.recipient import LANGUAGES
from dispatcher.inbound import customer_replies, provider_events
from dispatcher.intake.campaign import parse_campaign
from dispatcher.intake.trigger import parse_trigger
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import erasure, events, recipients
from dispatcher.ledger.consent.events import ConsentStatement, Provenance
from dispatcher.ledger.delivery import messages
from dispatcher.ledger.maintenance import policies
from dispatcher.policy import parse, shipped
from dispatcher.runtime.services import Services
from dispatcher.web.api_keys import Right, new_key, read_keys
from dispatcher.web.app import create
from tests.support.command import run_command
from tests.support.services import Broker, Clock, add_people, make_services, person

LOAN = {"project": "a kitchen for Zwaantje", "amount": 9000, "offer_url": "https://www.bank.example/loan"}
ZWAANTJE = person(
    "c-1",
    email="zwaantje@example.org",
    phone="+32470112233",
    whatsapp="+32470112233",
    push=[{"token": "zwaantje-token", "platform": "ios", "permission": True}],
    birth_date="1981-02-03",
    profile={"identity": {"first_name": "Zwaantje"}},
)
OTHER = {**LOAN, "project": "a roof"}
TRACES = ("zwaantje", "Zwaantje", "470112233", "1981-02-03")


@pytest.fixture
def services(database: str) -> Iterator[Services]:
    with make_services(database, Clock()) as made:
        yield made


def live(services: Services) -> MessageId:
    """A campaign that lists her twice, a trigger, a message that is still due, a bounce, and answers from her number."""
    add_people(services, ZWAANTJE, person("c-2", 2))
    rows = [{"recipient": "c-1", "data": LOAN}, {"recipient": "c-2", "data": OTHER}, {"recipient": "c-1", "data": LOAN}]
    form: dict[str, Any] = {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": rows}
    submission.submit(services, parse_campaign(form, submission.validation_context(services)))
    later = {**form, "id": "summer", "send_at": "2026-12-24T09:00:00Z"}
    submission.submit(services, parse_campaign(later, submission.validation_context(services)))
    job = {"key": "k-1", "recipient": "c-1", "template": "loan_offer", "data": LOAN}
    place = submission.take_trigger(services, parse_trigger(job, submission.validation_context(services)))
    run_chunk(services, place.period, place.chunk)
    for due in scheduler.due_chunks(services):
        run_chunk(services, due.period, due.number)
    with lend(services.pool) as connection:
        ref = messages.of_campaign(connection, "spring", "c-1")[0].ref
    provider_events.store_events(
        services, [Event("sendgrid", "e-1", Channel.EMAIL, EventKind.BOUNCED, services.clock(), str(ref), code="550")]
    )
    provider_events.apply_batch(services, lambda _: None)
    for number, words in enumerate(("Zwaantje wil dit niet", "STOP")):
        customer_replies.handle_reply(services, lambda _: None, InboundText(f"SM-{number}", Channel.SMS, "+32470112233", words))
    return ref


def everything(database: str) -> str:
    """Every row of every table, as text."""
    with psycopg.connect(database) as owner:
        tables = owner.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        rows = [owner.execute(f'SELECT t::text FROM "{name}" t').fetchall() for (name,) in tables]  # noqa: S608
    return "\n".join(text for table in rows for (text,) in table)


def test_an_export_tells_all_that_is_known(services: Services) -> None:
    live(services)
    with lend(services.pool) as connection:
        known = json.loads(json.dumps(recipients.export(connection, "c-1"), default=str))
    assert (known["email"], known["phone"], known["profile"]) == (ZWAANTJE["email"], ZWAANTJE["phone"], ZWAANTJE["profile"])
    assert {ban["channel"] for ban in known["suppressions"]} == {"email", "sms"}
    assert [event["new_value"] for event in known["consent"] if event["subject"] == "channel:sms_whatsapp"] == ["on", "off"]
    assert len(known["jobs"]) == 5 + 1  # two in each campaign, a trigger, and the acknowledgement of the STOP
    assert {job["data"].get("project") for job in known["jobs"]} == {LOAN["project"], None}
    assert {message["campaign"] for message in known["messages"]} == {"spring", None}
    assert all(bool(message["campaign"]) != bool(message["trigger"]) for message in known["messages"])
    assert [event["code"] for message in known["messages"] for event in message["events"]] == ["550"]
    assert [(answer["meaning"], answer["words"]) for answer in known["answers"]] == [
        ("unclear", "Zwaantje wil dit niet"),
        ("stop", None),
    ]


def test_erasure_leaves_no_trace_in_any_table_and_every_decision(services: Services, database: str) -> None:
    ref = live(services)
    assert all(trace in everything(database) for trace in TRACES)
    with lend(services.pool) as connection:
        decided = messages.find(connection, ref)
        erasure.erase(connection, services.secret, "c-1", "desk", services.clock())
        assert events.verify(connection, services.secret) == []
        after = messages.find(connection, ref)
        assert decided is not None
        assert after is not None
        assert after.decision == decided.decision
        assert explanation.explain_message(connection, services.policy, after, "nl").why
        assert recipients.export(connection, "c-1")["jobs"][0]["data"] == {}
    left = everything(database)
    assert not [trace for trace in TRACES if trace in left]
    assert "a roof" in left  # another person's
    assert [text.text for text in customer_replies.waiting(services, 10)] == [""]  # unread: it still holds the number


def test_a_ban_outlives_erasure_and_stops_the_same_address_under_another_id(services: Services) -> None:
    live(services)
    with lend(services.pool) as connection:
        erasure.erase(connection, services.secret, "c-1", "desk", services.clock())
    add_people(services, {**ZWAANTJE, "id": "c-9", "email": "ZWAANTJE@example.org"})
    form = {"id": "again", "template": "loan_offer", "channels": ["email", "sms"], "audience": [{"recipient": "c-9", "data": LOAN}]}
    submission.submit(services, parse_campaign(form, submission.validation_context(services)))
    for due in scheduler.due_chunks(services):
        run_chunk(services, due.period, due.number)
    with lend(services.pool) as connection:
        (message,) = messages.of_campaign(connection, "again", "c-9")
    assert (message.state, message.reason) == ("refused", "suppressed")


def test_finding_a_persons_jobs_reads_indexes_only(services: Services, database: str) -> None:
    live(services)
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute("SET enable_seqscan = off")
        plan = "\n".join(row[0] for row in owner.execute(f"EXPLAIN {erasure.EMPTY_JOBS}", {"id": "c-1"}))
    assert "Seq Scan on jobs" not in plan, plan


# -- a story that stays true -------------------------------------------------------------------------------------------


def changed_since(services: Services) -> tuple[str, Services]:
    """The services after the policy, the person's choices and the templates have changed."""
    text = shipped().replace('"KBC Bank NV"', '"Another Bank NV"').replace("attempts_max = 6", "attempts_max = 2")
    with lend(services.pool) as connection:
        now = services.clock()
        for subject, value in (("offer:own", "none"), ("objection:marketing", "on")):
            events.record(
                connection,
                services.secret,
                ConsentStatement("c-1", (Change(subject, value),), now),
                Provenance("mobile", "app"),
                now,
            )
        policies.store_policy(connection, parse(text).digest, text)
    return text, replace(services, policy=parse(text), catalog=type(services.catalog)({}))


def test_an_explanation_outlives_changes_of_policy_choices_and_templates(services: Services, database: str, tmp_path: Path) -> None:
    ref = live(services)
    key, line = new_key("app", [Right.MESSAGES.value])
    file = tmp_path / "keys.toml"
    file.write_text(line)

    def told(of: Services) -> dict[str, str]:
        with TestClient(create(of, Broker(), read_keys(file))) as client:
            path, headers = f"/v1/messages/{ref}/explanation", {"Authorization": f"Bearer {key}"}
            return {language: client.get(f"{path}?language={language}", headers=headers).json()["text"] for language in LANGUAGES}

    before = told(services)
    assert all("KBC Bank NV" in text for text in before.values())
    text, changed = changed_since(services)
    assert told(changed) == before
    policy = tmp_path / "policy.toml"
    policy.write_text(text)
    shown = command(database, tmp_path, "message", "explain", str(ref), "--language", "fr", "--json", DISPATCHER_POLICY=str(policy))
    assert shown["text"] == before["fr"]


# -- the command line --------------------------------------------------------------------------------------------------


def command(database: str, home: Path, *words: str, **environ: str) -> Any:
    """What a command prints with --json."""
    done = run_command(database, home, *words, **environ)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)

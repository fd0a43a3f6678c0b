"""Events out: a consumer rebuilds everything from the feed; each change is there once, in order; nothing can be taken away."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import uvicorn
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from starlette.testclient import TestClient

from channels.base import Channel, InboundText
from dispatcher.campaigns import actions, balance_events, submission, template_approval
from dispatcher.campaigns.actions import CampaignAction
from dispatcher.consent import erasure
from dispatcher.delivery import messages
from dispatcher.domain.message import State
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.preferences import Change
from dispatcher.events import feed, publication
from dispatcher.events.catalog import ALL_TYPES, DATA, EventFamily
from dispatcher.events.feed import CursorGone
from dispatcher.inbound import customer_replies, provider_events
from dispatcher.intake.campaign import parse_campaign
from dispatcher.intake.errors import BadInput
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import events
from dispatcher.ledger.consent.events import ConsentStatement, Provenance
from dispatcher.ledger.events import stream
from dispatcher.maintenance import retention, sweep
from dispatcher.runtime.services import Services
from dispatcher.web.api_keys import new_key, read_keys
from dispatcher.web.app import create
from tests.support.feed import all_events, chained, untold
from tests.support.services import Broker, Clock, add_people, balance, make_services, person, work
from tests.support.signed_webhooks import sendgrid_events

OFFER = {"project": "Geheimtuin", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
ANNA = "+32470000001"
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "feed_client.py"


@pytest.fixture
def services(database: str) -> Iterator[Services]:
    with make_services(database, Clock()) as made:
        add_people(made, person("anna", 1), person("bert", 2), person("carl", 3, offers={"own": "none"}))
        yield made


def submit(services: Services, campaign_id: str = "spring", channels: tuple[str, ...] = ("email",), **changes: Any) -> None:
    rows = [{"recipient": recipient_id, "data": OFFER} for recipient_id in ("anna", "bert", "carl")]
    form = {"id": campaign_id, "template": "loan_offer", "channels": list(channels), "audience": rows, **changes}
    submission.submit(services, parse_campaign(form, submission.validation_context(services)))


def say(services: Services, recipient_id: str, subject: str, value: str) -> None:
    now = services.clock()
    statement = ConsentStatement(recipient_id, (Change(subject, value),), now)
    with lend(services.pool) as connection:
        events.record(connection, services.secret, statement, Provenance("branch", "clerk-0815", "wording-4711"), now)


def of_type(services: Services, pattern: str) -> list[dict[str, Any]]:
    chosen = feed.types_chosen([pattern])
    assert chosen
    return [event for event in all_events(services) if event["type"] in chosen]


def everything_once(services: Services) -> None:
    """Make at least one event of each kind."""
    submit(services)
    work(services)
    (anna,) = [each for each in of_type(services, "message.accepted") if each["subject"] == "anna"]
    for event in ("delivered", "bounce"):
        row = {"event": event, "sg_event_id": event, "message_id": anna["data"]["message"], "email": "anna@example.org"}
        provider_events.store_events(services, sendgrid_events(row, now=services.clock()))
        provider_events.apply_batch(services, lambda _: None)
    say(services, "bert", "channel:email", "off")
    text = InboundText("SM1", Channel.SMS, ANNA, "STOP")
    customer_replies.handle_reply(services, lambda _: None, text)
    template_approval.set_approval(services, "loan_offer", False, "approver-0815")
    erasure.erase(services, "carl", "clerk-0815")
    publication.publish(services)
    balance_events.count_balances(services)


def test_a_consumer_rebuilds_a_campaign_from_the_feed_alone(services: Services) -> None:
    submit(services, channels=("email", "sms"), route="all")
    submit(services, "later", send_at=(services.clock() + timedelta(hours=1)).isoformat())
    work(services)
    say(services, "bert", "channel:email", "off")
    actions.apply(services, "later", CampaignAction.CANCEL, "tests")
    rebuilt: dict[str, dict[str, str]] = defaultdict(dict)
    campaigns = {}
    for event in all_events(services):
        data = event["data"]
        if event["type"].startswith("dispatcher.message."):
            rebuilt[data["campaign"]][data["message"]] = data["state"]
        elif event["type"].startswith("dispatcher.campaign."):
            campaigns[data["campaign"]] = (data["state"], data["audience"])
    assert sorted(rebuilt["spring"].values()) == ["accepted"] * 4 + ["refused"] * 2
    assert list(rebuilt["later"].values()) == ["cancelled"] * 3
    assert balance(services, "later").states[State.CANCELLED] == 3
    assert campaigns == {"spring": ("finished", 3), "later": ("cancelled", 3)}


def test_each_event_is_a_cloudevent_whose_data_has_its_schema(services: Services) -> None:
    everything_once(services)
    events_ = all_events(services)
    assert {event["type"].split(".")[1] for event in events_} == {str(kind) for kind in EventFamily}
    for event in events_:
        parsed = JSONFormat().read(CloudEvent, JSONFormat().write(CloudEvent(without_data(event), event["data"])))
        assert parsed.get_type() in ALL_TYPES
        kind = EventFamily(event["type"].split(".")[1])
        assert event["dataschema"] == f"https://dispatcher.example/v1/events/schemas/{kind}.v1.json"
        DATA[kind].model_validate(event["data"])


def without_data(event: dict[str, Any]) -> dict[str, Any]:
    return {name: datetime.fromisoformat(value) if name == "time" else value for name, value in event.items() if name != "data"}


def test_events_carry_ids_and_never_who_or_what_was_written(services: Services) -> None:
    everything_once(services)
    publication.publish(services)
    lines = "\n".join(line.decode() for line in feed.read(services, 0, 10_000).lines)
    for private in ("example.org", "Geheimtuin", ANNA, "32470", "0815", "wording-4711", "device-"):
        assert private not in lines


def test_what_is_rolled_back_is_not_an_event(services: Services) -> None:
    before = len(all_events(services))
    with lend(services.pool) as connection, connection.transaction(force_rollback=True):
        now = services.clock()
        statement = ConsentStatement("anna", (Change("channel:email", "off"),), now)
        events.record(connection, services.secret, statement, Provenance("branch", "clerk"), now)
    assert len(all_events(services)) == before


def test_numbers_have_no_gap_and_hashes_prove_each_page(services: Services) -> None:
    everything_once(services)
    events_ = all_events(services)
    assert [int(event["sequence"]) for event in events_] == list(range(1, len(events_) + 1))
    cursor, hash_ = 0, None
    while cursor < len(events_):
        page = feed.read(services, cursor, 3)
        assert page.previous_hash == (hash_ or stream.START.hex())
        hash_ = chained(page.previous_hash, events_[cursor : page.next])
        assert page.hash == hash_
        cursor = page.next
    assert feed.verify(services).fault is None


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        ("DELETE FROM published_events WHERE first = (SELECT first FROM published_events ORDER BY last OFFSET 1 LIMIT 1)", "chain"),
        ("DELETE FROM published_events WHERE last = (SELECT max(last) FROM published_events)", "the stream ends at"),
        ("UPDATE published_events SET events = (SELECT events FROM published_events ORDER BY last DESC LIMIT 1)", "number"),
        ("UPDATE published_events SET hash = sha256('x') WHERE last = (SELECT max(last) FROM published_events)", "have their hash"),
        ("UPDATE event_stream SET hash = sha256('x')", "stream's end"),
    ],
)
def test_verify_finds_what_was_taken_away_or_changed(services: Services, database: str, damage: str, fault: str) -> None:
    everything_once(services)
    all_events(services)
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(damage)
    found = feed.verify(services)
    assert found.fault is not None
    assert fault in found.fault
    with psycopg.connect(database, autocommit=True) as owner:  # the end of every test reads the whole feed
        owner.execute("TRUNCATE published_events, messages, outbox; UPDATE event_stream SET last = 0, hash = sha256('')")


def test_two_processes_publish_each_event_once(services: Services) -> None:
    submit(services)
    work(services)
    threads = [threading.Thread(target=publication.publish, args=(services, 5.0)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(20):
        say(services, "anna", "channel:push", "off" if number % 2 else "on")
    for thread in threads:
        thread.join()
    events_ = all_events(services)
    assert [int(event["sequence"]) for event in events_] == list(range(1, len(events_) + 1))
    switches = [
        each["data"]["number"] for each in events_ if each["type"] == "dispatcher.consent.changed" and each["subject"] == "anna"
    ]
    assert switches == sorted(set(switches))
    assert feed.verify(services).fault is None


def test_an_opt_out_comes_before_what_it_did_to_messages(services: Services) -> None:
    submit(services, send_at=(services.clock() + timedelta(hours=1)).isoformat())
    assert isinstance(services.clock, Clock)
    work(services)
    erasure.erase(services, "anna", "clerk")
    services.clock.pass_(3_600)
    work(services)
    about_anna = [event["type"] for event in all_events(services) if event["subject"] == "anna"]
    assert about_anna.index("dispatcher.recipient.erased") < about_anna.index("dispatcher.message.refused")


def test_a_suppression_names_all_who_have_the_address(services: Services) -> None:
    add_people(services, person("dora", 4, email="anna@example.org"))
    everything_once(services)
    by_channel = {event["data"]["channel"]: event["data"]["recipients"] for event in of_type(services, "suppression.set")}
    assert by_channel["email"] == ["anna", "dora"]


def test_types_are_chosen_by_name_kind_or_pattern(services: Services) -> None:
    everything_once(services)
    assert {event["type"] for event in of_type(services, "consent")} == {"dispatcher.consent.changed"}
    two = feed.types_chosen(["dispatcher.message.failed", "message.dead"])
    assert sorted(two or ()) == ["dispatcher.message.dead", "dispatcher.message.failed"]
    page = feed.read(services, 0, 10_000, feed.types_chosen(["consent"]))
    assert (page.hash, page.next) == (None, feed.newest(services))
    assert len(page.lines) == len(of_type(services, "consent"))
    with pytest.raises(BadInput, match="names no type of event"):
        feed.types_chosen(["message.lost"])


def test_retention_ends_events_and_an_old_cursor_is_told(services: Services) -> None:
    assert isinstance(services.clock, Clock)
    everything_once(services)
    count = len(all_events(services))
    services.clock.pass_(services.policy.retention.events.days * 86_400 + 60)
    work(services)
    assert any(each.data.policy_key == "events" and each.cleared for each in retention.clear(services))
    with pytest.raises(CursorGone, match=f"the oldest that is kept is {count + 1}"):
        feed.read(services, 0, 10)
    assert feed.read(services, count, 10).next == count
    assert feed.verify(services).fault is None
    with lend(services.pool) as connection:
        connection.execute("UPDATE messages SET state = 'pending'")  # their events are gone, as they should be


def opt_out_and_publish(services: Services) -> None:
    say(services, "anna", "channel:email", "off")
    publication.publish(services)


def test_the_feed_by_http_waits_pages_and_refuses(services: Services, tmp_path: Path) -> None:
    key, entry = new_key("crm", ["events"])
    (tmp_path / "keys.toml").write_text(entry)
    with TestClient(create(services, Broker(), read_keys(tmp_path / "keys.toml"))) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        count = len(all_events(services))
        first = client.get("/v1/events", params={"limit": 2}).json()
        assert (len(first["events"]), first["next"], first["more"]) == (2, 2, True)
        assert first["hash"] == chained(first["previous_hash"], first["events"])
        threading.Timer(0.3, opt_out_and_publish, (services,)).start()
        waited = client.get("/v1/events", params={"after": count, "wait": 30}).json()
        assert [event["data"]["new_value"] for event in waited["events"]] == ["off"]
        assert client.get("/v1/events", params={"after": 10**6}).status_code == 422
        assert client.get("/v1/events", params={"types": "message.lost"}).status_code == 422
        with lend(services.pool) as connection:
            connection.execute("DELETE FROM published_events")
        gone = client.get("/v1/events", params={"after": 0})
        assert (gone.status_code, gone.headers["content-type"]) == (410, "application/problem+json")
        schema = client.get("/v1/events/schemas/message.v1.json").json()
        assert schema["properties"]["recipient"]["description"]


@contextmanager
def served(services: Services, folder: Path) -> Iterator[tuple[str, str]]:
    """The application on a port of this machine: its address, and a key with the right for events."""
    key, entry = new_key("crm", ["events"])
    (folder / "keys.toml").write_text(entry)
    application = create(services, Broker(), read_keys(folder / "keys.toml"))
    server = uvicorn.Server(uvicorn.Config(application, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", key
    server.should_exit = True
    thread.join()


def test_the_client_of_the_guide_checks_every_page(services: Services, database: str, tmp_path: Path) -> None:
    everything_once(services)
    count = len(all_events(services))
    with served(services, tmp_path) as (url, key):

        def run(*oldest: str) -> subprocess.CompletedProcess[str]:
            command = (sys.executable, str(EXAMPLE), url, str(tmp_path / "cursor.json"), *oldest)
            return subprocess.run(command, env={"DISPATCHER_KEY": key}, capture_output=True, text=True, check=False)

        assert len(run().stdout.splitlines()) == count
        say(services, "anna", "channel:email", "off")
        publication.publish(services)
        assert len(run().stdout.splitlines()) == 1
        say(services, "anna", "channel:email", "on")
        publication.publish(services)
        with psycopg.connect(database, autocommit=True) as owner:
            owner.execute("UPDATE published_events SET previous_hash = sha256('x')")
        assert "not the one that was read before" in run().stderr
        with psycopg.connect(database, autocommit=True) as owner:
            old = "FROM published_events WHERE first < (SELECT max(first) FROM published_events)"
            owner.execute(f"CREATE TABLE old_events AS SELECT * {old}")
            owner.execute(f"DELETE {old}")
        (tmp_path / "cursor.json").unlink()
        lost = run()
        assert (lost.returncode, lost.stdout) == (1, "")
        assert "events are missing: event 1 was deleted by retention" in lost.stderr
        assert len(run(lost.stderr.split()[-1]).stdout.splitlines()) == 1
        with psycopg.connect(database, autocommit=True) as owner:  # for the check after each test
            owner.execute("INSERT INTO published_events SELECT * FROM old_events")
            owner.execute("DROP TABLE old_events")


def test_the_check_of_all_tests_sees_a_state_that_is_not_told(services: Services) -> None:
    submit(services)
    work(services)
    assert not untold(services)
    (accepted, *_) = of_type(services, "message.accepted")
    message = messages.find(services, MessageId.parse(accepted["data"]["message"]))
    assert message is not None
    with lend(services.pool) as connection:
        connection.execute("UPDATE messages SET state = 'read' WHERE recipient_id = %s", (message.recipient_id,))
    assert len(untold(services)) == 1
    with lend(services.pool) as connection:
        connection.execute("UPDATE messages SET state = 'accepted' WHERE recipient_id = %s", (message.recipient_id,))


def counted(services: Services, campaign_id: str = "spring") -> list[dict[str, Any]]:
    """The data of all balance events of a campaign, after a sweep."""
    all_events(services)
    sweep.sweep(services)
    return [each["data"] for each in of_type(services, "balance") if each["subject"] == campaign_id]


def test_a_balance_event_says_what_campaign_show_does(services: Services) -> None:
    assert isinstance(services.clock, Clock)
    submit(services, channels=("email", "sms"), route="all")
    work(services)
    newest = counted(services)[-1]
    shown = balance(services)
    assert (newest["state"], newest["audience"], newest["entity"]) == ("finished", 3, "kbc-bank")
    assert newest["states"] == dict(shown.states)
    assert sum(newest["states"].values()) == 3
    assert (newest["reasons"], newest["channels"]) == (shown.reasons, shown.channels)


def test_a_balance_is_counted_again_only_after_a_change_and_a_minute(services: Services) -> None:
    assert isinstance(services.clock, Clock)
    submit(services)
    work(services)
    before = len(counted(services))
    (anna,) = [each for each in of_type(services, "message.accepted") if each["subject"] == "anna"]
    row = {"event": "delivered", "sg_event_id": "1", "message_id": anna["data"]["message"], "email": "anna@example.org"}
    provider_events.store_events(services, sendgrid_events(row, now=services.clock()))
    provider_events.apply_batch(services, lambda _: None)
    assert len(counted(services)) == before
    services.clock.pass_(balance_events.PAUSE_SECONDS_MIN)
    after = counted(services)
    assert (len(after), after[-1]["states"]["delivered"]) == (before + 1, 1)
    services.clock.pass_(86_400)
    assert len(counted(services)) == before + 1


def test_each_state_of_a_campaign_is_counted_at_once(services: Services) -> None:
    submit(services, send_at=(services.clock() + timedelta(hours=1)).isoformat())
    assert [each["state"] for each in counted(services)] == ["scheduled"]
    for action in (CampaignAction.PAUSE, CampaignAction.RESUME, CampaignAction.CANCEL):
        actions.apply(services, "spring", action, "tests")
        counted(services)
    events_ = counted(services)
    assert [each["state"] for each in events_] == ["scheduled", "paused", "scheduled", "cancelled"]
    assert [each["states"]["cancelled"] for each in events_] == [0, 0, 0, 3]

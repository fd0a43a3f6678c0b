"""Rotation of the secret key: at every moment, an opt-out and a ban find their people, whichever key they were written with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest

from channels.base import Channel, Event, EventKind, InboundText, OptedOut
from dispatcher.campaigns.submission import submit, validation_context
from dispatcher.consent.link_owner import owner_of_token
from dispatcher.consent.link_tokens import UNSUBSCRIBE, BadToken, message_token, read_message_token
from dispatcher.delivery.reconciliation import marks
from dispatcher.domain.derived_keys import KeyRing, fingerprint
from dispatcher.domain.errors import KeyMismatch, LedgerUnavailable
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.preferences import Change
from dispatcher.inbound import customer_replies, provider_events
from dispatcher.intake.campaign import parse_campaign
from dispatcher.ledger import secret_keys
from dispatcher.ledger.connection import Connection, PoolOptions, connect_once, lend, open_pool
from dispatcher.ledger.consent import address_keys, erasure, events, suppressions
from dispatcher.ledger.consent.events import ConsentStatement, Provenance
from dispatcher.ledger.delivery import messages
from dispatcher.ledger.delivery.candidates import facts_of
from dispatcher.ledger.keyed_hash import address_key
from dispatcher.maintenance import key_rotation
from dispatcher.runtime.services import Services
from tests.support.command import PROGRAM, SECRET, run_command
from tests.support.services import NOON, Clock, add_people, make_services, person, states, work

OLD = SECRET.encode()
NEW = b"the-new-secret-of-the-tests-that-is-long-enough"
THIRD = b"another-new-secret-of-the-tests-that-is-long-enough"
OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
ROOT = Path(__file__).parents[2]
SHARED = "+32470000001"


@pytest.fixture
def old(database: str) -> Iterator[Services]:
    """A process with the old key, which has left its fingerprint."""
    with make_services(database, Clock()) as services:
        with connect_once(database) as connection:
            secret_keys.check_keys(connection, services.secret)
        yield services


def introduce(database: str, *keys: bytes) -> int:
    with psycopg.connect(database, autocommit=True) as owner:
        return secret_keys.introduce(owner, KeyRing.of(*keys))


def with_keys(services: Services, *keys: bytes) -> Services:
    return replace(services, secret=KeyRing.of(*keys))


@pytest.fixture
def new(old: Services) -> Services:
    """A process with the new key first; the tests introduce it."""
    return with_keys(old, NEW, OLD)


def rotate(services: Services) -> None:
    key_rotation.rotate(services, lambda _: None)


def banned(services: Services, recipient_id: str) -> set[str]:
    with lend(services.pool) as connection:
        return set(facts_of(connection, [recipient_id])[recipient_id].suppressions)


def campaign(services: Services, *people: str, channel: str = "sms", campaign_id: str = "spring") -> dict[str, int]:
    rows = [{"recipient": each, "data": OFFER} for each in people]
    form = {"id": campaign_id, "template": "loan_offer", "channels": [channel], "audience": rows}
    submit(services, parse_campaign(form, validation_context(services)))
    work(services)
    return states(services, campaign_id)


def stop(services: Services, text_id: str = "SM-1") -> None:
    customer_replies.handle_reply(services, lambda _: None, InboundText(text_id, Channel.SMS, SHARED, "STOP"))


def ban(services: Services, channel: Channel, address: str) -> None:
    with lend(services.pool) as connection, connection.transaction():
        key = address_keys.in_use(connection, services.secret, [(channel, address)])[channel, address]
        suppressions.suppress(connection, channel, key, "bounced", "tests", services.clock())


def keys_of(services: Services, recipient_id: str) -> tuple[bytes, ...]:
    with lend(services.pool) as connection:
        row = connection.execute(
            "SELECT email_key, phone_key, whatsapp_key FROM recipients WHERE id = %s", (recipient_id,)
        ).fetchone()
    return tuple(row or ())


# -- what comes in without our id ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rekeyed", [True, False])
def test_a_report_that_names_only_an_address_finds_its_owner_under_either_key(
    old: Services, new: Services, database: str, rekeyed: bool
) -> None:
    add_people(old, person("anna", 1), person("bert", 2))
    provider_events.store_events(old, [_opted_out("e-1", "anna@example.org")])
    introduce(database, NEW, OLD)
    if rekeyed:
        rotate(new)
    provider_events.store_events(new, [_opted_out("e-2", "bert@example.org")])
    provider_events.apply_batch(new, lambda _: None)
    for name in ("anna", "bert"):
        assert banned(new, name) == {"email"}
        with lend(new.pool) as connection:
            assert events.preferences(connection, name).choices["channel:email"].value == "off"


def _opted_out(event_id: str, address: str) -> Event:
    return Event("sendgrid", event_id, Channel.EMAIL, EventKind.OPTED_OUT, NOON, address=address)


def test_an_unread_answer_holds_its_number_under_either_key(old: Services, new: Services, database: str) -> None:
    add_people(old, person("anna", 1))
    customer_replies.handle_reply(old, lambda _: None, InboundText("SM-1", Channel.SMS, SHARED, "Laat me met rust!"))
    introduce(database, NEW, OLD)
    add_people(new, person("bert", 1))
    assert campaign(new, "anna", "bert") == {"held": 2}
    rotate(new)
    assert campaign(new, "anna", "bert", campaign_id="summer") == {"held": 2}


# -- links and chains --------------------------------------------------------------------------------------------------


def test_a_link_of_an_old_mail_opens_and_new_ones_have_the_new_key(old: Services, new: Services, database: str) -> None:
    add_people(old, person("anna"))
    campaign(old, "anna", channel="email")
    with lend(old.pool) as connection:
        ref = str(messages.of_campaign(connection, "spring", "anna")[0].ref)
    link = message_token(old.secret, UNSUBSCRIBE, ref)
    introduce(database, NEW, OLD)
    owner = owner_of_token(new, UNSUBSCRIBE, link)
    assert owner is not None
    assert owner.recipient_id == "anna"
    assert message_token(new.secret, UNSUBSCRIBE, ref) != link
    with pytest.raises(BadToken):
        read_message_token(KeyRing.of(NEW), UNSUBSCRIBE, link)
    assert link in marks(new.secret, MessageId.parse(ref))  # so a look-up at the provider finds the old mail


def test_chains_are_verified_across_a_rotation(old: Services, new: Services, database: str) -> None:
    add_people(old, person("anna"))
    introduce(database, NEW, OLD)
    with lend(new.pool) as connection:
        off = ConsentStatement("anna", (Change("channel:email", "off"),))
        events.record(connection, new.secret, off, Provenance("mobile", "anna"), new.clock())
    rotate(new)
    with lend(new.pool) as connection:
        assert events.verify(connection, new.secret) == []
        assert {each.fault for each in events.verify(connection, KeyRing.of(NEW))} == {"changed"}
        assert "the end of the chain was moved" in {each.fault for each in events.verify(connection, KeyRing.of(OLD))}


# -- opt-outs and bans -------------------------------------------------------------------------------------------------


def test_a_stop_from_a_number_under_the_old_key_is_heard_for_all_its_owners(old: Services, new: Services, database: str) -> None:
    add_people(old, person("anna", 1), person("ben", 1))
    introduce(database, NEW, OLD)
    stop(new)
    for each in ("anna", "ben"):
        assert banned(new, each) == {"sms"}
        assert keys_of(new, each)[1:] == (address_key(new.secret, "sms", SHARED),) * 2
    assert campaign(new, "anna", "ben") == {"refused": 2}


def test_a_stop_under_the_old_key_is_found_under_the_new_one(old: Services, new: Services, database: str) -> None:
    add_people(old, person("anna", 1))
    stop(old)
    introduce(database, NEW, OLD)
    assert banned(new, "anna") == {"sms"}
    add_people(new, person("ben", 1))  # who gets the number later
    assert (banned(new, "anna"), banned(new, "ben")) == ({"sms"}, {"sms"})
    customer_replies.handle_reply(new, lambda _: None, InboundText("SM-2", Channel.SMS, SHARED, "START"))
    assert (banned(new, "anna"), banned(new, "ben")) == (set(), set())


def test_owners_in_different_batches_stay_banned_at_each_moment(old: Services, new: Services, database: str) -> None:
    add_people(old, person("anna", 1), person("ben", 1), person("carl", 2, email="anna@example.org"))
    stop(old)
    ban(old, Channel.EMAIL, "anna@example.org")
    introduce(database, NEW, OLD)
    bans = [banned(new, each) for each in ("anna", "ben", "carl")]
    assert bans == [{"sms", "email"}, {"sms"}, {"email"}]
    with lend(new.pool) as connection:
        while address_keys.rekey_some(connection, new.secret, 1, new.clock()):
            assert [banned(new, each) for each in ("anna", "ben", "carl")] == bans
    assert [banned(new, each) for each in ("anna", "ben", "carl")] == bans


def test_a_suppression_survives_erasure_and_meets_the_address_again(old: Services, new: Services, database: str) -> None:
    add_people(old, person("anna", 1))
    ban(old, Channel.EMAIL, "anna@example.org")
    with lend(old.pool) as connection:
        erasure.erase(connection, old.secret, "anna", "desk", old.clock())
        connection.execute("UPDATE suppressions SET created_at = created_at - interval '1 year'")
    introduce(database, NEW, OLD)
    rotate(new)
    assert key_rotation.status(new).unknown_suppressions == 1
    add_people(new, person("anna-2", 2, email="anna@example.org"))
    assert banned(new, "anna-2") == {"email"}
    assert campaign(new, "anna-2", channel="email") == {"refused": 1}
    assert key_rotation.status(new).unknown_suppressions == 0


def test_a_bounce_of_a_message_under_the_old_key_bans_the_address_of_its_new_owner(
    old: Services, new: Services, database: str
) -> None:
    """The mail went to an address that its recipient gave up meanwhile, so no re-keying by recipient reaches the message."""
    add_people(old, person("anna", 1))
    campaign(old, "anna", channel="email")
    with lend(old.pool) as connection:
        ref = str(messages.of_campaign(connection, "spring", "anna")[0].ref)
    add_people(old, person("anna", 1, email="new@example.org"), person("ben", 2, email="anna@example.org"))
    introduce(database, NEW, OLD)
    rotate(new)
    provider_events.store_events(new, [Event("sendgrid", "e-1", Channel.EMAIL, EventKind.BOUNCED, new.clock(), ref)])
    provider_events.apply_batch(new, lambda _: None)
    assert (banned(new, "anna"), banned(new, "ben")) == (set(), {"email"})


def test_a_delivery_of_a_message_under_the_old_key_ends_the_soft_bounces(old: Services, new: Services, database: str) -> None:
    add_people(old, person("anna", 1))
    campaign(old, "anna", channel="email")
    with lend(old.pool) as connection:
        ref = str(messages.of_campaign(connection, "spring", "anna")[0].ref)
        key = address_key(old.secret, "email", "anna@example.org")
        connection.execute("INSERT INTO misses VALUES (%s, 'email', '4.2.2', 'm', %s)", (key, old.clock()))
    introduce(database, NEW, OLD)
    add_people(new, person("anna", 1))  # moves the address; its messages come later
    provider_events.store_events(new, [Event("sendgrid", "e-1", Channel.EMAIL, EventKind.DELIVERED, new.clock(), ref)])
    provider_events.apply_batch(new, lambda _: None)
    with lend(new.pool) as connection:
        assert connection.execute("SELECT count(*) FROM misses").fetchone() == (0,)


def test_an_event_that_was_read_before_the_address_moved_finds_the_new_key(old: Services, new: Services, database: str) -> None:
    add_people(old, person("anna", 1))
    introduce(database, NEW, OLD)
    stale = address_key(old.secret, "email", "anna@example.org")
    rotate(new)
    with lend(new.pool) as connection, connection.transaction():
        assert address_keys.newest_key_of(connection, new.secret, stale) == address_key(new.secret, "email", "anna@example.org")


def test_an_opt_out_known_at_the_provider_is_heard_for_all_owners(old: Services, new: Services, database: str) -> None:
    add_people(old, person("anna", 1), person("ben", 1))
    introduce(database, NEW, OLD)
    new.providers[Channel.SMS].answers[""] = OptedOut("21610")  # type: ignore[attr-defined]
    campaign(new, "anna")
    assert (banned(new, "anna"), banned(new, "ben")) == ({"sms"}, {"sms"})
    with lend(new.pool) as connection:
        assert events.history(connection, "ben")[-1].new_value == "off"


def test_whatever_its_order_a_ring_writes_with_the_newest_key_of_the_ledger(old: Services, new: Services, database: str) -> None:
    """Some processes still have the new key in the second place: all must hash an address alike."""
    behind = with_keys(old, OLD, NEW)
    add_people(behind, person("anna", 1))
    assert keys_of(old, "anna")[1] == address_key(old.secret, "sms", SHARED)
    introduce(database, NEW, OLD)
    add_people(behind, person("ben", 1))
    expected = address_key(new.secret, "sms", SHARED)
    assert (keys_of(old, "anna")[1], keys_of(old, "ben")[1]) == (expected, expected)
    stop(behind)
    assert (banned(new, "anna"), banned(new, "ben")) == ({"sms"}, {"sms"})


def test_a_second_rotation_leads_from_every_key(old: Services, new: Services, database: str) -> None:
    add_people(old, person("anna", 1))
    ban(old, Channel.EMAIL, "nobody@example.org")
    introduce(database, NEW, OLD)
    ban(new, Channel.SMS, SHARED)  # only this address is under the second key when the third comes
    with lend(new.pool) as connection:  # a ban under two keys, as after a race
        twice = address_key(new.secret, "email", "nobody@example.org")
        suppressions.suppress(connection, Channel.EMAIL, twice, "bounced", "tests", new.clock())
    introduce(database, THIRD, NEW, OLD)
    third = with_keys(old, THIRD, NEW, OLD)
    assert banned(third, "anna") == {"sms"}
    rotate(third)
    add_people(third, person("ben", 2, email="nobody@example.org"))
    assert (banned(third, "anna"), banned(third, "ben")) == ({"sms"}, {"email"})
    first = address_key(old.secret, "sms", SHARED)
    with lend(third.pool) as connection, connection.transaction():
        assert address_keys.newest_key_of(connection, third.secret, first) == address_key(third.secret, "sms", SHARED)


def test_a_ring_of_one_key_costs_no_statement() -> None:
    ring, nowhere = KeyRing.of(OLD), cast("Connection", None)
    assert address_keys.in_use(nowhere, ring, [("sms", SHARED)]) == {("sms", SHARED): address_key(ring, "sms", SHARED)}
    assert address_keys.newest_key_of(nowhere, ring, b"key") == b"key"


# -- who may work ------------------------------------------------------------------------------------------------------


def refusal(database: str, *keys: bytes) -> str:
    with connect_once(database) as connection, pytest.raises(KeyMismatch) as raised:
        secret_keys.check_keys(connection, KeyRing.of(*keys))
    return str(raised.value)


@pytest.mark.usefixtures("old")
def test_a_process_needs_every_key_and_no_unknown_one_first(database: str) -> None:
    assert "lacks the key" in refusal(database, NEW)
    assert "dispatcher keys rotate" in refusal(database, NEW, OLD)
    with connect_once(database) as connection:
        secret_keys.check_keys(connection, KeyRing.of(OLD, NEW))  # a key that comes later may be there already
    introduce(database, NEW, OLD)
    with connect_once(database) as connection:
        secret_keys.check_keys(connection, KeyRing.of(NEW, OLD))
        secret_keys.check_keys(connection, KeyRing.of(OLD, NEW))
    message = refusal(database, OLD)
    assert fingerprint(NEW)[:4].hex() in message
    assert NEW.decode() not in message


@pytest.mark.usefixtures("old")
def test_a_key_can_only_be_introduced_beside_the_others(database: str) -> None:
    with pytest.raises(KeyMismatch, match="lacks the key"):
        introduce(database, NEW)


@pytest.mark.usefixtures("old")
def test_a_rotation_with_the_new_key_second_says_so(database: str) -> None:
    """The setting of the step before: without an error, somebody would believe that the keys are rotated."""
    with pytest.raises(KeyMismatch, match=f"to rotate to {fingerprint(NEW)[:4].hex()}, write it first"):
        introduce(database, OLD, NEW)
    introduce(database, NEW, OLD)
    introduce(database, NEW, OLD)  # again: it goes on where it was cut off
    introduce(database, NEW, OLD, b"the next one" * 4)  # handed out already, while this rotation is under way


def test_the_first_start_on_a_ledger_with_people_needs_the_key_that_sealed_them(database: str) -> None:
    with make_services(database) as services:
        add_people(services, person("anna"))
    assert "written with another key" in refusal(database, NEW)
    assert "dispatcher keys rotate" in refusal(database, NEW, OLD)
    with connect_once(database) as connection:
        secret_keys.check_keys(connection, KeyRing.of(OLD))
        assert [key.fingerprint for key in secret_keys.known_keys(connection)] == [fingerprint(OLD)]


@pytest.mark.usefixtures("old")
def test_a_running_process_without_the_new_key_is_cut_off(database: str) -> None:
    ring = KeyRing.of(OLD)
    name, check_new = secret_keys.connection_name(ring), partial(secret_keys.check_keys, secret=ring)
    both = secret_keys.connection_name(KeyRing.of(OLD, NEW))
    with (
        open_pool(database, PoolOptions(1, 2.0, name), check_new) as pool,
        open_pool(database, PoolOptions(1, 2.0, both)) as ready,
        lend(ready) as kept,
    ):
        with lend(pool) as connection:
            connection.execute("SELECT 1")
        assert introduce(database, NEW, OLD) == 1
        kept.execute("SELECT 1")
        with pytest.raises(LedgerUnavailable), lend(pool) as connection:
            connection.execute("SELECT 1")  # the connection that was cut off
        with pytest.raises(KeyMismatch, match="lacks the key"), lend(pool) as connection:
            connection.execute("SELECT 1")


# -- the commands, in processes of their own ---------------------------------------------------------------------------


def environment(database: str, folder: Path, *keys: bytes) -> dict[str, str]:
    (folder / "home").mkdir(exist_ok=True)  # beat keeps its schedule there
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER_")},
        "COLUMNS": "400",
        "DISPATCHER_HOME": str(folder / "home"),
        "DISPATCHER_DATABASE_URL": database,
        "DISPATCHER_BROKER_URL": "redis://127.0.0.1:1/0",
        "DISPATCHER_SECRET_KEY": b",".join(keys).decode(),
    }


STARTS = {
    "command": (*PROGRAM, "recipients", "show", "anna"),
    "worker": (sys.executable, "-m", "celery", "-A", "dispatcher", "worker", "--concurrency", "1"),
    "beat": (sys.executable, "-m", "celery", "-A", "dispatcher", "beat", "--pidfile", ""),
    "web": (sys.executable, "-m", "uvicorn", "--factory", "dispatcher.web:app", "--port", "0"),
}


@pytest.mark.parametrize("what", STARTS)
def test_a_process_with_another_key_does_not_start(old: Services, database: str, tmp_path: Path, what: str) -> None:
    add_people(old, person("anna"))
    environ = environment(database, tmp_path, NEW)
    ended = subprocess.run(STARTS[what], env=environ, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT)
    assert ended.returncode != 0
    assert "DISPATCHER_SECRET_KEY lacks the key" in ended.stderr
    assert "Traceback" not in ended.stderr


def run(database: str, folder: Path, *arguments: str) -> str:
    done = run_command(database, folder, *arguments, DISPATCHER_SECRET_KEY=b",".join((NEW, OLD)).decode())
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_rotation_that_was_killed_goes_on(old: Services, new: Services, database: str, tmp_path: Path) -> None:
    people = [person(f"c-{number:04}", phone=f"+32471{number:06}", whatsapp=f"+32471{number:06}") for number in range(1_200)]
    add_people(old, *people)
    campaign(old, "c-0003", "c-1190", channel="email")
    with psycopg.connect(database) as blocker:
        blocker.execute("SELECT FROM recipients WHERE id = 'c-0999' FOR UPDATE")  # in the second batch of 500
        process = subprocess.Popen((*PROGRAM, "keys", "rotate"), env=environment(database, tmp_path, NEW, OLD))
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and key_rotation.status(new).keys[0].rekeyed < 500:
                time.sleep(0.05)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    half = key_rotation.status(new)
    assert (half.keys[0].rekeyed, half.is_finished) == (500, False)
    assert keys_of(new, "c-0003")[0] == address_key(new.secret, "email", "c-0003@example.org")
    assert keys_of(new, "c-1190")[0] == address_key(old.secret, "email", "c-1190@example.org")
    assert '"finished": true' in run(database, tmp_path, "keys", "rotate", "--json")
    for each in people:
        assert keys_of(new, each["id"])[:2] == (
            address_key(new.secret, "email", each["email"]),
            address_key(new.secret, "sms", each["phone"]),
        )
    with lend(new.pool) as connection:
        written = {bytes(key) for (key,) in connection.execute("SELECT address_key FROM messages")}
    assert written == {address_key(new.secret, "email", f"c-{number}@example.org") for number in ("0003", "1190")}
    assert "all recipients are under the newest key" in run(database, tmp_path, "keys", "status")


def test_soft_bounces_windows_and_answers_move_with_the_address(old: Services, new: Services, database: str) -> None:
    add_people(old, person("anna", 1))
    before = address_key(old.secret, "sms", SHARED)
    with lend(old.pool) as connection:
        connection.execute("INSERT INTO misses VALUES (%s, 'sms', '30003', 'm', now())", (before,))
    for number, channel in enumerate((Channel.WHATSAPP, Channel.SMS)):
        customer_replies.handle_reply(old, lambda _: None, InboundText(f"SM-{number}", channel, SHARED, "what?"))
    introduce(database, NEW, OLD)
    rotate(new)
    expected = address_key(new.secret, "sms", SHARED)
    with lend(new.pool) as connection:
        for table in ("misses", "conversations", "inbound_texts"):
            statement = f"SELECT DISTINCT address_key FROM {table}"  # noqa: S608  names of this test
            rows: list[Any] = connection.execute(statement.encode()).fetchall()
            assert rows == [(expected,)], table

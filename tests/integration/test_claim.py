"""The gate is one statement: what it must not miss while it waits for its locks, and what its parts promise."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from channels.base import Misconfigured
from dispatcher.campaigns import scheduler, submission
from dispatcher.delivery.pipeline import caps_since, prepare_all
from dispatcher.intake.campaign import parse_campaign
from dispatcher.ledger import partitions
from dispatcher.ledger.connection import lend
from dispatcher.ledger.delivery import claims
from dispatcher.ledger.delivery.claims import Chunk, Claim, Entry, Gate
from dispatcher.ledger.pg_arrays import numbers, words
from dispatcher.runtime.services import House
from tests.support.services import Clock, add_people, make_house, outbox, person, states, work

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}


@pytest.fixture
def house(database: str) -> Iterator[House]:
    with make_house(database, Clock()) as made:
        yield made


def entries(house: House, *recipients: str) -> tuple[Chunk, list[Entry]]:
    """A campaign for these people up to the gate."""
    rows = [{"recipient": recipient_id, "data": OFFER} for recipient_id in recipients]
    form = {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": rows}
    submission.submit(house, parse_campaign(form, submission.desk(house)))
    (due,) = scheduler.due_chunks(house)
    with lend(house.pool) as connection:
        chunk = claims.find(connection, due.period, due.number)
        assert chunk is not None
        candidates = claims.gather(connection, chunk, since=caps_since(house, chunk))
    return chunk, [item.entry for item in prepare_all(house, chunk, candidates, {})]


def test_a_message_that_another_claim_reserves_while_we_wait_for_its_lock_is_seen(house: House) -> None:
    add_people(house, person("c-1", 1), person("c-2", 2))
    chunk, asked = entries(house, "c-1", "c-2")
    found: list[Claim] = []

    def claim() -> None:
        with lend(house.pool) as connection:
            found.append(claims.claim(connection, chunk, asked, house.clock(), caps_since(house, chunk)))

    with lend(house.pool) as other, other.transaction():  # a claim of another campaign, not yet committed
        other.execute("SELECT FROM recipients WHERE id = 'c-1' FOR NO KEY UPDATE")
        waiting = threading.Thread(target=claim)
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()  # its statement has begun, with what could be seen then
        other.execute(
            "INSERT INTO cap_reservations (recipient_id, at, channel, offer_type, chunk, row, leg)"
            " VALUES ('c-1', %s, 'email', 'own', 999999, 0, 0)",
            (house.clock(),),
        )
    waiting.join()
    assert found[0].changed == {0}
    assert {ref.row for ref in found[0].won} == {1}


def test_a_claim_that_somebody_else_won_is_not_ours(house: House) -> None:
    add_people(house, person("c-1", 1), person("c-2", 2))
    chunk, asked = entries(house, "c-1", "c-2")
    since = caps_since(house, chunk)
    with lend(house.pool) as connection:
        first = claims.claim(connection, chunk, asked[:1], house.clock(), since)
        both = claims.claim(connection, chunk, asked, house.clock(), None)
        reserved = connection.execute("SELECT count(*) FROM cap_reservations").fetchone()
    assert {ref.row for ref in first.won} == {0}
    assert {ref.row for ref in both.won} == {1}
    assert both.gate is Gate.OPEN
    assert reserved == (1,)


def test_a_shut_gate_touches_nothing(house: House) -> None:
    add_people(house, person("c-1"))
    chunk, asked = entries(house, "c-1")
    with lend(house.pool) as connection:
        connection.execute("UPDATE campaigns SET state = 'paused'")
        before = connection.execute("SELECT touched_at FROM chunks").fetchall()
        house.clock.pass_(60)  # type: ignore[attr-defined]
        claim = claims.claim(connection, chunk, asked, house.clock(), caps_since(house, chunk))
        assert (claim.gate, claim.won, claim.changed) == (Gate.SHUT, frozenset(), frozenset())
        assert connection.execute("SELECT touched_at FROM chunks").fetchall() == before
        assert connection.execute("SELECT count(*) FROM messages").fetchone() == (0,)


def test_pages_of_messages_keep_room_for_their_updates(house: House) -> None:
    add_people(house, person("c-1"))
    entries(house, "c-1")
    with lend(house.pool) as connection:
        place = f"messages_{partitions.period_of(house.clock())}"
        row = connection.execute("SELECT reloptions FROM pg_class WHERE relname = %s", (place,)).fetchone()
    assert row == (["fillfactor=50"],)


@pytest.mark.parametrize("value", ["plain", "", "NULL", "null", 'a"b', "a\\b", "a,b", "{x}", " ", "é’\n", None])
def test_array_literals_say_what_they_hold(house: House, value: str | None) -> None:
    with lend(house.pool) as connection:
        row = connection.execute("SELECT %s::text[], %s::bigint[]", (words([value, "x"]), numbers([1, -(2**62)]))).fetchone()
    assert row == ([value, "x"], [1, -(2**62)])


def test_a_channel_that_a_batch_stops_is_left_alone_by_the_next_batch_of_the_chunk(house: House) -> None:
    small = replace(house, limits=replace(house.limits, batch_messages_max=1))
    add_people(small, person("c-1", 1), person("c-2", 2))
    outbox(small).answers["c-1@example.org"] = Misconfigured("401")
    entries(small, "c-1", "c-2")
    with lend(small.pool) as connection:
        connection.execute("UPDATE chunks SET touched_at = NULL")  # as if nobody had been given it
    work(small)
    assert states(small) == {"waiting": 2}
    assert not outbox(small).sent

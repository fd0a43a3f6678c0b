"""The gate is one statement: what it must not miss while it waits for its locks, and what its parts promise."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from channels.base import Misconfigured
from dispatcher.campaigns import submission
from dispatcher.delivery.pipeline import send_limits
from dispatcher.intake.campaign import parse_campaign
from dispatcher.ledger import partitions
from dispatcher.ledger.connection import lend
from dispatcher.ledger.delivery import claims
from dispatcher.ledger.delivery.chunks import Chunk
from dispatcher.ledger.delivery.claims import CampaignGate, Claim, ClaimEntry
from dispatcher.ledger.pg_arrays import int_array, text_array
from dispatcher.runtime.services import Services
from tests.support.services import Clock, add_people, make_services, outbox, person, states, up_to_the_claim, work

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}


@pytest.fixture
def services(database: str) -> Iterator[Services]:
    with make_services(database, Clock()) as made:
        yield made


def entries(services: Services, *recipients: str) -> tuple[Chunk, list[ClaimEntry]]:
    """A campaign for these people up to the gate."""
    rows = [{"recipient": recipient_id, "data": OFFER} for recipient_id in recipients]
    form = {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": rows}
    submission.submit(services, parse_campaign(form, submission.validation_context(services)))
    return up_to_the_claim(services)


def test_a_message_that_another_claim_reserves_while_we_wait_for_its_lock_is_seen(services: Services) -> None:
    add_people(services, person("c-1", 1), person("c-2", 2))
    chunk, asked = entries(services, "c-1", "c-2")
    found: list[Claim] = []

    def claim() -> None:
        with lend(services.pool) as connection:
            found.append(claims.claim(connection, chunk, asked, services.clock(), send_limits(services, chunk)))

    with lend(services.pool) as other, other.transaction():  # a claim of another campaign, not yet committed
        other.execute("SELECT FROM recipients WHERE id = 'c-1' FOR NO KEY UPDATE")
        waiting = threading.Thread(target=claim)
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()  # its statement has begun, with what could be seen then
        other.execute(
            "INSERT INTO cap_reservations (recipient_id, at, channel, offer_type, chunk, row, leg)"
            " VALUES ('c-1', %s, 'email', 'own', 999999, 0, 0)",
            (services.clock(),),
        )
    waiting.join()
    assert found[0].changed == {0}
    assert {ref.row for ref in found[0].claimed} == {1}


def test_a_claim_that_somebody_else_won_is_not_ours(services: Services) -> None:
    add_people(services, person("c-1", 1), person("c-2", 2))
    chunk, asked = entries(services, "c-1", "c-2")
    limits = send_limits(services, chunk)
    with lend(services.pool) as connection:
        first = claims.claim(connection, chunk, asked[:1], services.clock(), limits)
        both = claims.claim(connection, chunk, asked, services.clock())
        reserved = connection.execute("SELECT count(*) FROM cap_reservations").fetchone()
    assert {ref.row for ref in first.claimed} == {0}
    assert {ref.row for ref in both.claimed} == {1}
    assert both.gate is CampaignGate.OPEN
    assert reserved == (1,)


def test_a_shut_gate_touches_nothing(services: Services) -> None:
    add_people(services, person("c-1"))
    chunk, asked = entries(services, "c-1")
    with lend(services.pool) as connection:
        connection.execute("UPDATE campaigns SET state = 'paused'")
        before = connection.execute("SELECT touched_at FROM chunks").fetchall()
        services.clock.pass_(60)  # type: ignore[attr-defined]
        claim = claims.claim(connection, chunk, asked, services.clock(), send_limits(services, chunk))
        assert (claim.gate, claim.claimed, claim.changed) == (CampaignGate.CLOSED, frozenset(), frozenset())
        assert connection.execute("SELECT touched_at FROM chunks").fetchall() == before
        assert connection.execute("SELECT count(*) FROM messages").fetchone() == (0,)


def test_pages_of_messages_keep_room_for_their_updates(services: Services) -> None:
    add_people(services, person("c-1"))
    entries(services, "c-1")
    with lend(services.pool) as connection:
        place = f"messages_{partitions.period_of(services.clock())}"
        row = connection.execute("SELECT reloptions FROM pg_class WHERE relname = %s", (place,)).fetchone()
    assert row == (["fillfactor=50"],)


@pytest.mark.parametrize("value", ["plain", "", "NULL", "null", 'a"b', "a\\b", "a,b", "{x}", " ", "é’\n", None])
def test_array_literals_say_what_they_hold(services: Services, value: str | None) -> None:
    with lend(services.pool) as connection:
        row = connection.execute("SELECT %s::text[], %s::bigint[]", (text_array([value, "x"]), int_array([1, -(2**62)]))).fetchone()
    assert row == ([value, "x"], [1, -(2**62)])


def test_a_channel_that_a_batch_stops_is_left_alone_by_the_next_batch_of_the_chunk(services: Services) -> None:
    small = replace(services, limits=replace(services.limits, batch_messages_max=1))
    add_people(small, person("c-1", 1), person("c-2", 2))
    outbox(small).answers["c-1@example.org"] = Misconfigured("401")
    entries(small, "c-1", "c-2")
    with lend(small.pool) as connection:
        connection.execute("UPDATE chunks SET touched_at = NULL")  # as if it had never been published
    work(small)
    assert states(small) == {"waiting": 2}
    assert not outbox(small).sent

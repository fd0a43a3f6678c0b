"""Unresolved messages are settled in bulk by what a person knows about a campaign, a channel, a provider or a time."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from channels.base import Channel, Event, EventKind, Uncertain
from dispatcher.campaigns import submission
from dispatcher.delivery import messages, reconciliation
from dispatcher.delivery.messages import UNKNOWN_PROVIDER, UnresolvedFilter
from dispatcher.domain.message import State
from dispatcher.inbound import provider_events
from dispatcher.intake.campaign import parse_campaign
from dispatcher.ledger.connection import lend
from dispatcher.ledger.delivery import unresolved
from dispatcher.ledger.inbound.provider_events import StatusChange, apply
from dispatcher.ledger.maintenance import audit
from dispatcher.runtime.services import Services
from tests.support.services import NOON, Clock, add_people, make_services, outbox, person, work

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
PEOPLE = [f"c-{number}" for number in range(6)]
HOUR = 3_600.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def services(database: str, clock: Clock) -> Iterator[Services]:
    with make_services(database, clock) as made:
        add_people(made, *(person(each, number) for number, each in enumerate(PEOPLE)))
        yield replace(made, policy=replace(made.policy, quiet_hours={}))


def lose(services: Services, campaign_id: str, channel: Channel, *people: str, after: tuple[str, ...] = ()) -> None:
    """Send a campaign of which the provider's answers are lost."""
    box = outbox(services, channel)
    for each in people:
        address = {"push": f"device-{each}", "email": f"{each}@example.org"}[channel]
        box.answers[address] = Uncertain("read")
    form = {
        "id": campaign_id,
        "template": "loan_offer",
        "channels": [channel.value, *after],
        "audience": [{"recipient": each, "data": OFFER} for each in people],
        **({"fallback_after_seconds": 60} if after else {}),
    }
    submission.submit(services, parse_campaign(form, submission.validation_context(services)))
    work(services)
    box.answers.clear()


def legs(services: Services, campaign_id: str) -> Counter[tuple[str, str]]:
    """The messages of a campaign, counted by channel and state."""
    found = [message for each in PEOPLE for message in messages.of_campaign(services, campaign_id, each)]
    return Counter((str(message.channel), message.state.value) for message in found)


def settle(services: Services, arrived: bool, **parts: object) -> int:
    wanted = UnresolvedFilter(**parts)  # type: ignore[arg-type]
    expected = sum(group.count for group in messages.count_unresolved(services, wanted))
    settled = reconciliation.resolve_all_by_hand(services, wanted, arrived, "desk 7")
    assert settled == expected
    return settled


@pytest.mark.parametrize("arrived", [False, True])
def test_all_of_a_campaign_are_settled_as_one_by_one(services: Services, clock: Clock, arrived: bool) -> None:
    """With who said it as evidence, and with the next channel where nothing was sent."""
    lose(services, "spring", Channel.PUSH, *PEOPLE, after=("sms",))
    assert legs(services, "spring") == {("push", "unresolved"): 6}
    assert settle(services, arrived, campaign_id="spring") == 6
    assert settle(services, arrived, campaign_id="spring") == 0
    clock.pass_(1)
    work(services)
    first = "accepted" if arrived else "failed"
    assert legs(services, "spring") == {("push", first): 6, **({} if arrived else {("sms", "accepted"): 6})}
    clock.pass_(60)
    work(services)
    assert legs(services, "spring") == {("push", first): 6, ("sms", "accepted"): 6}
    message = messages.of_campaign(services, "spring", "c-0")[0]
    assert (message.reason, message.reports[0].provider, message.reports[0].code) == (
        None if arrived else "by_hand",
        "person",
        "by_hand",
    )
    assert message.reports[0].extra == {"by": "desk 7"}
    with lend(services.pool) as connection:
        assert unresolved.list_unresolved(connection, unresolved.EVERYTHING, 10) == []
        assert audit.verify(connection, services.secret, clock(), 60) == []


def test_campaign_channel_provider_and_time_select(services: Services, clock: Clock) -> None:
    lose(services, "spring", Channel.PUSH, *PEOPLE[:2])
    clock.pass_(HOUR)
    lose(services, "autumn", Channel.EMAIL, *PEOPLE[:3])
    with lend(services.pool) as connection:  # of a worker that was lost before the answer, no provider is on record
        connection.execute("UPDATE messages SET provider = NULL, claimed_at = %s WHERE channel = 'push'", (NOON,))
        connection.execute("UPDATE messages SET claimed_at = %s WHERE channel = 'email'", (clock(),))
    [mail, push] = messages.count_unresolved(services, UnresolvedFilter())
    assert (mail.campaign_id, mail.channel, mail.count, mail.first_at) == ("autumn", "email", 3, clock())
    assert (push.campaign_id, push.provider, push.count, push.first_at) == ("spring", None, 2, NOON)
    assert mail.provider is not None

    assert settle(services, False, campaign_id="nothing") == 0
    assert settle(services, False, campaign_id="spring", channel=Channel.EMAIL) == 0
    assert settle(services, False, until=NOON) == 0
    assert settle(services, False, since=clock() + timedelta(seconds=1)) == 0
    assert settle(services, False, provider=mail.provider, until=clock()) == 0
    assert settle(services, False, channel=Channel.EMAIL, provider=UNKNOWN_PROVIDER) == 0
    assert settle(services, False, provider=UNKNOWN_PROVIDER, since=NOON, until=NOON + timedelta(seconds=1)) == 2
    assert settle(services, True, provider=mail.provider, since=clock()) == 3
    assert legs(services, "spring") == {("push", "failed"): 2}
    assert legs(services, "autumn") == {("email", "accepted"): 3}


def test_more_than_one_batch(services: Services) -> None:
    people = [f"m-{number}" for number in range(2 * reconciliation.BULK + 10)]
    add_people(services, *(person(each, phone=None, whatsapp=None) for each in people))
    lose(services, "large", Channel.EMAIL, *people)
    assert settle(services, True, campaign_id="large") == len(people)


def test_a_message_that_an_event_settles_meanwhile_keeps_its_state(services: Services, clock: Clock) -> None:
    """Before the statement, and while it runs: a message that is locked by an event is left to it."""
    lose(services, "spring", Channel.EMAIL, *PEOPLE)
    by_id = {each: messages.of_campaign(services, "spring", each)[0] for each in PEOPLE}
    news = Event("outbox", "e-1", Channel.EMAIL, EventKind.DELIVERED, clock(), str(by_id["c-0"].ref))
    provider_events.store_events(services, [news])
    wanted = UnresolvedFilter(campaign_id="spring")
    assert messages.count_unresolved(services, wanted)[0].count == 6  # what a person sees first
    provider_events.apply_batch(services, lambda _: None)

    ref = by_id["c-1"].ref
    settled: list[int] = []
    with lend(services.pool) as connection, connection.transaction():
        connection.execute(
            "SELECT FROM messages WHERE (period, chunk, row, leg) = (%s, %s, %s, %s) FOR UPDATE",
            (ref.period, ref.chunk, ref.row, ref.leg),
        )
        thread = threading.Thread(
            target=lambda: settled.append(reconciliation.resolve_all_by_hand(services, wanted, False, "desk 7"))
        )
        thread.start()
        thread.join(10)
        assert settled == [4]  # it waits for nobody
        apply(connection, [StatusChange(ref, State.DELIVERED, None)], clock())
    assert legs(services, "spring") == {("email", "delivered"): 2, ("email", "failed"): 4}
    assert messages.of_campaign(services, "spring", "c-0")[0].state is State.DELIVERED
    assert reconciliation.resolve_all_by_hand(services, wanted, False, "desk 7") == 0

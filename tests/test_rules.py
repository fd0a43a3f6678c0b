"""Rules that need a ledger to hold: what a person may get from several messages, campaigns and workers at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from channels.base import Channel, ChannelError, Rejected, Unavailable, Uncertain
from channels.outbox import Outbox
from dispatcher import campaigns
from dispatcher.campaigns import Admission
from dispatcher.house import House
from dispatcher.ledger import campaigns as ledger
from dispatcher.ledger import messages
from dispatcher.ledger.campaigns import Balance
from dispatcher.ledger.messages import Message
from dispatcher.ledger.pool import lend
from dispatcher.model import OfferType
from dispatcher.pipeline import run_chunk
from dispatcher.policy.data import Cap
from dispatcher.submission import parse_campaign, parse_trigger
from tests.houses import Clock, add_people, make_house, person

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
EVERY = frozenset(Channel)
OFFERS = frozenset(OfferType)
ONE_A_DAY = Cap("one", 1, EVERY, OFFERS, 86_400.0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def house(database: str, clock: Clock) -> Iterator[House]:
    with make_house(database, clock) as made:
        yield made


def capped(house: House, *caps: Cap) -> House:
    return replace(house, policy=replace(house.policy, caps=caps))


def form(recipients: Sequence[str], campaign_id: str = "spring", **changes: Any) -> dict[str, Any]:
    rows = [{"recipient": recipient_id, "data": OFFER} for recipient_id in recipients]
    return {"id": campaign_id, "template": "loan_offer", "channels": ["email"], "audience": rows, **changes}


def submit(house: House, recipients: Sequence[str], campaign_id: str = "spring", **changes: Any) -> Admission:
    return campaigns.submit(house, parse_campaign(form(recipients, campaign_id, **changes), campaigns.desk(house)))


def trigger(house: House, recipient_id: str, key: str, template: str = "loan_offer") -> tuple[int, int]:
    data = OFFER if template == "loan_offer" else {}
    job = {"key": key, "recipient": recipient_id, "template": template, "data": data}
    place = campaigns.take_trigger(house, parse_trigger(job, campaigns.desk(house)))
    return place.period, place.chunk


def work(house: House) -> None:
    """What beat and workers do until nothing is due."""
    campaigns.sweep(house)
    while dues := campaigns.due_chunks(house):
        for due in dues:
            chunk = run_chunk(house, due.period, due.number)
            assert chunk is not None
            dues += campaigns.next_chunk(house, chunk)


def outbox(house: House, channel: Channel = Channel.EMAIL) -> Outbox:
    provider = house.providers[channel]
    assert isinstance(provider, Outbox)
    return provider


def balance(house: House, campaign_id: str = "spring") -> Balance:
    with lend(house.pool) as connection:
        campaign = ledger.find(connection, campaign_id)
        assert campaign is not None
        counted = ledger.balance(connection, campaign)
    assert sum(counted.states.values()) == campaign.audience
    return counted


def states(house: House, campaign_id: str = "spring") -> dict[str, int]:
    return {state.value: count for state, count in balance(house, campaign_id).states.items() if count}


def legs(house: House, recipient_id: str, campaign_id: str = "spring") -> list[Message]:
    with lend(house.pool) as connection:
        return messages.of_campaign(connection, campaign_id, recipient_id)


# -- frequency caps ----------------------------------------------------------------------------------------------------


def test_twenty_workers_one_person_and_a_cap_of_one_make_one_message(house: House, database: str, clock: Clock) -> None:
    add_people(house, person("c-1"))
    house = capped(house, ONE_A_DAY)
    places = [trigger(house, "c-1", f"k-{number}") for number in range(20)]
    together = threading.Barrier(20)

    def run(each: House, place: tuple[int, int]) -> None:
        together.wait()
        run_chunk(each, *place)

    with make_house(database, clock) as one, make_house(database, clock) as other:
        houses = [capped(each, ONE_A_DAY) for each in (house, one, other)]
        threads = [threading.Thread(target=run, args=(houses[n % 3], place)) for n, place in enumerate(places)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(len(outbox(each, channel).sent) for each in houses for channel in Channel) == 1
    with lend(house.pool) as connection:
        found = connection.execute("SELECT state, reason, count(*) FROM messages GROUP BY 1, 2 ORDER BY 1").fetchall()
    assert found == [("accepted", None, 1), ("refused", "frequency_capped", 19)]


def test_a_claim_that_another_overtook_is_decided_again_on_the_next_channel(house: House) -> None:
    house = capped(house, Cap("mail", 1, frozenset({Channel.EMAIL}), OFFERS, 3_600.0))
    add_people(house, person("c-1"))
    submit(house, ["c-1"])
    submit(house, ["c-1"], "summer", channels=["email", "push"])
    work(house)
    assert (states(house), states(house, "summer")) == ({"accepted": 1}, {"accepted": 1})
    assert (len(outbox(house).sent), len(outbox(house, Channel.PUSH).sent)) == (1, 1)


def test_with_route_all_each_channel_is_a_message_of_its_own(house: House) -> None:
    house = capped(house, replace(ONE_A_DAY, most=2))
    add_people(house, person("c-1"))
    submit(house, ["c-1"], route="all", channels=["email", "push", "sms"])
    work(house)
    assert balance(house).channels == {"email": {"accepted": 1}, "push": {"accepted": 1}, "sms": {"refused": 1}}
    assert legs(house, "c-1")[2].reason == "frequency_capped"


@pytest.mark.parametrize(
    ("answer", "counts"),
    [(None, True), (Uncertain("read"), True), (Rejected("400"), False), (Unavailable("connect"), False)],
)
def test_only_what_is_known_not_to_have_left_gives_its_place_back(house: House, answer: ChannelError | None, counts: bool) -> None:
    house = capped(house, ONE_A_DAY)
    add_people(house, person("c-1"))
    if answer is not None:
        outbox(house).answers["c-1@example.org"] = answer
    submit(house, ["c-1"])
    work(house)
    submit(house, ["c-1"], "summer", channels=["push"])
    work(house)
    assert states(house, "summer") == ({"refused": 1} if counts else {"accepted": 1})


def test_service_messages_neither_count_nor_are_capped(house: House) -> None:
    house = capped(house, ONE_A_DAY)
    add_people(house, person("c-1"))
    for key, template in (("k-1", "optout_acknowledgement"), ("k-2", "loan_offer"), ("k-3", "optout_acknowledgement")):
        run_chunk(house, *trigger(house, "c-1", key, template))
    assert sum(len(outbox(house, channel).sent) for channel in Channel) == 3


def test_a_rolling_window_frees_a_place_and_old_reservations_are_dropped(house: House, clock: Clock) -> None:
    house = capped(house, ONE_A_DAY)
    add_people(house, person("c-1"))
    submit(house, ["c-1"])
    work(house)
    clock.pass_(86_400)
    submit(house, ["c-1"], "summer")
    work(house)
    assert states(house, "summer") == {"accepted": 1}
    clock.pass_(1)
    campaigns.sweep(house)
    with lend(house.pool) as connection:
        assert connection.execute("SELECT at FROM cap_reservations").fetchall() == [(clock.now - timedelta(seconds=1),)]


def test_a_rehearsal_sees_what_was_sent_and_reserves_nothing(house: House) -> None:
    house = capped(house, replace(ONE_A_DAY, most=2))
    add_people(house, person("c-1", 1), person("c-2", 2))
    submit(house, ["c-1"])
    work(house)
    every = form(["c-1", "c-2"], "summer", route="all", channels=["email", "push", "sms"])
    for _ in range(2):
        rehearsal = campaigns.rehearse(house, parse_campaign(every, campaigns.desk(house)))
        assert rehearsal.states == {"sendable": 2}
        assert rehearsal.channels == {"email": 2, "push": 1}

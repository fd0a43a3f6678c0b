"""One address, several recipients: a campaign sends it one message per channel, and frequency caps count by address too."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from channels.base import Channel, ChannelError, Rejected, Unavailable, Uncertain
from dispatcher.campaigns import dry_run, scheduler, submission
from dispatcher.campaigns.actions import CampaignAction, apply
from dispatcher.consent import erasure
from dispatcher.delivery.explanation import explain_to_customer
from dispatcher.delivery.pipeline import run_chunk
from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.message import OfferType, State
from dispatcher.domain.preferences import Change
from dispatcher.intake.campaign import parse_campaign
from dispatcher.intake.trigger import parse_trigger
from dispatcher.ledger import secret_keys
from dispatcher.ledger.connection import connect_once, lend
from dispatcher.ledger.consent import events
from dispatcher.ledger.consent.events import ConsentStatement, Provenance
from dispatcher.ledger.delivery import messages
from dispatcher.ledger.delivery.messages import Message
from dispatcher.maintenance import key_rotation, sweep
from dispatcher.policy.frequency_caps import FrequencyCap
from dispatcher.runtime.services import Services
from tests.support.services import Clock, add_people, balance, make_services, outbox, person, states, work

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
SHARED = {"email": "Family@example.org"}
DAY = 86_400.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def services(database: str, clock: Clock) -> Iterator[Services]:
    with make_services(database, clock) as made:
        yield made


def family(services: Services, **changes: Any) -> None:
    """Three recipients with one mailbox, whose numbers differ."""
    add_people(services, *(person(f"c-{number}", number, **{**SHARED, **changes}) for number in (1, 2, 3)))


def form(*recipients: str, campaign_id: str = "spring", **changes: Any) -> dict[str, Any]:
    rows = [{"recipient": recipient_id, "data": OFFER} for recipient_id in recipients]
    return {"id": campaign_id, "template": "loan_offer", "channels": ["email"], "audience": rows, **changes}


def submit(services: Services, *recipients: str, campaign_id: str = "spring", **changes: Any) -> None:
    asked = parse_campaign(form(*recipients, campaign_id=campaign_id, **changes), submission.validation_context(services))
    submission.submit(services, asked)


def run_trigger(services: Services, recipient_id: str, key: str) -> None:
    job = {"key": key, "recipient": recipient_id, "template": "loan_offer", "data": OFFER, "channels": ["email"]}
    place = submission.take_trigger(services, parse_trigger(job, submission.validation_context(services)))
    run_chunk(services, place.period, place.chunk)


def capped(services: Services, cap: FrequencyCap) -> Services:
    return replace(services, policy=replace(services.policy, caps=(cap,)))


def at_most(maximum: int) -> FrequencyCap:
    return FrequencyCap("test", maximum, frozenset(Channel), frozenset(OfferType), DAY)


def message(services: Services, recipient_id: str, campaign_id: str = "spring") -> Message:
    with lend(services.pool) as connection:
        return messages.of_campaign(connection, campaign_id, recipient_id)[-1]


def opt_out(services: Services, recipient_id: str) -> None:
    statement = ConsentStatement(recipient_id, (Change("offer:own", "none"),), services.clock())
    with lend(services.pool) as connection:
        events.record(connection, services.secret, statement, Provenance("mobile", "tests"), services.clock())


def run_together(all_services: list[Services], places: list[tuple[int, int]]) -> None:
    """Run each chunk on a worker of its own, all at the same moment."""
    together = threading.Barrier(len(places))

    def run(number: int) -> None:
        together.wait()
        run_chunk(all_services[number % len(all_services)], *places[number])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(places))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# -- one message per address -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [None, 1])
def test_three_ids_with_one_mailbox_get_one_mail(services: Services, clock: Clock, rate: int | None) -> None:
    family(services)
    submit(services, "c-1", "c-2", "c-3", rate_per_second=rate)
    for _ in range(4):
        work(services)
        clock.pass_(1)
    assert len(outbox(services).sent) == 1
    assert states(services) == {"accepted": 1, "refused": 2}
    assert balance(services).reasons == {"one_per_address": 2}
    winner = str(message(services, "c-1").ref)
    for loser in ("c-2", "c-3"):
        assert message(services, loser).decision["reasons"] == [["one_per_address", "one_per_address", winner, "email"]]


def test_letter_case_makes_no_other_mailbox(services: Services) -> None:
    add_people(services, person("c-1", 1, email="jan@example.org"), person("c-2", 2, email="JAN@example.org"))
    submit(services, "c-1", "c-2")
    work(services)
    assert balance(services).reasons == {"one_per_address": 1}


def test_each_channel_has_one_message_of_an_address(services: Services) -> None:
    number = {"phone": "+32470000009", "whatsapp": "+32470000009"}
    add_people(services, person("c-1", 1, **number), person("c-2", 2, **number))
    submit(services, "c-1", "c-2", channels=["sms", "whatsapp", "push"], route="all")
    work(services)
    assert [len(outbox(services, channel).sent) for channel in (Channel.SMS, Channel.WHATSAPP, Channel.PUSH)] == [1, 1, 2]


def test_whose_mailbox_is_taken_gets_the_next_channel(services: Services) -> None:
    family(services)
    submit(services, "c-1", "c-2", channels=["email", "push"])
    work(services)
    assert (len(outbox(services).sent), len(outbox(services, Channel.PUSH).sent)) == (1, 1)
    assert message(services, "c-2").channel is Channel.PUSH


def test_another_campaign_writes_to_the_address_again(services: Services) -> None:
    family(services)
    for campaign_id in ("spring", "summer"):
        submit(services, "c-1", "c-2", campaign_id=campaign_id)
        work(services)
    assert len(outbox(services).sent) == 2


def test_who_opted_out_does_not_take_the_address(services: Services) -> None:
    family(services)
    opt_out(services, "c-1")
    submit(services, "c-1", "c-2")
    work(services)
    assert balance(services).reasons == {"choice_none": 1}
    assert message(services, "c-2").state is State.ACCEPTED


def test_a_policy_may_allow_a_message_per_recipient(services: Services) -> None:
    services = replace(services, policy=replace(services.policy, one_per_address=False))
    family(services)
    submit(services, "c-1", "c-2", "c-3")
    work(services)
    assert len(outbox(services).sent) == 3


def test_service_messages_go_to_every_recipient(services: Services) -> None:
    family(services)
    rows: list[dict[str, Any]] = [{"recipient": recipient_id, "data": {}} for recipient_id in ("c-1", "c-2")]
    submit(services, template="optout_acknowledgement", audience=rows)
    work(services)
    assert len(outbox(services).sent) == 2


@pytest.mark.parametrize(
    ("answer", "is_free"), [(None, False), (Uncertain("read"), False), (Rejected("400"), True), (Unavailable("connect"), True)]
)
def test_what_was_not_sent_frees_the_address(services: Services, clock: Clock, answer: ChannelError | None, is_free: bool) -> None:
    family(services)
    if answer is not None:
        outbox(services).answers["Family@example.org"] = answer
    submit(services, "c-1", "c-2", rate_per_second=1)
    work(services)
    outbox(services).answers.clear()
    clock.pass_(1)
    work(services)
    assert (message(services, "c-2").state is State.ACCEPTED) is is_free
    clock.pass_(120)
    work(services)  # the first one's retry, if it has one
    assert len(outbox(services).sent) == 1


def test_a_retry_after_the_address_was_taken_is_refused(services: Services, clock: Clock) -> None:
    family(services)
    outbox(services).answers["Family@example.org"] = Unavailable("connect")
    submit(services, "c-1", "c-2", rate_per_second=1)
    work(services)
    outbox(services).answers.clear()
    clock.pass_(1)
    work(services)
    assert message(services, "c-1").state is State.WAITING
    clock.pass_(3_600)
    work(services)
    assert (message(services, "c-1").state, message(services, "c-1").reason) == (State.REFUSED, "one_per_address")


def test_the_choice_of_the_recipient_survives_a_pause(services: Services, clock: Clock) -> None:
    family(services)
    submit(services, "c-1", "c-2", "c-3", rate_per_second=1)
    work(services)
    apply(services, "spring", CampaignAction.PAUSE, "tests")
    clock.pass_(20 * DAY)  # longer than any cap looks back
    sweep.sweep(services)
    apply(services, "spring", CampaignAction.RESUME, "tests")
    for _ in range(3):
        work(services)
        clock.pass_(1)
    assert states(services) == {"accepted": 1, "refused": 2}


def test_a_fallback_leg_does_not_reach_a_number_twice(services: Services, clock: Clock) -> None:
    number = {"phone": "+32470000009", "whatsapp": "+32470000009"}
    add_people(services, person("c-1", 1, **number), person("c-2", 2, email=None, push=[], **number))
    submit(services, "c-1", "c-2", channels=["email", "sms"], fallback_after_seconds=3_600)
    work(services)
    assert (len(outbox(services).sent), len(outbox(services, Channel.SMS).sent)) == (1, 1)
    clock.pass_(3_601)
    work(services)
    leg = message(services, "c-1")
    assert (leg.ref.leg, leg.state, leg.reason) == (1, State.REFUSED, "one_per_address")
    assert len(outbox(services, Channel.SMS).sent) == 1


def test_two_workers_and_one_mailbox_make_one_mail(services: Services, database: str, clock: Clock) -> None:
    add_people(services, *(person(f"c-{number}", number, **SHARED) for number in range(1, 9)))
    submit(services, *(f"c-{number}" for number in range(1, 9)), rate_per_second=1)
    with lend(services.pool) as connection:  # the rate has made eight chunks; now all may be worked on at once
        connection.execute("UPDATE campaigns SET spec = spec || '{\"rate_per_second\": null}'")
    clock.pass_(60)
    places = [(due.period, due.number) for due in scheduler.due_chunks(services)]
    assert len(places) == 8
    with make_services(database, clock) as other:
        run_together([services, other], places)
        assert len(outbox(services).sent) + len(outbox(other).sent) == 1
    assert states(services) == {"accepted": 1, "refused": 7}
    assert balance(services).reasons == {"one_per_address": 7}


def test_the_index_is_the_last_guard_of_an_address(services: Services) -> None:
    add_people(services, person("c-1", 1), person("c-2", 2))
    submit(services, "c-1", "c-2")
    (due,) = scheduler.due_chunks(services)
    with lend(services.pool) as other, other.transaction():
        # A claim for a recipient who gets the address while this one runs: it is not shared when it could be locked.
        other.execute(
            "INSERT INTO cap_reservations (recipient_id, at, channel, offer_type, chunk, row, leg, address_key, once_in)"
            " SELECT 'c-9', %s, 'email', 'own', 999999, 0, 0, r.email_key, c.no FROM recipients r, campaigns c WHERE r.id = 'c-2'",
            (services.clock(),),
        )
        waiting = threading.Thread(target=run_chunk, args=(services, due.period, due.number))
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
    waiting.join()
    assert (message(services, "c-1").state, message(services, "c-2").reason) == (State.ACCEPTED, "one_per_address")
    assert len(outbox(services).sent) == 1


# -- frequency caps ----------------------------------------------------------------------------------------------------


def test_a_shared_mailbox_gets_no_more_than_the_cap(services: Services) -> None:
    services = capped(services, at_most(2))
    family(services)
    for number in (1, 2, 3):
        submit(services, f"c-{number}", campaign_id=f"campaign-{number}")
        work(services)
    assert [states(services, f"campaign-{number}") for number in (1, 2, 3)] == [{"accepted": 1}, {"accepted": 1}, {"refused": 1}]
    assert balance(services, "campaign-3").reasons == {"frequency_capped": 1}


def test_what_went_to_other_addresses_does_not_count(services: Services) -> None:
    services = capped(services, at_most(1))
    family(services)
    submit(services, "c-1")
    submit(services, "c-2", campaign_id="summer", channels=["push"])
    submit(services, "c-3", campaign_id="autumn", channels=["sms"])
    work(services)
    assert [states(services, name) for name in ("spring", "summer", "autumn")] == [{"accepted": 1}] * 3


def test_sms_and_whatsapp_count_for_a_shared_number(services: Services) -> None:
    services = capped(services, at_most(1))
    number = {"phone": "+32470000009", "whatsapp": "+32470000009"}
    add_people(services, person("c-1", 1, **number), person("c-2", 2, **number))
    submit(services, "c-1", channels=["sms"])
    work(services)
    submit(services, "c-2", campaign_id="summer", channels=["sms"])
    work(services)
    assert states(services, "summer") == {"refused": 1}


def test_triggers_to_one_mailbox_share_the_cap(services: Services, database: str, clock: Clock) -> None:
    services = capped(services, at_most(1))
    add_people(services, *(person(f"c-{number}", number, **SHARED) for number in range(12)))
    places = []
    for number in range(12):
        job = {"key": f"k-{number}", "recipient": f"c-{number}", "template": "loan_offer", "data": OFFER, "channels": ["email"]}
        place = submission.take_trigger(services, parse_trigger(job, submission.validation_context(services)))
        places.append((place.period, place.chunk))
    with make_services(database, clock) as other:
        run_together([services, capped(other, at_most(1))], places)
        assert len(outbox(services).sent) + len(outbox(other).sent) == 1


def test_a_claim_waits_for_another_one_of_its_address(services: Services) -> None:
    services = capped(services, at_most(1))
    family(services)
    with lend(services.pool) as other, other.transaction():  # a claim for c-1, not yet committed
        other.execute(
            "SELECT address_used_meanwhile('{0}', '{c-1}', '{email}', ARRAY[email_key], '{0}', %s, NULL)"
            " FROM recipients WHERE id = 'c-1'",
            (services.clock(),),
        )
        waiting = threading.Thread(target=run_trigger, args=(services, "c-2", "k-1"))
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        other.execute(
            "INSERT INTO cap_reservations (recipient_id, at, channel, offer_type, chunk, row, leg, address_key)"
            " SELECT id, %s, 'email', 'own', 999999, 0, 0, email_key FROM recipients WHERE id = 'c-1'",
            (services.clock(),),
        )
    waiting.join()
    assert not outbox(services).sent


def test_in_one_batch_the_cap_of_an_address_holds(services: Services) -> None:
    services = capped(services, at_most(2))
    services = replace(services, policy=replace(services.policy, one_per_address=False))
    family(services)
    submit(services, "c-1", "c-2", "c-3")
    work(services)
    assert len(outbox(services).sent) == 2
    assert balance(services).reasons == {"frequency_capped": 1}


def test_a_trigger_is_not_held_back_by_a_campaign(services: Services) -> None:
    family(services)
    submit(services, "c-1")
    work(services)
    run_trigger(services, "c-2", "k-1")
    run_trigger(services, "c-3", "k-2")
    assert sum(len(outbox(services, channel).sent) for channel in Channel) == 3


# -- keys, erasure, dry run, explanation -------------------------------------------------------------------------------


def test_after_a_key_rotation_the_address_is_still_taken(services: Services, database: str, clock: Clock) -> None:
    family(services)
    submit(services, "c-1", "c-2", "c-3", rate_per_second=1)
    with lend(services.pool) as connection:
        secret_keys.check_keys(connection, services.secret)
    work(services)
    new = replace(services, secret=KeyRing((b"a-newer-secret-of-the-tests-that-is-long-enough", *services.secret.keys)))
    with connect_once(database) as owner:
        secret_keys.introduce(owner, new.secret)
    key_rotation.rotate(new, lambda _: None)
    for _ in range(3):
        clock.pass_(1)
        work(new)
    assert states(new) == {"accepted": 1, "refused": 2}
    run_trigger(capped(new, at_most(1)), "c-2", "k-1")
    assert len(outbox(new).sent) == 1


def test_erasure_keeps_the_hash_only_for_others(services: Services) -> None:
    family(services)
    add_people(services, person("c-9", 9))
    submit(services, "c-1", "c-9")
    work(services)
    for recipient_id in ("c-1", "c-9"):
        erasure.erase(services, recipient_id, "tests")
    with lend(services.pool) as connection:
        rows = connection.execute("SELECT recipient_id, address_key IS NULL FROM cap_reservations ORDER BY 1").fetchall()
    assert rows == [("c-1", False), ("c-9", True)]
    for recipient_id in ("c-2", "c-3"):
        erasure.erase(services, recipient_id, "tests")
    with lend(services.pool) as connection:
        assert connection.execute("SELECT FROM cap_reservations WHERE address_key IS NOT NULL").rowcount == 0


@pytest.mark.parametrize("rate", [None, 1])
def test_a_dry_run_counts_what_then_happens(services: Services, clock: Clock, rate: int | None) -> None:
    family(services)
    add_people(services, person("c-4", 4), person("c-5", 5, email="C-4@example.org"))
    opt_out(services, "c-1")
    asked = form("c-1", "c-2", "c-4", "c-3", "c-5", rate_per_second=rate)
    result = dry_run.dry_run(services, parse_campaign(asked, submission.validation_context(services)))
    assert result.reasons == {"one_per_address": 2, "choice_none": 1}
    submit(services, "c-1", "c-2", "c-4", "c-3", "c-5", rate_per_second=rate)
    for _ in range(6):
        work(services)
        clock.pass_(1)
    assert balance(services).reasons == result.reasons
    assert states(services) == {"accepted": result.states["sendable"], "refused": 3}


def test_the_explanation_names_no_other_recipient(services: Services) -> None:
    family(services)
    submit(services, "c-1", "c-2")
    work(services)
    for language in ("nl", "fr", "de", "en"):
        text = explain_to_customer(services, message(services, "c-2"), language).text
        assert "c-1" not in text
        assert "{" not in text

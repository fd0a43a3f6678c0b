"""Rules that need a ledger to hold: what a person may get from several messages, campaigns and workers at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from shutil import copytree
from typing import Any

import pytest
from msgspec import structs

from channels.base import BadAddress, Channel, ChannelError, Event, EventKind, Rejected, Unavailable, Uncertain
from dispatcher.campaigns import dry_run, scheduler, submission
from dispatcher.campaigns.submission import SubmitResult
from dispatcher.campaigns.template_approval import approve_waiting
from dispatcher.content import Catalog
from dispatcher.delivery import reconciliation
from dispatcher.delivery.pipeline import prepare_all, run_chunk
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.message import OfferType, State
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.preferences import Change
from dispatcher.inbound import provider_events
from dispatcher.intake.campaign import parse_campaign
from dispatcher.intake.errors import BadInput
from dispatcher.intake.trigger import parse_trigger
from dispatcher.ledger.campaigns import lifecycle
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import events
from dispatcher.ledger.consent.events import ConsentStatement, Provenance
from dispatcher.ledger.decision_skeletons import expand_all
from dispatcher.ledger.delivery import claims, dead_letters, messages
from dispatcher.ledger.delivery.candidates import facts_of, gather
from dispatcher.ledger.delivery.chunks import find_chunk
from dispatcher.ledger.delivery.messages import Message
from dispatcher.ledger.inbound.provider_events import StatusChange, apply
from dispatcher.maintenance import sweep
from dispatcher.policy import variant_of
from dispatcher.policy.frequency_caps import FrequencyCap
from dispatcher.runtime.services import Services
from tests.support.services import TEMPLATES, Clock, add_people, balance, load_edited, make_services, outbox, person, states, work

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
EVERY = frozenset(Channel)
OFFERS = frozenset(OfferType)
ONE_A_DAY = FrequencyCap("one", 1, EVERY, OFFERS, 86_400.0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def services(database: str, clock: Clock) -> Iterator[Services]:
    with make_services(database, clock) as made:
        yield made


def capped(services: Services, *caps: FrequencyCap) -> Services:
    return replace(services, policy=replace(services.policy, caps=caps))


def form(recipients: Sequence[str], campaign_id: str = "spring", **changes: Any) -> dict[str, Any]:
    rows = [{"recipient": recipient_id, "data": OFFER} for recipient_id in recipients]
    return {"id": campaign_id, "template": "loan_offer", "channels": ["email"], "audience": rows, **changes}


def submit(services: Services, recipients: Sequence[str], campaign_id: str = "spring", **changes: Any) -> SubmitResult:
    return submission.submit(
        services, parse_campaign(form(recipients, campaign_id, **changes), submission.validation_context(services))
    )


def trigger(services: Services, recipient_id: str, key: str, template: str = "loan_offer") -> tuple[int, int]:
    data = OFFER if template == "loan_offer" else {}
    job = {"key": key, "recipient": recipient_id, "template": template, "data": data}
    place = submission.take_trigger(services, parse_trigger(job, submission.validation_context(services)))
    return place.period, place.chunk


def legs(services: Services, recipient_id: str, campaign_id: str = "spring") -> list[Message]:
    with lend(services.pool) as connection:
        return messages.of_campaign(connection, campaign_id, recipient_id)


# -- frequency caps ----------------------------------------------------------------------------------------------------


def test_twenty_workers_one_person_and_a_cap_of_one_make_one_message(services: Services, database: str, clock: Clock) -> None:
    add_people(services, person("c-1"))
    services = capped(services, ONE_A_DAY)
    places = [trigger(services, "c-1", f"k-{number}") for number in range(20)]
    together = threading.Barrier(20)

    def run(each: Services, place: tuple[int, int]) -> None:
        together.wait()
        run_chunk(each, *place)

    with make_services(database, clock) as one, make_services(database, clock) as other:
        services_of_workers = [capped(each, ONE_A_DAY) for each in (services, one, other)]
        threads = [threading.Thread(target=run, args=(services_of_workers[n % 3], place)) for n, place in enumerate(places)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(len(outbox(each, channel).sent) for each in services_of_workers for channel in Channel) == 1
    with lend(services.pool) as connection:
        found = connection.execute("SELECT state, reason, count(*) FROM messages GROUP BY 1, 2 ORDER BY 1").fetchall()
    assert found == [("accepted", None, 1), ("refused", "frequency_capped", 19)]


def test_a_claim_that_another_overtook_is_decided_again_on_the_next_channel(services: Services) -> None:
    services = capped(services, FrequencyCap("mail", 1, frozenset({Channel.EMAIL}), OFFERS, 3_600.0))
    add_people(services, person("c-1"))
    submit(services, ["c-1"])
    submit(services, ["c-1"], "summer", channels=["email", "push"])
    work(services)
    assert (states(services), states(services, "summer")) == ({"accepted": 1}, {"accepted": 1})
    assert (len(outbox(services).sent), len(outbox(services, Channel.PUSH).sent)) == (1, 1)


def test_with_route_all_each_channel_is_a_message_of_its_own(services: Services) -> None:
    services = capped(services, replace(ONE_A_DAY, maximum=2))
    add_people(services, person("c-1"))
    submit(services, ["c-1"], route="all", channels=["email", "push", "sms"])
    work(services)
    assert balance(services).channels == {"email": {"accepted": 1}, "push": {"accepted": 1}, "sms": {"refused": 1}}
    assert legs(services, "c-1")[2].reason == "frequency_capped"


@pytest.mark.parametrize(
    ("answer", "counts"),
    [(None, True), (Uncertain("read"), True), (Rejected("400"), False), (Unavailable("connect"), False)],
)
def test_only_what_is_known_not_to_have_left_gives_its_place_back(
    services: Services, answer: ChannelError | None, counts: bool
) -> None:
    services = capped(services, ONE_A_DAY)
    add_people(services, person("c-1"))
    if answer is not None:
        outbox(services).answers["c-1@example.org"] = answer
    submit(services, ["c-1"])
    work(services)
    submit(services, ["c-1"], "summer", channels=["push"])
    work(services)
    assert states(services, "summer") == ({"refused": 1} if counts else {"accepted": 1})


def test_service_messages_neither_count_nor_are_capped(services: Services) -> None:
    services = capped(services, ONE_A_DAY)
    add_people(services, person("c-1"))
    for key, template in (("k-1", "optout_acknowledgement"), ("k-2", "loan_offer"), ("k-3", "optout_acknowledgement")):
        run_chunk(services, *trigger(services, "c-1", key, template))
    assert sum(len(outbox(services, channel).sent) for channel in Channel) == 3


def test_a_rolling_window_frees_a_place_and_old_reservations_are_dropped(services: Services, clock: Clock) -> None:
    services = capped(services, ONE_A_DAY)
    add_people(services, person("c-1"))
    submit(services, ["c-1"])
    work(services)
    sweep.sweep(services)
    clock.pass_(86_400)
    submit(services, ["c-1"], "summer")
    work(services)
    assert states(services, "summer") == {"accepted": 1}
    clock.pass_(1)
    sweep.sweep(services)
    with lend(services.pool) as connection:
        assert connection.execute("SELECT at FROM cap_reservations").fetchall() == [(clock.now - timedelta(seconds=1),)]


def test_a_dry_run_sees_what_was_sent_and_reserves_nothing(services: Services) -> None:
    services = capped(services, replace(ONE_A_DAY, maximum=2))
    add_people(services, person("c-1", 1), person("c-2", 2))
    submit(services, ["c-1"])
    work(services)
    every = form(["c-1", "c-2"], "summer", route="all", channels=["email", "push", "sms"])
    for _ in range(2):
        result = dry_run.dry_run(services, parse_campaign(every, submission.validation_context(services)))
        assert result.states == {"sendable": 2}
        assert result.channels == {"email": 2, "push": 1}


# -- fallback legs -----------------------------------------------------------------------------------------------------

HOUR = 3_600
FALLBACK: dict[str, Any] = {"channels": ["push", "email", "sms"], "fallback_after_seconds": HOUR}


def add_event(services: Services, message: Message, kind: EventKind, code: str | None = None) -> None:
    assert message.channel is not None
    name = f"{message.ref}:{kind}"
    provider_events.store_events(
        services, [Event("provider", name, message.channel, kind, services.clock(), str(message.ref), code=code)]
    )
    provider_events.apply_batch(services, lambda _: None)


def told(services: Services, recipient_id: str = "c-1", campaign_id: str = "spring") -> list[tuple[str | None, str]]:
    return [(leg.channel, leg.state.value) for leg in legs(services, recipient_id, campaign_id)]


def state_of(services: Services, campaign_id: str = "spring") -> CampaignState:
    with lend(services.pool) as connection:
        campaign = lifecycle.find(connection, campaign_id)
    assert campaign is not None
    return campaign.state


@pytest.mark.parametrize("answer", [Rejected("400"), BadAddress("UNREGISTERED")])
def test_a_leg_that_fails_gives_way_at_once_and_the_person_counts_once(services: Services, answer: ChannelError) -> None:
    add_people(services, person("c-1"))
    outbox(services, Channel.PUSH).answers["device-c-1"] = answer
    submit(services, ["c-1"], **FALLBACK)
    work(services)
    assert told(services) == [("push", "failed"), ("email", "accepted")]
    assert states(services) == {"accepted": 1}


def test_a_leg_without_a_delivery_report_gives_way_after_its_time_and_the_last_ends_the_campaign(
    services: Services, clock: Clock
) -> None:
    add_people(services, person("c-1"))
    submit(services, ["c-1"], **FALLBACK)
    work(services)
    clock.pass_(HOUR - 1)
    work(services)
    assert told(services) == [("push", "accepted")]
    assert state_of(services) is CampaignState.RUNNING
    for _ in range(2):
        clock.pass_(HOUR)
        work(services)
    assert told(services) == [("push", "accepted"), ("email", "accepted"), ("sms", "accepted")]
    assert (states(services), state_of(services)) == ({"accepted": 1}, CampaignState.FINISHED)


def test_a_delivered_leg_is_followed_by_none(services: Services, clock: Clock) -> None:
    add_people(services, person("c-1"))
    submit(services, ["c-1"], **FALLBACK)
    work(services)
    add_event(services, legs(services, "c-1")[0], EventKind.DELIVERED)
    clock.pass_(2 * HOUR)
    work(services)
    assert told(services) == [("push", "delivered")]
    assert state_of(services) is CampaignState.FINISHED


def test_what_may_have_gone_never_falls_back(services: Services, clock: Clock) -> None:
    add_people(services, person("c-1"))
    outbox(services, Channel.PUSH).answers["device-c-1"] = Uncertain("read")
    submit(services, ["c-1"], **FALLBACK)
    for _ in range(3):
        work(services)
        clock.pass_(2 * HOUR)
    assert told(services) == [("push", "unresolved")]


def test_news_of_an_arrival_between_decision_and_claim_is_seen_by_the_gate(services: Services, clock: Clock) -> None:
    add_people(services, person("c-1"))
    submit(services, ["c-1"], **FALLBACK)
    work(services)
    first = legs(services, "c-1")[0]
    clock.pass_(HOUR)
    due = scheduler.due_chunks(services)[0]
    with lend(services.pool) as connection:
        chunk = find_chunk(connection, due.period, due.number)
        assert chunk is not None
        prepared = prepare_all(services, chunk, gather(connection, chunk), {})
        add_event(services, first, EventKind.DELIVERED)
        claim = claims.claim(connection, chunk, [item.entry for item in prepared], clock.now)
    assert not claim.claimed
    assert claim.changed == {0}
    run_chunk(services, due.period, due.number)
    assert told(services) == [("push", "delivered"), (None, "refused")]
    assert legs(services, "c-1")[1].reason == "duplicate"
    assert states(services) == {"delivered": 1}


def test_a_delivery_that_comes_after_the_fallback_is_only_recorded(services: Services, clock: Clock) -> None:
    add_people(services, person("c-1"))
    submit(services, ["c-1"], **FALLBACK)
    work(services)
    clock.pass_(HOUR)
    work(services)
    add_event(services, legs(services, "c-1")[0], EventKind.DELIVERED)
    assert told(services) == [("push", "delivered"), ("email", "accepted")]
    assert states(services) == {"delivered": 1}


def test_a_later_leg_is_decided_anew(services: Services, clock: Clock) -> None:
    add_people(services, person("c-1"))
    submit(services, ["c-1"], **FALLBACK)
    work(services)
    with lend(services.pool) as connection:
        now = clock.now
        events.record(
            connection,
            services.secret,
            ConsentStatement("c-1", (Change("channel:email", "off"),), now),
            Provenance("mobile", "tests"),
            now,
        )
    add_event(services, legs(services, "c-1")[0], EventKind.FAILED, "x")
    work(services)
    assert told(services) == [("push", "failed"), ("sms", "accepted")]
    with lend(services.pool) as connection:
        events.record(
            connection,
            services.secret,
            ConsentStatement("c-1", (Change("offer:own", "none"),), now),
            Provenance("mobile", "tests"),
            now,
        )
    submit(services, ["c-1"], "summer", **FALLBACK)
    work(services)
    assert states(services, "summer") == {"refused": 1}


def test_the_legs_of_one_message_count_once_towards_the_caps(services: Services) -> None:
    services = capped(services, ONE_A_DAY)
    add_people(services, person("c-1"))
    submit(services, ["c-1"], **FALLBACK)
    work(services)
    add_event(services, legs(services, "c-1")[0], EventKind.BOUNCED)
    work(services)
    assert told(services) == [("push", "bounced"), ("email", "accepted")]
    submit(services, ["c-1"], "summer")
    work(services)
    assert balance(services, "summer").reasons == {"frequency_capped": 1}


def test_a_provider_s_limit_per_person_closes_its_channel_for_a_day_and_falls_to_the_next(services: Services, clock: Clock) -> None:
    services = capped(services)
    add_people(services, person("c-1"))
    asked: dict[str, Any] = {"channels": ["whatsapp", "sms"], "fallback_after_seconds": 4 * HOUR}
    submit(services, ["c-1"], **asked)
    work(services)
    add_event(services, legs(services, "c-1")[0], EventKind.FAILED, "63049")
    work(services)
    assert told(services) == [("whatsapp", "failed"), ("sms", "accepted")]
    submit(services, ["c-1"], "summer", **asked)
    work(services)
    assert told(services, campaign_id="summer") == [("sms", "accepted")]
    clock.pass_(24 * HOUR)
    submit(services, ["c-1"], "autumn", **asked)
    work(services)
    assert told(services, campaign_id="autumn") == [("whatsapp", "accepted")]


def test_a_cancelled_campaign_begins_no_other_leg(services: Services, clock: Clock) -> None:
    add_people(services, person("c-1"))
    submit(services, ["c-1"], **FALLBACK)
    work(services)
    with lend(services.pool) as connection:
        assert lifecycle.cancel(connection, "spring", clock.now)
    clock.pass_(2 * HOUR)
    work(services)
    assert told(services) == [("push", "accepted")]


def test_a_dead_leg_that_has_fallen_back_is_not_replayed(services: Services, clock: Clock) -> None:
    services = replace(services, policy=replace(services.policy, quiet_hours={}))
    add_people(services, person("c-1"))
    outbox(services, Channel.PUSH).answers["device-c-1"] = Unavailable("connect")
    submit(services, ["c-1"], **FALLBACK)
    for _ in range(services.policy.retry.attempts_max):
        work(services)
        clock.pass_(2 * HOUR - 1)
    work(services)
    assert told(services)[0] == ("push", "dead")
    assert replay(services, clock, legs(services, "c-1")[0].ref) == "next_leg_started"


def replay(services: Services, clock: Clock, ref: MessageId) -> str | None:
    """Replay one message: why it was not, or None."""
    with lend(services.pool) as connection:
        result = dead_letters.replay(connection, [ref], clock.now)
    assert result.replayed == int(not result.refused)
    return result.refused.get(ref)


def test_a_replay_says_why_it_leaves_a_message_alone(services: Services, clock: Clock) -> None:
    add_people(services, person("c-1"))
    outbox(services).answers["c-1@example.org"] = Unavailable("connect")
    submit(services, ["c-1"])
    for _ in range(services.policy.retry.attempts_max):
        work(services)
        clock.pass_(2 * HOUR)
    dead = legs(services, "c-1")[0].ref
    assert replay(services, clock, structs.replace(dead, leg=1)) == "not_found"
    assert replay(services, clock, dead) is None
    assert replay(services, clock, dead) == "not_dead"
    with lend(services.pool) as connection:
        apply(connection, [StatusChange(dead, State.DEAD, None)], clock.now)
        assert lifecycle.cancel(connection, "spring", clock.now)
    assert replay(services, clock, dead) == "cancelled"


TRIGGER: dict[str, Any] = {
    "key": "k-1",
    "recipient": "c-1",
    "template": "loan_offer",
    "data": OFFER,
    "channels": ["push", "sms"],
    "fallback_after_seconds": HOUR,
}


def start_trigger(services: Services) -> MessageId:
    """Take `TRIGGER` and work on it once; the id of its first leg."""
    place = submission.take_trigger(services, parse_trigger(TRIGGER, submission.validation_context(services)))
    run_chunk(services, place.period, place.chunk)
    return MessageId(place.period, place.chunk, 0, 0)


def leg(services: Services, first: MessageId, number: int) -> Message:
    with lend(services.pool) as connection:
        message = messages.find(connection, structs.replace(first, leg=number))
    assert message is not None
    return message


def trigger_legs(services: Services, first: MessageId) -> list[tuple[str | None, str]]:
    return [(each.channel, each.state.value) for each in (leg(services, first, number) for number in (0, 1))]


@pytest.mark.parametrize("news_comes", [True, False])
def test_a_trigger_falls_back_like_a_campaign(services: Services, clock: Clock, news_comes: bool) -> None:
    add_people(services, person("c-1"))
    first = start_trigger(services)
    if news_comes:
        add_event(services, leg(services, first, 0), EventKind.FAILED, "x")
    else:
        clock.pass_(HOUR)
    work(services)
    assert trigger_legs(services, first) == [("push", "failed" if news_comes else "accepted"), ("sms", "accepted")]
    for wrong in ({"channels": ["sms"]}, {"channels": ["fax"]}):
        with pytest.raises(BadInput):
            parse_trigger({**TRIGGER, **wrong}, submission.validation_context(services))


@pytest.mark.parametrize("arrived", [False, True])
def test_a_trigger_settled_by_hand_falls_back_like_a_campaign(services: Services, clock: Clock, arrived: bool) -> None:
    add_people(services, person("c-1"))
    outbox(services, Channel.PUSH).answers["device-c-1"] = Uncertain("read")
    first = start_trigger(services)
    assert leg(services, first, 0).state is State.UNRESOLVED
    assert reconciliation.resolve_by_hand(services, first, arrived, "desk 7")
    clock.pass_(HOUR - 1)
    work(services)
    if arrived:
        with lend(services.pool) as connection:
            assert messages.find(connection, structs.replace(first, leg=1)) is None
        clock.pass_(1)
        work(services)
    assert trigger_legs(services, first) == [("push", "accepted" if arrived else "failed"), ("sms", "accepted")]


def test_a_dead_trigger_that_has_fallen_back_is_not_replayed(services: Services, clock: Clock) -> None:
    services = replace(services, policy=replace(services.policy, quiet_hours={}))
    add_people(services, person("c-1"))
    outbox(services, Channel.PUSH).answers["device-c-1"] = Unavailable("connect")
    first = start_trigger(services)
    for _ in range(services.policy.retry.attempts_max):
        clock.pass_(2 * HOUR)
        work(services)
    assert trigger_legs(services, first) == [("push", "dead"), ("sms", "accepted")]
    outbox(services, Channel.PUSH).answers.clear()
    assert replay(services, clock, first) == "next_leg_started"
    work(services)
    assert not outbox(services, Channel.PUSH).sent
    assert trigger_legs(services, first) == [("push", "dead"), ("sms", "accepted")]


@pytest.mark.parametrize("changes", [{"route": "all"}, {"channels": ["email"]}])
def test_a_fallback_without_anywhere_to_fall_to_is_not_accepted(services: Services, changes: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="second channel"):
        submit(services, ["c-1"], **{**FALLBACK, **changes})


# -- four eyes ---------------------------------------------------------------------------------------------------------


def test_a_large_campaign_waits_for_somebody_else_than_who_submitted_it(services: Services, clock: Clock) -> None:
    services = replace(services, policy=replace(services.policy, four_eyes_audience_min=1))
    add_people(services, person("c-1", 1), person("c-2", 2))
    submission.submit(services, parse_campaign(form(["c-1"], "small"), submission.validation_context(services)), by="Anne")
    submission.submit(services, parse_campaign(form(["c-1", "c-2"]), submission.validation_context(services)), by="Anne")
    work(services)
    assert (states(services, "small"), states(services)) == ({"accepted": 1}, {"pending": 2})
    assert state_of(services) is CampaignState.AWAITING_RELEASE
    with lend(services.pool) as connection:
        assert not any(lifecycle.release(connection, "spring", by) for by in ("Anne", " anne ", ""))
        assert not lifecycle.pause_by_id(connection, "spring", clock.now)
        assert not lifecycle.resume(connection, "spring", clock.now)
        assert lifecycle.release(connection, "spring", "Bart")
        assert not lifecycle.release(connection, "spring", "Carla")
        found = lifecycle.find(connection, "spring")
    assert found is not None
    assert (found.submitted_by, found.released_by) == ("Anne", "Bart")
    work(services)
    assert states(services) == {"accepted": 2}


def test_a_released_campaign_keeps_its_rate_from_then_on(services: Services, clock: Clock) -> None:
    services = replace(services, policy=replace(services.policy, four_eyes_audience_min=1))
    people = [f"c-{number}" for number in range(4)]
    add_people(services, *(person(recipient_id, number) for number, recipient_id in enumerate(people)))
    submit(services, people, rate_per_second=1)
    clock.pass_(HOUR)
    with lend(services.pool) as connection:
        assert lifecycle.release(connection, "spring", "Bart")
    work(services)
    assert states(services) == {"pending": 3, "accepted": 1}


def test_a_campaign_that_waits_for_its_release_can_be_cancelled(services: Services, clock: Clock) -> None:
    services = replace(services, policy=replace(services.policy, four_eyes_audience_min=0))
    submit(services, ["c-1"])
    with lend(services.pool) as connection:
        assert lifecycle.cancel(connection, "spring", clock.now)
        assert not lifecycle.release(connection, "spring", "Bart")
    assert states(services) == {"cancelled": 1}


# -- the complaint brake -----------------------------------------------------------------------------------------------


def braked(services: Services, count: int, complaints: int = 0, bounces: int = 0) -> tuple[CampaignState, str]:
    """A campaign to so many people, in which some complain and some have no mailbox; more of it is still to come."""
    people = [f"c-{number}" for number in range(count)]
    add_people(services, *(person(recipient_id, number % 90) for number, recipient_id in enumerate(people)))
    submit(services, people, rate_per_second=count / 2)
    work(services)
    for number in range(complaints):
        add_event(services, legs(services, f"c-{number}")[0], EventKind.COMPLAINED)
    for number in range(complaints, complaints + bounces):
        add_event(services, legs(services, f"c-{number}")[0], EventKind.BOUNCED)
    sweep.sweep(services)
    with lend(services.pool) as connection:
        found = lifecycle.find(connection, "spring")
    assert found is not None
    return found.state, found.note


def brake(services: Services, minimum: int = 10) -> Services:
    numbers = replace(
        services.policy.brake, complaint_rate_warn=0.05, complaint_rate_pause=0.2, bounce_rate_pause=0.3, minimum=minimum
    )
    return replace(services, policy=replace(services.policy, brake=numbers))


@pytest.mark.parametrize(
    ("complaints", "bounces", "state", "note"),
    [
        (0, 0, CampaignState.RUNNING, ""),
        (1, 2, CampaignState.RUNNING, "warning: 10.00% of 10 messages complained; the limit is 5.00%"),
        (2, 0, CampaignState.PAUSED, "paused itself: 20.00% of 10 messages complained; the limit is 20.00%"),
        (0, 3, CampaignState.PAUSED, "paused itself: 30.00% of 10 messages bounced; the limit is 30.00%"),
    ],
)
def test_a_campaign_that_people_complain_about_stops_itself_and_says_so(
    services: Services, complaints: int, bounces: int, state: CampaignState, note: str
) -> None:
    assert braked(brake(services), 20, complaints, bounces) == (state, note)


def test_a_few_messages_are_too_few_to_judge_by(services: Services) -> None:
    assert braked(brake(services, minimum=11), 20, complaints=9) == (CampaignState.RUNNING, "")


def test_a_campaign_that_a_person_let_go_on_is_judged_by_what_comes_then(services: Services, clock: Clock) -> None:
    services = brake(services)
    assert braked(services, 20, complaints=5)[0] is CampaignState.PAUSED
    with lend(services.pool) as connection:
        assert lifecycle.resume(connection, "spring", clock.now)
    clock.pass_(1)
    work(services)
    assert states(services) == {"accepted": 15, "complained": 5}
    assert state_of(services) is CampaignState.FINISHED


# -- variants ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """The shipped templates and a second loan offer."""
    folder = tmp_path_factory.mktemp("texts") / "templates"
    copytree(TEMPLATES, folder)
    copytree(TEMPLATES / "loan_offer", folder / "loan_offer_b")
    declared = folder / "loan_offer_b" / "template.toml"
    declared.write_text(declared.read_text(encoding="utf-8").replace('"loan_offer"', '"loan_offer_b"', 1), encoding="utf-8")
    return load_edited(folder)


@pytest.fixture(params=["compact", "complete"])
def two_texts(request: pytest.FixtureRequest, services: Services, catalog: Catalog) -> Services:
    both = replace(services, catalog=catalog, compact_records=request.param == "compact")
    approve_waiting(both, "tests")
    return both


def test_an_a_b_test_gives_each_person_one_text_and_counts_by_variant(two_texts: Services) -> None:
    people = [f"c-{number}" for number in range(60)]
    add_people(two_texts, *(person(recipient_id, number) for number, recipient_id in enumerate(people)))
    variants = {"short": "loan_offer", "long": "loan_offer_b"}
    wanted: dict[str, Any] = {"template": None, "variants": variants, "holdout_percent": 20}
    rehearsed = dry_run.dry_run(two_texts, parse_campaign(form(people, **wanted), submission.validation_context(two_texts)))
    submit(two_texts, people, **wanted)
    work(two_texts)
    found = balance(two_texts)
    assert found.states[State.ACCEPTED] == sum(counted.get("accepted", 0) for counted in found.variants.values())
    assert all(counted["accepted"] > 10 for counted in found.variants.values())
    assert rehearsed.variants == {name: counted["accepted"] for name, counted in found.variants.items()}
    with lend(two_texts.pool) as connection:
        rows = connection.execute("SELECT recipient_id, decision FROM messages").fetchall()
        decisions = expand_all(connection, [decision for _, decision in rows])
    written = [(recipient_id, decision["job"][1]) for (recipient_id, _), decision in zip(rows, decisions, strict=True)]
    salt = two_texts.policy.holdout_salt
    assert dict(written) == {each: variant_of(salt, tuple(variants.items()), "spring", each) for each in people}


@pytest.mark.parametrize(
    "changes",
    [
        {"variants": {"a": "loan_offer", "b": "loan_offer_b"}},
        {"template": None},
        {"template": None, "variants": {"a": "loan_offer"}},
        {"template": None, "variants": {"a": "loan_offer", "b": "loan_offer"}},
        {"template": None, "variants": {"a": "loan_offer", "b": "train_ticket"}},
        {"template": None, "variants": {"a": "loan_offer", "b": "lone_offer"}},
        {"template": None, "variants": {"a b": "loan_offer", "b": "loan_offer_b"}},
    ],
)
def test_variants_that_do_not_compare_are_not_accepted(two_texts: Services, changes: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        submit(two_texts, ["c-1"], **changes)


# -- households --------------------------------------------------------------------------------------------------------


def couple(services: Services, **second: Any) -> None:
    add_people(services, person("c-1", 1, partner="c-2"), person("c-2", 2, **{"partner": "c-1", **second}), person("c-3", 3))


@pytest.mark.parametrize("rate", [None, 1])
def test_of_two_registered_partners_one_gets_the_household_s_message(services: Services, clock: Clock, rate: int | None) -> None:
    couple(services)
    submit(services, ["c-1", "c-2", "c-3"], one_per_household=True, rate_per_second=rate)
    for _ in range(3):
        work(services)
        clock.pass_(1)
    assert states(services) == {"accepted": 2, "refused": 1}
    assert balance(services).reasons == {"household": 1}
    assert legs(services, "c-2")[0].decision["reasons"][0][2] == str(legs(services, "c-1")[0].ref)


def test_each_partner_s_own_no_wins_and_the_other_may_have_the_message(services: Services) -> None:
    couple(services)
    with lend(services.pool) as connection:
        now = services.clock()
        events.record(
            connection,
            services.secret,
            ConsentStatement("c-1", (Change("offer:own", "none"),), now),
            Provenance("mobile", "tests"),
            now,
        )
    submit(services, ["c-1", "c-2"], one_per_household=True)
    work(services)
    assert balance(services).reasons == {"choice_none": 1}
    assert legs(services, "c-2")[0].state is State.ACCEPTED


@pytest.mark.parametrize(("changes", "one"), [({"partner": "c-9"}, True), ({}, False)])
def test_only_who_registered_each_other_are_a_household_and_only_where_the_campaign_asks(
    services: Services, changes: dict[str, Any], one: bool
) -> None:
    couple(services, **changes)
    submit(services, ["c-1", "c-2"], one_per_household=one)
    work(services)
    assert states(services) == {"accepted": 2}


def test_one_side_s_word_alone_makes_no_household_whose_data_may_be_used(services: Services) -> None:
    couple(services)
    add_people(services, person("c-4", 4, partner="c-3"), person("c-5", 5, partner="nobody"))
    with lend(services.pool) as connection:
        found = facts_of(connection, ["c-1", "c-2", "c-3", "c-4", "c-5"])
    assert [found[each].partner_id for each in ("c-1", "c-2", "c-3", "c-4", "c-5")] == ["c-2", "c-1", None, None, None]


def test_two_workers_and_a_couple_in_two_chunks_make_one_message(services: Services, database: str, clock: Clock) -> None:
    couple(services)
    submit(services, ["c-1", "c-2"], one_per_household=True, rate_per_second=1)
    with lend(services.pool) as connection:  # the rate has made two chunks; now both may be worked on at once
        connection.execute("UPDATE campaigns SET spec = spec || '{\"rate_per_second\": null}'")
    clock.pass_(10)
    dues = scheduler.due_chunks(services)
    assert len(dues) == 2
    together = threading.Barrier(2)

    def run(each: Services, number: int) -> None:
        together.wait()
        run_chunk(each, dues[number].period, dues[number].number)

    with make_services(database, clock) as other:
        threads = [threading.Thread(target=run, args=pair) for pair in ((services, 0), (other, 1))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert states(services) == {"accepted": 1, "refused": 1}


def test_a_dry_run_counts_households_across_chunks(services: Services) -> None:
    couple(services)
    asked = form(["c-1", "c-3", "c-2"], one_per_household=True, rate_per_second=1)
    result = dry_run.dry_run(services, parse_campaign(asked, submission.validation_context(services)))
    assert (result.states, result.reasons) == ({"sendable": 2, "refused": 1}, {"household": 1})


# -- a dry run of the past -------------------------------------------------------------------------------------------


def test_a_dry_run_as_of_the_past_knows_what_had_been_said_and_sent_by_then(services: Services, clock: Clock) -> None:
    services = capped(services, ONE_A_DAY)
    add_people(services, person("c-1", 1), person("c-2", 2))
    clock.pass_(HOUR)
    then = clock.now
    clock.pass_(HOUR)
    submit(services, ["c-1"])
    work(services)
    with lend(services.pool) as connection:
        events.record(
            connection,
            services.secret,
            ConsentStatement("c-2", (Change("offer:own", "none"),), clock.now),
            Provenance("mobile", "tests"),
            clock.now,
        )
    asked = form(["c-1", "c-2"], "summer")
    moments = {"now": None, "then": then, "before": then - timedelta(hours=2)}
    found = {
        name: dry_run.dry_run(services, parse_campaign(asked, submission.validation_context(services)), at)
        for name, at in moments.items()
    }
    assert found["now"].reasons == {"frequency_capped": 1, "choice_none": 1}
    assert found["then"].states == {"sendable": 2}
    assert found["before"].reasons == {"no_choice": 2}


# -- senders -----------------------------------------------------------------------------------------------------------


def test_a_text_message_comes_from_its_entity_s_own_sender_where_it_has_one(services: Services) -> None:
    cbc = replace(services.policy.entities["cbc-banque"], senders={Channel.SMS: "CBC"})
    services = replace(services, policy=replace(services.policy, entities={**services.policy.entities, "cbc-banque": cbc}))
    add_people(services, person("c-1"))
    for name, entity in (("ours", "kbc-bank"), ("theirs", "cbc-banque")):
        submit(services, ["c-1"], name, entity=entity, channels=["sms"])
        work(services)
    assert [outbound.sender for outbound in outbox(services, Channel.SMS).sent] == ["", "CBC"]


# -- clocks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channel", "zone", "asked", "leaves"),
    [
        ("push", "Europe/Brussels", (2027, 3, 27, 21, 30), (2027, 3, 28, 6, 0)),  # the night that is an hour short
        ("push", "Europe/Brussels", (2026, 10, 24, 20, 30), (2026, 10, 25, 7, 0)),  # and the one that is an hour long
        ("push", "Pacific/Auckland", (2026, 11, 23, 11, 0), (2026, 11, 23, 19, 0)),
        ("push", None, (2026, 11, 23, 22, 0), (2026, 11, 24, 7, 0)),  # unknown: the policy's own
        ("sms", "Europe/Brussels", (2026, 12, 24, 19, 30), (2026, 12, 26, 8, 0)),  # over Christmas
        ("sms", "Europe/Brussels", (2026, 11, 21, 19, 30), (2026, 11, 23, 8, 0)),  # over a Sunday
    ],
)
def test_a_message_held_over_a_change_of_the_clock_leaves_by_the_new_one(
    services: Services, clock: Clock, channel: str, zone: str | None, asked: tuple[int, ...], leaves: tuple[int, ...]
) -> None:
    clock.now = datetime(*asked, tzinfo=UTC)  # type: ignore[misc, arg-type]
    add_people(services, person("c-1") | ({"timezone": zone} if zone else {}))
    submit(services, ["c-1"], channels=[channel])
    work(services)
    assert balance(services).reasons == {"quiet_hours": 1}
    clock.now = datetime(*leaves, tzinfo=UTC) - timedelta(seconds=1)  # type: ignore[misc, arg-type]
    work(services)
    assert states(services) == {"held": 1}
    clock.pass_(1)
    work(services)
    assert states(services) == {"accepted": 1}


def test_a_message_that_was_held_expires_rather_than_arrives_late(services: Services, clock: Clock) -> None:
    clock.now = datetime(2026, 11, 23, 20, 30, tzinfo=UTC)
    add_people(services, person("c-1"))
    submit(services, ["c-1"], channels=["push"], expires_at=datetime(2026, 11, 24, 8, 0, tzinfo=UTC).isoformat())
    work(services)
    assert states(services) == {"held": 1}
    clock.now = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
    work(services)
    assert states(services) == {"expired": 1}

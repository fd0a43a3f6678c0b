"""The steps of a chunk, on a real ledger: each message once, and none against a choice."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from channels.base import (
    BadAddress,
    Channel,
    ChannelError,
    Email,
    Event,
    EventKind,
    Misconfigured,
    OptedOut,
    Outbound,
    Push,
    Rejected,
    Result,
    Throttled,
    Unavailable,
    Uncertain,
    assemble,
)
from channels.overlap import wait_for
from channels.providers.outbox import Outbox
from channels.send_window import SendWindow
from dispatcher.campaigns import dry_run, scheduler, submission
from dispatcher.campaigns.submission import SubmitResult, SubmitStatus
from dispatcher.delivery.explanation import explain_to_customer
from dispatcher.delivery.pipeline import prepare, run_chunk, run_chunks
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.message import State
from dispatcher.domain.preferences import Change
from dispatcher.inbound import provider_events
from dispatcher.intake.campaign import parse_campaign
from dispatcher.intake.errors import BadInput
from dispatcher.intake.trigger import parse_trigger
from dispatcher.ledger.campaigns import lifecycle
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import events
from dispatcher.ledger.consent.events import ConsentStatement, Provenance
from dispatcher.ledger.delivery import claims, dead_letters, messages, settlements
from dispatcher.ledger.delivery.candidates import facts_of, gather
from dispatcher.ledger.delivery.chunks import find_chunk
from dispatcher.ledger.delivery.claims import CampaignGate
from dispatcher.ledger.delivery.messages import Message
from dispatcher.ledger.delivery.scheduling import DueChunk
from dispatcher.ledger.maintenance import policies, stopped_channels
from dispatcher.policy import FileRules, parse, shipped
from dispatcher.runtime.services import Services
from tests.support.services import Clock, add_people, balance, make_services, outbox, person, states, work

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def services(database: str, clock: Clock) -> Iterator[Services]:
    with make_services(database, clock) as made:
        yield made


def submit(services: Services, recipients: Sequence[str], campaign_id: str = "spring", **changes: Any) -> SubmitResult:
    rows = [{"recipient": recipient_id, "data": OFFER} for recipient_id in recipients]
    form = {"id": campaign_id, "template": "loan_offer", "channels": ["email"], "audience": rows, **changes}
    return submission.submit(services, parse_campaign(form, submission.validation_context(services)))


def message(services: Services, recipient_id: str, campaign_id: str = "spring") -> Message:
    with lend(services.pool) as connection:
        return messages.of_campaign(connection, campaign_id, recipient_id)[0]


def handed_over(services: Services, channel: Channel = Channel.PUSH) -> Outbound:
    (outbound,) = outbox(services, channel).sent
    return outbound


def say(services: Services, recipient_id: str, subject: str, value: str) -> None:
    with lend(services.pool) as connection:
        now = services.clock()
        events.record(
            connection,
            services.secret,
            ConsentStatement(recipient_id, (Change(subject, value),), now),
            Provenance("mobile", "tests"),
            now,
        )


# -- who gets what -----------------------------------------------------------------------------------------------------


def test_each_recipient_ends_in_one_state_with_one_reason(services: Services) -> None:
    add_people(
        services,
        person("c-1", 1),
        person("c-2", 2, offers={"own": "none"}),
        person("c-3", 3, channels={"email": False, "push": True, "sms_whatsapp": True}),
        person("c-4", 4, object_marketing=True),
        {name: value for name, value in person("c-5", 5).items() if name != "email"},
    )
    submit(services, ["c-1", "c-2", "c-3", "c-4", "c-5", "nobody", "c-1"])
    work(services)
    assert states(services) == {"accepted": 1, "refused": 6}
    assert balance(services).reasons == {
        "choice_none": 1,
        "channel_off": 1,
        "objected": 1,
        "no_address": 1,
        "unknown_recipient": 1,
        "duplicate": 1,
    }
    assert [outbound.address for outbound in outbox(services).sent] == ["c-1@example.org"]
    with lend(services.pool) as connection:
        campaign = lifecycle.find(connection, "spring")
    assert campaign is not None
    assert campaign.state is CampaignState.FINISHED


def test_a_message_is_written_in_the_reader_s_language_with_both_ways_out(services: Services) -> None:
    add_people(services, person("c-1", language="fr"))
    submit(services, ["c-1"])
    work(services)
    mail: Any = outbox(services).sent[0].content
    assert "Attention, emprunter de l'argent coûte aussi de l'argent." in mail.text
    headers = dict(mail.headers)
    assert headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert headers["List-Unsubscribe"].startswith("<https://dispatcher.example/u/")


def test_the_first_allowed_channel_is_used_and_the_others_are_left_alone(services: Services) -> None:
    add_people(services, person("c-1", channels={"email": True, "push": False, "sms_whatsapp": True}))
    submit(services, ["c-1"], channels=["push", "sms", "email"])
    work(services)
    assert len(outbox(services, Channel.SMS).sent) == 1
    assert not outbox(services, Channel.PUSH).sent
    assert not outbox(services, Channel.EMAIL).sent


def test_route_all_uses_each_allowed_channel_and_counts_a_person_once(services: Services) -> None:
    add_people(services, person("c-1", 1), person("c-2", 2, channels={"email": False, "push": False, "sms_whatsapp": True}))
    submit(services, ["c-1", "c-2"], channels=["push", "email", "sms"], route="all")
    work(services)
    assert states(services) == {"accepted": 2}
    counted = balance(services).channels
    assert counted == {"push": {"accepted": 1, "refused": 1}, "email": {"accepted": 1, "refused": 1}, "sms": {"accepted": 2}}


def test_a_push_goes_to_every_device_that_may_show_it_and_a_dead_one_is_forgotten(services: Services) -> None:
    devices = [{"token": token, "platform": "ios", "permission": token != "muted"} for token in ("phone", "tablet", "muted")]
    add_people(services, person("c-1", push=devices))
    outbox(services, Channel.PUSH).answers["tablet"] = BadAddress("UNREGISTERED")
    submit(services, ["c-1"], channels=["push"])
    work(services)
    assert states(services) == {"accepted": 1}
    with lend(services.pool) as connection:
        known = facts_of(connection, ["c-1"])["c-1"]
    assert [device.token for device in known.devices] == ["phone", "muted"]


def test_quiet_hours_hold_a_message_until_morning_and_it_is_decided_anew_then(services: Services, clock: Clock) -> None:
    clock.pass_(12 * 3600)  # midnight in Brussels
    add_people(services, person("c-1", 1), person("c-2", 2))
    submit(services, ["c-1", "c-2"], channels=["sms"])
    work(services)
    assert states(services) == {"held": 2}
    say(services, "c-2", "offer:own", "none")
    assert states(services) == {"held": 1, "refused": 1}
    clock.pass_(12 * 3600)
    work(services)
    assert states(services) == {"accepted": 1, "refused": 1}


def test_a_variable_that_nobody_gave_refuses_one_message_only(services: Services) -> None:
    add_people(services, person("c-1", 1), person("c-2", 2))
    rows = [{"recipient": "c-1", "data": OFFER}, {"recipient": "c-2", "data": {"project": "a boat"}}]
    submit(services, [], audience=rows)
    work(services)
    assert states(services) == {"accepted": 1, "refused": 1}
    assert message(services, "c-2").reason == "missing_variable"


def test_a_provider_is_told_how_long_a_message_is_worth_sending_and_whose_it_is(services: Services, clock: Clock) -> None:
    add_people(services, person("c-1", 1))
    end = (clock() + timedelta(minutes=10)).isoformat()
    submit(services, ["c-1"], channels=["push"], expires_at=end, ttl_seconds=3600, collapse_key="spring-26")
    work(services)
    outbound = handed_over(services)
    assert (outbound.ttl_seconds, outbound.flow) == (600, "spring")
    assert isinstance(outbound.content, Push)
    assert outbound.content.options.collapse_key == "spring-26"


def test_a_life_in_seconds_is_enough_and_a_trigger_belongs_to_no_campaign(services: Services) -> None:
    add_people(services, person("c-1", 1))
    submit(services, ["c-1"], channels=["sms"], ttl_seconds=90)
    work(services)
    assert handed_over(services, Channel.SMS).ttl_seconds == 90
    job = {"key": "k-1", "recipient": "c-1", "template": "optout_acknowledgement"}
    place = submission.take_trigger(services, parse_trigger(job, submission.validation_context(services)))
    run_chunk(services, place.period, place.chunk)
    assert [(sent.flow, sent.ttl_seconds) for sent in outbox(services).sent] == [("", None)]


# -- the order of an opt-out and a claim -------------------------------------------------------------------------------


class Counting(Outbox):
    """An outbox that notes how many messages come at once."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel)
        self.handed: list[int] = []

    def send(self, batch: Sequence[Outbound], window: SendWindow) -> Iterator[tuple[Outbound, Result]]:
        """See `channels.base.Provider`."""
        self.handed.append(len(batch))
        return super().send(batch, window)


@pytest.mark.parametrize(("channels", "handed"), [(["email"], [4, 1]), (["email", "sms"], [2, 2, 1])])
def test_a_batch_grows_to_what_one_request_carries_where_all_go_by_that_channel(
    services: Services, channels: list[str], handed: list[int]
) -> None:
    counting = Counting(Channel.EMAIL)
    limits = replace(services.limits, batch_messages_max=2, together={Channel.EMAIL: 4})
    larger = replace(services, providers={**services.providers, Channel.EMAIL: counting}, limits=limits)
    add_people(services, *(person(f"c-{number}", number) for number in range(5)))
    submit(larger, [f"c-{number}" for number in range(5)], channels=channels)
    work(larger)
    assert counting.handed == handed


@dataclass(eq=False)
class DistantOutbox(Outbox):
    """An outbox that answers a batch only when nothing else can be done meanwhile."""

    channel: Channel
    on_their_way: list[int] = field(default_factory=list)  # messages, before each wait
    waiting: list[Sequence[Outbound]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(self.channel)

    def poll(self, seconds_max: float) -> bool:
        """See `channels.overlap.Waiting`."""
        self.on_their_way.append(sum(map(len, self.waiting)))
        if seconds_max and self.waiting:
            del self.waiting[0]
        return bool(seconds_max)

    def send(self, batch: Sequence[Outbound], window: SendWindow) -> Iterator[tuple[Outbound, Result]]:
        """See `channels.base.Provider`."""
        self.waiting.append(batch)
        while any(each is batch for each in self.waiting):
            wait_for(self)
        yield from super().send(batch, window)


def test_while_one_batch_travels_the_next_are_decided_up_to_a_limit(services: Services) -> None:
    distant = DistantOutbox(Channel.EMAIL)
    limits = replace(services.limits, batch_messages_max=2, in_flight_max=7)
    slow = replace(services, providers={**services.providers, Channel.EMAIL: distant}, limits=limits)
    people = [f"c-{number}" for number in range(12)]
    add_people(services, *(person(each, number) for number, each in enumerate(people)))
    submit(slow, people, channels=["email"])
    (due,) = scheduler.due_chunks(slow)
    run_chunk(slow, due.period, due.number)
    assert states(services) == {"accepted": 12}
    assert max(distant.on_their_way) == 6


def two_chunks(services: Services, distant: DistantOutbox) -> tuple[Services, int, list[int]]:
    """A campaign of two chunks of two messages, which leave one by one, two at most at a time; their period and numbers."""
    limits = replace(services.limits, batch_messages_max=1, in_flight_max=2)
    slow = replace(services, providers={**services.providers, Channel.EMAIL: distant}, limits=limits)
    people = [f"c-{number}" for number in range(4)]
    add_people(services, *(person(each, number) for number, each in enumerate(people)))
    submit(slow, people, channels=["email"], rate_per_second=2)  # a chunk holds what leaves in one second
    with lend(services.pool) as connection:
        connection.execute("UPDATE campaigns SET spec = spec - 'rate_per_second'")
        connection.execute("UPDATE chunks SET due_at = '2020-01-01'")
    dues = scheduler.due_chunks(slow)
    return slow, dues[0].period, [number for due in dues for number in due.numbers]


def open_chunks(services: Services) -> list[int]:
    with lend(services.pool) as connection:
        return [number for (number,) in connection.execute("SELECT chunk FROM chunks WHERE done_at IS NULL ORDER BY chunk")]


def test_the_next_chunk_is_begun_while_the_last_messages_travel(services: Services) -> None:
    distant = DistantOutbox(Channel.EMAIL)
    slow, period, numbers = two_chunks(services, distant)
    claimed_before_answer: list[int] = []

    def is_superfluous(_number: int) -> bool:
        claimed_before_answer.append(states(services).get("claimed", 0))
        return False

    run_chunks(slow, period, numbers, is_superfluous)
    assert claimed_before_answer == [0, 2]
    assert states(services) == {"accepted": 4}
    assert open_chunks(services) == []


def test_what_a_task_had_no_time_for_is_published_again_at_once(services: Services, clock: Clock) -> None:
    slow, period, numbers = two_chunks(services, DistantOutbox(Channel.EMAIL))
    hasty = replace(slow, limits=replace(slow.limits, chunk_seconds=0))
    run_chunks(hasty, period, numbers)
    assert states(services) == {"accepted": 1, "pending": 3}
    clock.pass_(1)
    assert [number for due in scheduler.due_chunks(slow) for number in due.numbers] == numbers
    work(slow)
    run_chunks(slow, period, numbers)
    assert states(services) == {"accepted": 4}


def test_a_chunk_that_another_worker_has_is_left_out(services: Services) -> None:
    slow, period, numbers = two_chunks(services, DistantOutbox(Channel.EMAIL))
    run_chunks(slow, period, numbers, lambda number: number == numbers[0])
    assert states(services) == {"accepted": 2, "pending": 2}
    assert open_chunks(services) == numbers[:1]


@dataclass(eq=False)
class RefusingOutbox(DistantOutbox):
    """It answers the first batch that the key is wrong."""

    def send(self, batch: Sequence[Outbound], window: SendWindow) -> Iterator[tuple[Outbound, Result]]:
        """See `channels.base.Provider`."""
        is_first = not self.on_their_way
        for outbound, result in super().send(batch, window):
            yield outbound, Misconfigured("unauthorized") if is_first else result


def test_a_channel_that_stops_also_stops_the_batch_that_waits(services: Services) -> None:
    refusing = RefusingOutbox(Channel.EMAIL)
    slow, period, numbers = two_chunks(services, refusing)
    one_by_one = replace(slow, limits=replace(slow.limits, in_flight_max=1))
    run_chunks(one_by_one, period, numbers)
    assert len(refusing.sent) == 1
    assert states(services) == {"waiting": 4}


@dataclass(eq=False)
class SlowOutbox(DistantOutbox):
    """Each wait for it takes two seconds."""

    clock: Clock = field(default_factory=Clock)

    def poll(self, seconds_max: float) -> bool:
        """See `channels.overlap.Waiting`."""
        self.clock.pass_(2 if seconds_max else 0)
        return super().poll(seconds_max)


def test_what_waited_for_the_batches_before_it_is_decided_again(services: Services, clock: Clock) -> None:
    slow, period, numbers = two_chunks(services, SlowOutbox(Channel.EMAIL, clock=clock))
    expiry = {"expires_at": (clock() + timedelta(seconds=3)).isoformat()}
    with lend(services.pool) as connection:
        connection.execute("UPDATE campaigns SET spec = spec || %s", (Jsonb(expiry),))
    limits = replace(slow.limits, in_flight_max=1)
    run_chunks(replace(slow, limits=limits, monotonic_clock=lambda: clock().timestamp()), period, numbers)
    assert states(services) == {"accepted": 2, "expired": 2}


def test_a_choice_made_after_gathering_is_seen_by_the_gate(services: Services) -> None:
    add_people(services, person("c-1", 1), person("c-2", 2))
    submit(services, ["c-1", "c-2"])
    due = scheduler.due_chunks(services)[0]
    with lend(services.pool) as connection:
        chunk = find_chunk(connection, due.period, due.number)
        assert chunk is not None
        prepared = [prepare(services, chunk, candidate, {}) for candidate in gather(connection, chunk)]
        say(services, "c-2", "channel:email", "off")
        claim = claims.claim(connection, chunk, [item.entry for item in prepared], services.clock())
    assert {ref.row for ref in claim.claimed} == {0}
    assert claim.changed == {1}


def test_an_opt_out_waits_for_a_claim_and_never_slips_past_it(services: Services) -> None:
    add_people(services, person("c-1"))
    submit(services, ["c-1"])
    due = scheduler.due_chunks(services)[0]
    opted_out = threading.Event()

    def opt_out() -> None:
        say(services, "c-1", "channel:email", "off")
        opted_out.set()

    with lend(services.pool) as connection:
        chunk = find_chunk(connection, due.period, due.number)
        assert chunk is not None
        entries = [prepare(services, chunk, candidate, {}).entry for candidate in gather(connection, chunk)]
        with connection.transaction():
            assert claims.claim(connection, chunk, entries, services.clock()).claimed
            thread = threading.Thread(target=opt_out)
            thread.start()
            assert not opted_out.wait(0.3)  # the claim's lock keeps it waiting
        thread.join()
        assert opted_out.is_set()


def test_two_workers_on_one_chunk_send_nothing_twice(services: Services, database: str, clock: Clock) -> None:
    recipients = [f"c-{number}" for number in range(60)]
    add_people(services, *(person(recipient_id, number) for number, recipient_id in enumerate(recipients)))
    submit(services, recipients)
    due = scheduler.due_chunks(services)[0]
    with make_services(database, clock) as other:
        threads = [
            threading.Thread(target=run_chunk, args=(each, due.period, due.number)) for each in (services, other, services, other)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sent = [outbound.address for outbound in (*outbox(services).sent, *outbox(other).sent)]
    assert sorted(sent) == sorted(f"{recipient_id}@example.org" for recipient_id in recipients)


# -- what providers answer ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (Rejected("400"), "failed"),
        (BadAddress("21211"), "failed"),
        (OptedOut("21610"), "failed"),
        (Throttled("429", retry_after_seconds=30), "waiting"),
        (Unavailable("connect"), "waiting"),
        (Uncertain("read"), "unresolved"),
        (Misconfigured("401"), "waiting"),
    ],
)
def test_each_error_has_its_one_action(services: Services, answer: ChannelError, state: str) -> None:
    add_people(services, person("c-1", 1), person("c-2", 2))
    outbox(services).answers["c-1@example.org"] = answer
    submit(services, ["c-1", "c-2"])
    work(services)
    assert states(services) == {state: 1, "accepted": 1}
    assert message(services, "c-1").reason == answer.code
    if isinstance(answer, Misconfigured):
        with lend(services.pool) as connection:
            assert stopped_channels.stopped(connection) == {Channel.EMAIL: "401"}


def test_what_may_have_gone_is_never_sent_again(services: Services, clock: Clock) -> None:
    add_people(services, person("c-1"))
    outbox(services).answers["c-1@example.org"] = Uncertain("read")
    submit(services, ["c-1"])
    for _ in range(5):
        work(services)
        clock.pass_(3600)
    assert len(outbox(services).sent) == 1


def test_throttling_costs_no_attempt_and_the_message_leaves_later(services: Services, clock: Clock) -> None:
    add_people(services, person("c-1"))
    outbox(services).answers["c-1@example.org"] = Throttled("429", retry_after_seconds=30)
    submit(services, ["c-1"])
    work(services)
    outbox(services).answers.clear()
    assert message(services, "c-1").attempts == 0
    clock.pass_(60)
    work(services)
    assert states(services) == {"accepted": 1}


def test_attempts_run_out_and_a_dead_message_can_be_replayed(services: Services, clock: Clock) -> None:
    add_people(services, person("c-1"))
    outbox(services).answers["c-1@example.org"] = Unavailable("connect")
    submit(services, ["c-1"])
    for _ in range(services.policy.retry.attempts_max):
        work(services)
        clock.pass_(7200)
    assert states(services) == {"dead": 1}
    outbox(services).answers.clear()
    ref = message(services, "c-1").ref
    with lend(services.pool) as connection:
        assert [dead for dead, *_ in dead_letters.newest(connection, "spring", 10)] == [ref]
        assert dead_letters.newest(connection, "another", 10) == []
        assert dead_letters.replay(connection, [ref], services.clock()).replayed == 1
        assert dead_letters.newest(connection, None, 10) == []
        assert connection.execute("SELECT count(*) FROM dead_letters").fetchone() == (0,)
    work(services)
    assert states(services) == {"accepted": 1}


def test_a_stopped_channel_keeps_its_messages_and_sends_them_when_it_is_mended(services: Services, clock: Clock) -> None:
    recipients = [f"c-{number}" for number in range(3)]
    add_people(services, *(person(recipient_id, number) for number, recipient_id in enumerate(recipients)))
    outbox(services).answers[""] = Misconfigured("401")
    submit(services, recipients)
    work(services)
    assert states(services) == {"waiting": 3}
    outbox(services).answers.clear()
    clock.pass_(3600)
    work(services)
    assert states(services) == {"waiting": 3}  # no check has started the channel again
    with lend(services.pool) as connection:
        assert stopped_channels.lift(connection, Channel.EMAIL, clock())
    work(services)  # they do not wait until the time of their next attempt
    assert states(services) == {"accepted": 3}


def test_a_no_that_only_the_provider_knew_is_on_record_and_holds_for_the_next_campaign(services: Services) -> None:
    add_people(services, person("c-1"))
    outbox(services, Channel.SMS).answers["+32470000001"] = OptedOut("21610")
    submit(services, ["c-1"], channels=["sms"])
    work(services)
    with lend(services.pool) as connection:
        history = events.history(connection, "c-1")
    assert (history[-1].subject, history[-1].new_value, history[-1].source) == ("channel:sms_whatsapp", "off", "provider")
    submit(services, ["c-1"], campaign_id="summer", channels=["whatsapp"])
    work(services)
    assert balance(services, "summer").reasons == {"channel_off": 1}


# -- lost workers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("started", "end", "sent"), [(True, {"unresolved": 2, "accepted": 3}, 3), (False, {"accepted": 5}, 5)])
def test_a_lost_worker_leaves_unresolved_only_what_it_started(
    services: Services, clock: Clock, started: bool, end: dict[str, int], sent: int
) -> None:
    recipients = [f"c-{number}" for number in range(5)]
    add_people(services, *(person(recipient_id, number) for number, recipient_id in enumerate(recipients)))
    submit(services, recipients)
    due = scheduler.due_chunks(services)[0]
    with lend(services.pool) as connection:  # a worker claims two, and is killed before or after the first byte leaves
        chunk = find_chunk(connection, due.period, due.number)
        assert chunk is not None
        entries = [prepare(services, chunk, candidate, {}).entry for candidate in gather(connection, chunk)][:2]
        claim = claims.claim(connection, chunk, entries, services.clock())
        assert len(claim.claimed) == 2
        if started:
            assert claims.record_claim_start(connection, claim.number)
        # claimed by the test's clock, not the database's
        connection.execute("UPDATE messages SET claimed_at = %s WHERE state = 'claimed'", (clock.now,))
    work(services)
    assert states(services)["claimed"] == 2  # within the lease the worker may still come back
    clock.pass_(services.limits.lease_seconds + 1)
    work(services)
    assert states(services) == end
    assert len(outbox(services).sent) == sent
    with lend(services.pool) as connection:
        assert not started or claims.record_claim_start(connection, claim.number)
        assert started or not claims.record_claim_start(
            connection, claim.number
        )  # it was revoked: the worker may not start it any more
        campaign = lifecycle.find(connection, "spring")
    assert campaign is not None
    assert campaign.state is CampaignState.FINISHED


# -- campaigns ---------------------------------------------------------------------------------------------------------


def test_the_same_campaign_again_is_known_and_another_one_under_its_id_is_refused(services: Services) -> None:
    add_people(services, person("c-1"))
    assert submit(services, ["c-1"]).status is SubmitStatus.NEW
    assert submit(services, ["c-1"]).status is SubmitStatus.KNOWN
    assert submit(services, ["c-1", "c-2"]).status is SubmitStatus.CONFLICT
    work(services)
    assert len(outbox(services).sent) == 1


def test_rows_that_cannot_be_read_are_counted_told_and_stop_nobody(services: Services) -> None:
    services = replace(services, policy=replace(services.policy, files=FileRules(invalid_max_percent=75)))
    add_people(services, person("c-1"))
    rows = [{"recipient": "c-1", "data": OFFER}, {"recipient": 7}, "x", {"recipient": "c-2", "data": {"amount": "a lot"}}]
    admission = submit(services, [], audience=rows)
    assert (admission.audience, admission.invalid) == (1, 3)
    work(services)
    assert states(services) == {"accepted": 1}
    with lend(services.pool) as connection:
        campaign = lifecycle.find(connection, "spring")
        assert campaign is not None
        assert [(line, field) for line, field, _ in lifecycle.audience_errors(connection, campaign.no, 10)] == [
            (2, "recipient"),
            (3, ""),
            (4, "data.amount"),
        ]


def test_a_campaign_whose_audience_breaks_off_is_not_there_at_all(services: Services) -> None:
    parsed = parse_campaign({"id": "spring", "template": "loan_offer", "audience": []}, submission.validation_context(services))

    def broken() -> Iterator[Any]:
        yield from ()
        raise BadInput

    with pytest.raises(BadInput):
        submission.submit(services, type(parsed)(parsed.id, parsed.spec, broken()))
    with lend(services.pool) as connection:
        assert lifecycle.find(connection, "spring") is None


def test_a_dry_run_counts_as_the_campaign_would_and_leaves_nothing(services: Services) -> None:
    add_people(services, person("c-1", 1), person("c-2", 2, offers={"own": "none"}))
    rows = [{"recipient": recipient_id, "data": OFFER} for recipient_id in ("c-1", "c-2", "c-1")]
    form = {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": rows}
    result = dry_run.dry_run(services, parse_campaign(form, submission.validation_context(services)))
    assert result.audience == 3
    assert result.states == {"sendable": 1, "refused": 2}
    assert result.reasons == {"choice_none": 1, "duplicate": 1}
    assert not outbox(services).sent
    with lend(services.pool) as connection:
        assert not lifecycle.newest(connection, 10)
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (0,)


def test_a_paused_campaign_claims_nothing_and_goes_on_when_resumed(services: Services) -> None:
    add_people(services, person("c-1"))
    submit(services, ["c-1"])
    due = scheduler.due_chunks(services)[0]
    with lend(services.pool) as connection:
        assert lifecycle.pause_by_id(connection, "spring", services.clock())
    run_chunk(services, due.period, due.number)
    assert states(services) == {"pending": 1}
    with lend(services.pool) as connection:
        assert lifecycle.resume(connection, "spring", services.clock())
    work(services)
    assert states(services) == {"accepted": 1}


def test_a_cancelled_campaign_sends_nothing_more_and_still_adds_up(services: Services, clock: Clock) -> None:
    clock.pass_(12 * 3600)
    recipients = [f"c-{number}" for number in range(4)]
    add_people(services, *(person(recipient_id, number) for number, recipient_id in enumerate(recipients)))
    submit(services, recipients, rate_per_second=2, channels=["sms"])
    work(services)  # the first two are held, the others are not due yet
    with lend(services.pool) as connection:
        assert lifecycle.cancel(connection, "spring", services.clock())
    clock.pass_(24 * 3600)
    work(services)
    assert states(services) == {"cancelled": 4}
    assert not outbox(services, Channel.SMS).sent


def test_a_rate_is_kept_and_a_scheduled_campaign_waits_for_its_moment(services: Services, clock: Clock) -> None:
    recipients = [f"c-{number}" for number in range(6)]
    add_people(services, *(person(recipient_id, number) for number, recipient_id in enumerate(recipients)))
    submit(services, recipients, rate_per_second=2, send_at=(clock.now + timedelta(hours=1)).isoformat())
    seen = []
    for seconds in (0, 3599, 1, 1, 1):
        clock.pass_(seconds)
        work(services)
        seen.append(len(outbox(services).sent))
    assert seen == [0, 0, 2, 4, 6]


def test_an_expired_campaign_ends_as_expired_not_late(services: Services, clock: Clock) -> None:
    add_people(services, person("c-1"))
    submit(services, ["c-1"], expires_at=(clock.now + timedelta(hours=1)).isoformat())
    clock.pass_(3601)
    work(services)
    assert states(services) == {"expired": 1}


def test_the_global_control_group_is_named_in_results_and_explained(services: Services) -> None:
    text = shipped().replace("global_percent = 0\n", "global_percent = 10\n")
    services = replace(services, policy=parse(text))
    with lend(services.pool) as connection:
        policies.store_policy(connection, services.policy.digest, text)
        policies.adopt(connection, services.policy.digest, "tests", services.clock())
    add_people(services, person("c-1", 1), person("c-33", 33))
    rows = [{"recipient": recipient_id, "data": OFFER} for recipient_id in ("c-1", "c-33")]
    form = {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": rows}
    planned = dry_run.dry_run(services, parse_campaign(form, submission.validation_context(services)))
    assert (planned.states, planned.reasons) == ({"sendable": 1, "held_out": 1}, {"global_control_group": 1})
    submit(services, ["c-1", "c-33"])
    work(services)
    assert states(services) == {"accepted": 1, "held_out": 1}
    assert balance(services).reasons == {"global_control_group": 1}
    held_out = message(services, "c-33")
    for language, part in {"nl": "loting", "fr": "tiré au sort", "de": "ausgeloste", "en": "chosen at random"}.items():
        assert part in explain_to_customer(services, held_out, language).text


def test_a_control_group_is_left_out_on_purpose_and_counted(services: Services) -> None:
    recipients = [f"c-{number}" for number in range(40)]
    add_people(services, *(person(recipient_id, number) for number, recipient_id in enumerate(recipients)))
    submit(services, recipients, holdout_percent=50)
    work(services)
    counted = states(services)
    assert counted["held_out"] + counted["accepted"] == 40
    assert 5 < counted["held_out"] < 35


# -- triggers and provider events --------------------------------------------------------------------------------------


def test_a_trigger_s_key_is_one_job_whatever_happens(services: Services) -> None:
    add_people(services, person("c-1"))
    job: dict[str, Any] = {"key": "k-1", "recipient": "c-1", "template": "optout_acknowledgement", "data": {}}
    first = submission.take_trigger(services, parse_trigger(job, submission.validation_context(services)))
    retry_hint = submission.take_trigger(services, parse_trigger(job, submission.validation_context(services)))
    assert (first.period, first.chunk) == (retry_hint.period, retry_hint.chunk)
    for place in (first, retry_hint):
        run_chunk(services, place.period, place.chunk)
    assert len(outbox(services).sent) == 1
    with pytest.raises(BadInput, match="key"):
        submission.take_trigger(services, parse_trigger({**job, "recipient": "c-2"}, submission.validation_context(services)))


def test_a_service_message_reaches_who_objects_to_marketing(services: Services) -> None:
    add_people(services, person("c-1", object_marketing=True, channels={"email": False, "push": False, "sms_whatsapp": False}))
    job = {"key": "k-1", "recipient": "c-1", "template": "optout_acknowledgement", "data": {}}
    place = submission.take_trigger(services, parse_trigger(job, submission.validation_context(services)))
    run_chunk(services, place.period, place.chunk)
    assert len(outbox(services).sent) == 1


def test_news_that_overtakes_the_receipt_is_kept(services: Services) -> None:
    add_people(services, person("c-1"))
    submit(services, ["c-1"])
    work(services)
    ref = message(services, "c-1").ref
    with lend(services.pool) as connection:
        connection.execute("UPDATE messages SET state = 'claimed', receipt = NULL, claim_no = 7")
    event = Event("sendgrid", "e-1", Channel.EMAIL, EventKind.DELIVERED, services.clock(), str(ref))
    assert provider_events.store_events(services, [event, event]) == 1
    assert provider_events.apply_batch(services, lambda _: None) == 1
    with lend(services.pool) as connection:
        late = settlements.Settlement(ref, State.ACCEPTED, None, None, "r-1", "sendgrid", attempt_spent=True)
        settlements.settle(connection, 7, [late], services.clock())
    settled = message(services, "c-1")
    assert (settled.state, settled.receipt) == (State.DELIVERED, "r-1")


def test_a_bounce_suppresses_the_address_for_everybody_who_has_it(services: Services) -> None:
    add_people(services, person("c-1", 1), person("c-2", 2, email="c-1@example.org"))
    submit(services, ["c-1"])
    work(services)
    event = Event(
        "sendgrid", "e-1", Channel.EMAIL, EventKind.BOUNCED, services.clock(), str(message(services, "c-1").ref), code="550"
    )
    provider_events.store_events(services, [event])
    provider_events.apply_batch(services, lambda _: None)
    assert states(services) == {"bounced": 1}
    submit(services, ["c-2"], campaign_id="summer")
    work(services)
    assert balance(services, "summer").reasons == {"suppressed": 1}


def test_a_no_that_only_the_provider_knew_is_recorded_and_acknowledged_in_the_senders_name(
    services: Services, clock: Clock
) -> None:
    add_people(services, person("c-1"))
    outbox(services, Channel.SMS).answers[""] = OptedOut("21610")
    submit(services, ["c-1"], channels=["sms"], entity="cbc-banque")
    work(services)
    with lend(services.pool) as connection:
        said = events.history(connection, "c-1")[-1]
    assert (said.subject, said.new_value, said.source, said.actor) == ("channel:sms_whatsapp", "off", "provider", "outbox")
    clock.pass_(services.limits.lease_seconds + 1)
    work(services)
    (mail,) = outbox(services).sent
    assert isinstance(mail.content, Email)
    assert mail.content.sender_name == "CBC Banque"


def test_a_mail_has_the_look_of_the_entity_that_sends_it(services: Services) -> None:
    add_people(services, person("c-1"))
    for entity in ("kbc-bank", "cbc-banque"):
        submit(services, ["c-1"], campaign_id=entity, entity=entity)
        work(services)
    themes = services.catalog["loan_offer"].themes
    for entity, sent in zip(("kbc-bank", "cbc-banque"), outbox(services).sent, strict=True):
        mail = assemble(sent.content)
        assert isinstance(mail, Email)
        assert all(text in mail.html for text in (themes[entity].colours["header"], themes[entity].logo_url["nl"]))


def test_news_of_a_no_is_acknowledged_once_but_not_to_the_address_that_said_it(services: Services) -> None:
    add_people(services, person("c-1"), person("c-2", 2))
    submit(services, ["c-1"], channels=["sms"])
    submit(services, ["c-2"], campaign_id="summer")
    work(services)
    by_text, by_mail = (str(message(services, who, name).ref) for who, name in (("c-1", "spring"), ("c-2", "summer")))
    dues: list[DueChunk] = []
    for number in range(2):
        said = Event("twilio", f"t-{number}", Channel.SMS, EventKind.OPTED_OUT, services.clock(), by_text, code="21610")
        complained = Event("sendgrid", f"s-{number}", Channel.EMAIL, EventKind.COMPLAINED, services.clock(), by_mail)
        provider_events.store_events(services, [said, complained])
        provider_events.apply_batch(services, dues.extend)
    assert len(dues) == 2
    for due in dues:
        run_chunk(services, due.period, due.number)
    assert [sent.address for sent in outbox(services).sent[1:]] == ["c-1@example.org"]  # a complaint bans the address


def test_the_gate_is_shut_for_a_campaign_that_was_cancelled_meanwhile(services: Services) -> None:
    add_people(services, person("c-1"))
    submit(services, ["c-1"])
    due = scheduler.due_chunks(services)[0]
    with lend(services.pool) as connection:
        chunk = find_chunk(connection, due.period, due.number)
        assert chunk is not None
        entries = [prepare(services, chunk, candidate, {}).entry for candidate in gather(connection, chunk)]
        lifecycle.cancel(connection, "spring", services.clock())
        assert claims.claim(connection, chunk, entries, services.clock()).gate is CampaignGate.CLOSED

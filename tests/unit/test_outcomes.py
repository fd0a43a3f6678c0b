"""Each error has one action; and events never move a message backwards, however late, often or unordered they come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.base import (
    BadAddress,
    Channel,
    ChannelError,
    EventKind,
    Misconfigured,
    NoAddress,
    OptedOut,
    Outbound,
    Push,
    Receipt,
    Rejected,
    Result,
    RetryHint,
    Throttled,
    Unavailable,
    Uncertain,
)
from dispatcher.campaigns.complaint_brake import BrakeVerdict, brake_verdict
from dispatcher.delivery.fallback import fallback_at, fallback_seconds
from dispatcher.delivery.outcomes import (
    EventEffect,
    Outcome,
    after_event,
    after_provider_event,
    conclude,
    dead_addresses,
    event_effect,
    fold,
)
from dispatcher.delivery.retries import backoff_seconds, retry_at
from dispatcher.domain.campaign import Spec
from dispatcher.domain.message import Kind, MessageStatus, State
from dispatcher.policy.data import ComplaintBrake, RetryPolicy

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
NUMBERS = RetryPolicy(attempts_max=4, base_seconds=30, cap_seconds=100, throttle_seconds=60, stopped_seconds=300)


def after(result: Result, attempts: int = 0, random: float = 0.0) -> Outcome:
    return conclude(result, attempts, NOW, lambda: random, NUMBERS)


def seconds(outcome: Outcome) -> float:
    assert outcome.until is not None
    return (outcome.until - NOW).total_seconds()


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (Receipt("SM1"), Outcome(State.ACCEPTED, None, None, "SM1", True, False, False, False)),
        (Rejected("21617"), Outcome(State.FAILED, "21617", None, None, True, False, False, False)),
        (BadAddress("21614"), Outcome(State.FAILED, "21614", suppress=True, everywhere=False)),
        (NoAddress("21211"), Outcome(State.FAILED, "21211", suppress=True, everywhere=True)),
        (OptedOut("21610"), Outcome(State.FAILED, "21610", suppress=True, opt_out=True)),
        (Uncertain("lost_answer"), Outcome(State.UNRESOLVED, "lost_answer")),
        (ChannelError("never_heard_of"), Outcome(State.UNRESOLVED, "never_heard_of")),
        (
            Misconfigured("20003"),
            Outcome(State.WAITING, "20003", NOW + timedelta(minutes=5), attempt_spent=False, stop_channel=True),
        ),
        (Throttled("429"), Outcome(State.WAITING, "429", NOW + timedelta(minutes=1), attempt_spent=False)),
        (Unavailable("connect"), Outcome(State.WAITING, "connect", NOW)),
    ],
)
def test_each_result_has_one_action(result: Result, outcome: Outcome) -> None:
    assert after(result) == outcome


def test_every_error_class_is_mapped() -> None:
    unknown = {kind for kind in ChannelError.__subclasses__() if after(kind("code")).state is State.UNRESOLVED}
    assert unknown == {Uncertain}


@pytest.mark.parametrize(
    ("retry_after", "random", "least", "most"),
    [
        (7.0, 0.0, 7, 7),
        (7.0, 0.999, 7.1, 9),
        (0.0, 0.5, 0, 0),
        (None, 0.0, 60, 60),
        (-3.0, 0.0, 60, 60),
        (float("nan"), 0.0, 60, 60),
        (float("inf"), 0.0, 86_400, 86_400),
        (1e12, 0.999, 86_401, 108_000),
    ],
)
def test_a_throttled_message_waits_as_requested_up_to_a_limit(
    retry_after: float | None, random: float, least: float, most: float
) -> None:
    outcome = after(Throttled("429", retry_after_seconds=retry_after), attempts=99, random=random)
    assert least <= seconds(outcome) <= most
    assert not outcome.attempt_spent
    assert outcome.state is State.WAITING


def test_backoff_doubles_up_to_the_cap_with_full_jitter() -> None:
    assert [backoff_seconds(attempts, lambda: 1.0, NUMBERS) for attempts in range(4)] == [30, 60, 100, 100]
    assert backoff_seconds(2, lambda: 0.5, NUMBERS) == 50
    assert backoff_seconds(1, lambda: 0.0, NUMBERS) == 0
    assert backoff_seconds(10**6, lambda: 1.0, NUMBERS) == 100


def test_the_next_attempt_is_delayed_by_the_random_backoff() -> None:
    assert [seconds(after(Unavailable("connect"), attempts, 0.5)) for attempts in range(3)] == [15, 30, 50]


def test_attempts_are_limited() -> None:
    states = [after(Unavailable("connect"), attempts).state for attempts in range(6)]
    assert states == [State.WAITING] * 3 + [State.DEAD] * 3
    assert after(Unavailable("connect"), 3) == Outcome(State.DEAD, "connect")


def test_only_a_waiting_message_has_a_next_attempt() -> None:
    for kind in (*ChannelError.__subclasses__(), Receipt):
        outcome = after(kind("code"))
        assert (outcome.until is not None) == (outcome.state is State.WAITING)


# -- several devices ---------------------------------------------------------------------------------------------------

WEAKEST_LAST: list[Result] = [
    Receipt("fcm-1"),
    Uncertain("lost"),
    Misconfigured("sender_id_mismatch"),
    Throttled("quota"),
    Unavailable("connect"),
    OptedOut("said_no"),
    Rejected("too_big"),
    BadAddress("unregistered"),
]


@pytest.mark.parametrize("first", range(len(WEAKEST_LAST)))
def test_the_strongest_result_of_several_devices_counts(first: int) -> None:
    rest = WEAKEST_LAST[first : first + 4]
    assert {fold(order) for order in permutations(rest)} == {WEAKEST_LAST[first]}


def test_an_unknown_error_counts_as_uncertain() -> None:
    strange = ChannelError("strange")
    assert fold([Misconfigured("key"), Unavailable("connect"), strange, BadAddress("x")]) is strange


def test_folding_nothing_is_a_bug() -> None:
    with pytest.raises(ValueError, match=r"^no results to fold$"):
        fold([])


def test_dead_devices_are_named_for_every_result_of_a_message() -> None:
    one, two, three = (Outbound("m-1", Channel.PUSH, token, Push("t", "b")) for token in ("one", "two", "three"))
    results: list[tuple[Outbound, Result]] = [(one, BadAddress("gone")), (two, Receipt("r")), (three, Unavailable("c"))]
    assert dead_addresses(results) == [one]


# -- later events ------------------------------------------------------------------------------------------------------

NEVER_LEFT = {State.PENDING, State.HELD, State.REFUSED, State.EXPIRED, State.CANCELLED, State.HELD_OUT}


def state_after(state: State, events: list[EventKind]) -> State:
    for kind in events:
        state = after_event(state, kind) or state
    return state


@pytest.mark.parametrize(
    ("state", "kind", "then"),
    [
        (State.CLAIMED, EventKind.ACCEPTED, State.ACCEPTED),
        (State.CLAIMED, EventKind.DELIVERED, State.DELIVERED),
        (State.UNRESOLVED, EventKind.ACCEPTED, State.ACCEPTED),
        (State.UNRESOLVED, EventKind.DELIVERED, State.DELIVERED),
        (State.UNRESOLVED, EventKind.FAILED, State.FAILED),
        (State.WAITING, EventKind.DELIVERED, State.DELIVERED),
        (State.WAITING, EventKind.ACCEPTED, State.ACCEPTED),
        (State.DEAD, EventKind.ACCEPTED, State.ACCEPTED),
        (State.ACCEPTED, EventKind.DELIVERED, State.DELIVERED),
        (State.ACCEPTED, EventKind.FAILED, State.FAILED),
        (State.ACCEPTED, EventKind.ENGAGED, State.DELIVERED),
        (State.FAILED, EventKind.DELIVERED, State.DELIVERED),
        (State.FAILED, EventKind.ACCEPTED, None),
        (State.DELIVERED, EventKind.ACCEPTED, None),
        (State.DELIVERED, EventKind.DELIVERED, None),
        (State.DELIVERED, EventKind.BOUNCED, State.BOUNCED),
        (State.BOUNCED, EventKind.DELIVERED, None),
        (State.BOUNCED, EventKind.READ, State.READ),
        (State.READ, EventKind.DELIVERED, None),
        (State.READ, EventKind.COMPLAINED, State.COMPLAINED),
        (State.COMPLAINED, EventKind.READ, None),
        (State.ACCEPTED, EventKind.DEFERRED, None),
        (State.ACCEPTED, EventKind.OPTED_OUT, None),
        (State.ACCEPTED, EventKind.OPTED_IN, None),
        (State.ACCEPTED, EventKind.UNKNOWN, None),
    ],
)
def test_the_effect_of_an_event_on_a_message(state: State, kind: EventKind, then: State | None) -> None:
    assert after_event(state, kind) is then


@pytest.mark.parametrize("state", sorted(NEVER_LEFT))
@pytest.mark.parametrize("kind", EventKind)
def test_an_event_does_not_change_a_message_that_was_not_sent(state: State, kind: EventKind) -> None:
    assert after_event(state, kind) is None


events = st.lists(st.sampled_from(EventKind), max_size=6)


@given(st.sampled_from(State), events, st.data())
def test_events_in_any_order_and_number_give_the_same_state(state: State, kinds: list[EventKind], data: st.DataObject) -> None:
    retry_delay = data.draw(st.permutations(kinds + kinds[:2]))
    assert state_after(state, retry_delay) is state_after(state, kinds)


@given(st.sampled_from(State), events)
def test_a_message_never_returns_to_a_former_state(state: State, kinds: list[EventKind]) -> None:
    seen = [state]
    for kind in kinds:
        seen.append(after_event(seen[-1], kind) or seen[-1])
    path = [here for here, before in zip(seen[1:], seen, strict=False) if here is not before]
    assert len(path) == len(set(path))
    assert state not in path


# -- retries after a hint ----------------------------------------------------------------------------------------------

ONCE_GONE = ("SM1",)
THRICE = RetryHint(60.0, 3)


@pytest.mark.parametrize(
    ("state", "kind", "attempt", "then"),
    [
        (State.WAITING, EventKind.ACCEPTED, "SM1", None),  # a late event of the attempt that reached nobody
        (State.WAITING, EventKind.FAILED, "SM1", None),
        (State.WAITING, EventKind.BOUNCED, "SM1", None),
        (State.ACCEPTED, EventKind.FAILED, "SM1", None),
        (State.CLAIMED, EventKind.ACCEPTED, "SM1", None),
        (State.WAITING, EventKind.DELIVERED, "SM1", State.DELIVERED),  # it arrived after all
        (State.PENDING, EventKind.DELIVERED, "SM1", State.DELIVERED),
        (State.HELD, EventKind.READ, "SM1", State.READ),
        (State.HELD, EventKind.COMPLAINED, "SM1", State.COMPLAINED),
        (State.FAILED, EventKind.ENGAGED, "SM1", State.DELIVERED),
        (State.REFUSED, EventKind.DELIVERED, "SM1", None),
        (State.CLAIMED, EventKind.ACCEPTED, "SM2", State.ACCEPTED),  # an event of the current attempt
        (State.ACCEPTED, EventKind.FAILED, "SM2", State.FAILED),
        (State.PENDING, EventKind.DELIVERED, "SM2", None),
    ],
)
def test_an_event_counts_only_for_its_own_attempt(state: State, kind: EventKind, attempt: str, then: State | None) -> None:
    assert after_provider_event(MessageStatus(state, 2, ONCE_GONE), kind, attempt) is then


def retry_delay(
    status: MessageStatus, spec: Spec | None = None, random: float = 0.0, retry_after: RetryHint | None = THRICE
) -> float | None:
    at = retry_at(retry_after, status, fallback_seconds(spec, Channel.PUSH), NOW, lambda: random, NUMBERS)
    return (at - NOW).total_seconds() if at else None


def test_a_returned_message_waits_twice_as_long_each_time() -> None:
    waits = [retry_delay(MessageStatus(State.ACCEPTED, 1, ONCE_GONE * returns)) for returns in range(5)]
    assert waits == [60.0, 120.0, 240.0, None, None]
    assert [retry_delay(MessageStatus(State.ACCEPTED, attempts)) for attempts in range(3, 6)] == [60.0, None, None]
    assert retry_delay(MessageStatus(State.ACCEPTED), random=1.0) == 75.0


def test_no_retry_without_a_hint_or_after_a_cancellation() -> None:
    assert retry_delay(MessageStatus(State.ACCEPTED), retry_after=None) is None
    assert retry_delay(MessageStatus(State.ACCEPTED, cancelled=True)) is None


def test_a_spec_without_a_fallback_time_has_no_fallback() -> None:
    spec = Spec("t", "e", (Channel.PUSH, Channel.EMAIL), Kind.COMMERCIAL)
    assert fallback_seconds(spec, Channel.PUSH) is None
    assert retry_delay(MessageStatus(State.ACCEPTED), spec) == 60.0


def test_a_fallback_that_is_due_sooner_replaces_the_retry() -> None:
    short, long = (Spec("t", "e", (Channel.PUSH, Channel.EMAIL), Kind.COMMERCIAL, fallback_after_seconds=n) for n in (59, 60))
    assert [retry_delay(MessageStatus(State.ACCEPTED), spec) for spec in (short, long)] == [None, 60.0]
    last = Spec("t", "e", (Channel.EMAIL, Channel.PUSH), Kind.COMMERCIAL, fallback_after_seconds=1)
    assert retry_delay(MessageStatus(State.ACCEPTED), last) == 60.0


# -- the next channel --------------------------------------------------------------------------------------------------

WITH_FALLBACK = Spec("t", "e", (Channel.PUSH, Channel.EMAIL), Kind.COMMERCIAL, fallback_after_seconds=90)


@pytest.mark.parametrize("state", State)
def test_a_fallback_starts_at_once_after_a_failure_else_in_time(state: State) -> None:
    after_failure = dict.fromkeys((State.FAILED, State.DEAD, State.BOUNCED), NOW)
    due = {State.ACCEPTED: NOW + timedelta(seconds=90), **after_failure}
    assert fallback_at(WITH_FALLBACK, Channel.PUSH, state, NOW) == due.get(state)


@pytest.mark.parametrize("state", [State.ACCEPTED, State.FAILED])
def test_no_fallback_after_the_last_channel_or_without_option(state: State) -> None:
    without = Spec("t", "e", (Channel.PUSH, Channel.EMAIL), Kind.COMMERCIAL)
    assert fallback_at(WITH_FALLBACK, Channel.EMAIL, state, NOW) is None
    assert fallback_at(without, Channel.PUSH, state, NOW) is None
    assert fallback_at(None, Channel.PUSH, state, NOW) is None


# -- the complaint brake -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("taken", "complained", "bounced", "says"),
    [
        (999, 999, 999, None),
        (1000, 9, 99, None),
        (1000, 10, 99, BrakeVerdict(False, "warning: 1.00% of 1,000 messages complained; the limit is 1.00%")),
        (2000, 39, 0, BrakeVerdict(False, "warning: 1.95% of 2,000 messages complained; the limit is 1.00%")),
        (2000, 40, 0, BrakeVerdict(True, "paused itself: 2.00% of 2,000 messages complained; the limit is 2.00%")),
        (2000, 20, 200, BrakeVerdict(True, "paused itself: 10.00% of 2,000 messages bounced; the limit is 10.00%")),
        (2000, 50, 200, BrakeVerdict(True, "paused itself: 2.50% of 2,000 messages complained; the limit is 2.00%")),
    ],
)
def test_the_complaint_brake_pauses_exactly_at_its_limits(
    taken: int, complained: int, bounced: int, says: BrakeVerdict | None
) -> None:
    limits = ComplaintBrake(complaint_rate_warn=0.01, complaint_rate_pause=0.02, bounce_rate_pause=0.1, minimum=1000)
    assert brake_verdict(limits, taken, complained, bounced) == says


def test_the_effect_of_an_event_on_address_and_person() -> None:
    assert {kind: event_effect(kind) for kind in EventKind if event_effect(kind) != EventEffect()} == {
        EventKind.BOUNCED: EventEffect(suppress=True, opt_out=False, lift=False),
        EventKind.COMPLAINED: EventEffect(suppress=True, opt_out=True),
        EventKind.OPTED_OUT: EventEffect(suppress=True, opt_out=True),
        EventKind.OPTED_IN: EventEffect(lift=True),
        EventKind.HALTED: EventEffect(stop_channel=True),
    }

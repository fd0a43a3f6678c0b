"""Rules about time: ages, quiet hours, silent days and frequency caps."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from channels.base import Channel
from dispatcher.domain.decision import Hold, Reason, ReasonCode, Refuse, Send
from dispatcher.domain.message import OfferType
from dispatcher.policy import decide, parse, shipped
from dispatcher.policy.quiet_hours import QuietHours, next_time
from tests.support.policy_decisions import POLICY, codes, decide_scenario
from tests.support.strategies import (
    NOON,
    PolicyScenario,
    received,
    sendable,
)

# -- clocks ------------------------------------------------------------------------------------------------------------


def test_a_birthday_counts_by_the_recipients_own_calendar() -> None:
    scenario = sendable().with_facts(birth_date=date(2008, 11, 24), timezone="Pacific/Auckland")
    eve_in_brussels = datetime(2026, 11, 23, 11, 0, tzinfo=UTC)  # midnight in Auckland
    assert isinstance(decide_scenario(replace(scenario, now=eve_in_brussels).with_job(channels=(Channel.EMAIL,))), Send)
    assert codes(decide_scenario(replace(scenario, now=eve_in_brussels - timedelta(seconds=1)))) >= {ReasonCode.MINOR}


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-03-29T00:15", "2026-03-29T01:30"),  # 02:30 does not exist that night: 03:30 summer time
        ("2026-10-25T00:15", "2026-10-25T01:30"),  # 02:30 comes twice: the second one
        ("2026-10-25T01:15", "2026-10-25T01:30"),
        ("2026-10-24T23:59", "2026-10-25T01:30"),
    ],
)
def test_quiet_hours_are_right_at_both_clock_changes(now: str, until: str) -> None:
    hours = QuietHours(time(22, 0), time(2, 30))
    policy = replace(POLICY, quiet_hours={Channel.SMS: hours})
    scenario = sendable(channels=(Channel.SMS,))
    start = datetime.fromisoformat(now).replace(tzinfo=UTC)
    decision = decide(scenario.job, scenario.facts, policy, start)
    assert isinstance(decision, Hold)
    assert decision.until == datetime.fromisoformat(until).replace(tzinfo=UTC)
    assert decision.until.tzinfo is UTC  # in UTC, whatever the time zone of the machine
    assert not hours.covers(decision.until.astimezone(ZoneInfo("Europe/Brussels")).time())


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-11-21T21:00", "2026-11-23T08:00"),  # from Saturday night over Sunday to Monday at nine
        ("2026-05-23T18:30", "2026-05-26T07:00"),  # the eve of Whitsun: Sunday, then a public holiday
        ("2026-12-25T11:00", "2026-12-26T08:00"),  # Christmas noon: the day after is an ordinary Saturday
        ("2026-03-28T20:00", "2026-03-30T07:00"),  # over a silent day with 23 hours
        ("2026-10-24T20:00", "2026-10-26T08:00"),  # over a silent day with 25 hours
        ("2026-11-10T22:59", "2026-11-12T08:00"),  # a minute before Armistice Day
    ],
)
def test_silent_days_hold_until_the_next_allowed_time(now: str, until: str) -> None:
    scenario = replace(sendable(channels=(Channel.SMS,)), now=datetime.fromisoformat(now).replace(tzinfo=UTC))
    decision = decide_scenario(scenario)
    assert isinstance(decision, Hold)
    assert decision.until == datetime.fromisoformat(until).replace(tzinfo=UTC)
    assert isinstance(decide_scenario(replace(scenario, now=decision.until)), Send)
    assert isinstance(decide_scenario(scenario.with_job(expires_at=decision.until)), Refuse)


@pytest.mark.parametrize("channels", [(Channel.SMS, Channel.PUSH), (Channel.PUSH, Channel.SMS)])
def test_a_hold_lasts_until_the_first_channel_opens(channels: tuple[Channel, ...]) -> None:
    evening = datetime(2026, 11, 23, 21, 0, tzinfo=UTC)
    hours = {Channel.SMS: QuietHours(time(20, 0), time(9, 0)), Channel.PUSH: QuietHours(time(20, 0), time(7, 0))}
    scenario = sendable(channels=channels)
    decision = decide(scenario.job, scenario.facts, replace(POLICY, quiet_hours=hours), evening)
    assert isinstance(decision, Hold)
    assert decision.until == datetime(2026, 11, 24, 6, 0, tzinfo=UTC)


def test_a_silent_day_ends_at_midnight_without_quiet_nights() -> None:
    siesta = QuietHours(time(12, 0), time(14, 0), weekdays=frozenset({6}))
    policy = replace(POLICY, quiet_hours={Channel.SMS: siesta})
    scenario = sendable(channels=(Channel.SMS,))
    decision = decide(scenario.job, scenario.facts, policy, datetime(2026, 11, 22, 9, 0, tzinfo=UTC))  # Sunday at ten
    assert isinstance(decision, Hold)
    assert decision.until == datetime(2026, 11, 22, 23, 0, tzinfo=UTC)  # Monday, in Brussels


def test_a_silent_day_begins_and_ends_where_the_recipient_lives() -> None:
    sunday_in_auckland = datetime(2026, 11, 21, 23, 0, tzinfo=UTC)  # there it is Sunday noon
    scenario = replace(sendable(channels=(Channel.SMS,)), now=sunday_in_auckland).with_facts(timezone="Pacific/Auckland")
    decision = decide_scenario(scenario)
    assert isinstance(decision, Hold)
    assert decision.until == datetime(2026, 11, 22, 20, 0, tzinfo=UTC)


def test_a_hold_beyond_the_expiry_time_is_an_expiry() -> None:
    night = replace(sendable(channels=(Channel.SMS,)), now=datetime(2026, 11, 23, 20, 0, tzinfo=UTC))
    morning = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
    assert decide_scenario(night.with_job(expires_at=morning + timedelta(seconds=1))) == decide_scenario(night)
    decision = decide_scenario(night.with_job(expires_at=morning))
    assert isinstance(decision, Refuse)
    assert decision.headline == Reason(ReasonCode.EXPIRED, Channel.SMS, "expiry", "job:expires_at")


@pytest.mark.parametrize(
    ("hours", "quiet"),
    [
        (QuietHours(time(12, 0), time(14, 0)), [False, True, True, False, False]),
        (QuietHours(time(14, 0), time(12, 0)), [True, False, False, True, True]),
    ],
)
def test_quiet_hours_include_their_start_and_exclude_their_end(hours: QuietHours, quiet: list[bool]) -> None:
    clocks = (time(11, 59, 59), time(12, 0), time(13, 59, 59), time(14, 0), time(23, 0))
    assert [hours.covers(clock) for clock in clocks] == quiet


@pytest.mark.parametrize(("minutes", "until"), [(-1, 0), (0, 24 * 60), (1, 24 * 60)])
def test_the_next_time_a_clock_shows_is_never_now(minutes: int, until: int) -> None:
    midnight = datetime(2026, 11, 23, tzinfo=UTC)
    assert next_time(midnight + timedelta(minutes=minutes), time(0, 0), UTC) == midnight + timedelta(minutes=until)


# -- frequency caps ----------------------------------------------------------------------------------------------------


def test_each_cap_counts_its_channels_and_offers_and_all_apply() -> None:
    caps = """
caps = [
    { name = "partner", offer_types = ["partner"], max = 1, window = "36 hours" },
    { name = "texts", channels = ["sms", "whatsapp"], max = 2, window = "calendar_day" },
]
"""
    text = shipped()
    policy = parse(caps + text[: text.index("[[caps]]")] + text[text.index("[rests]") :])

    def capped(scenario: PolicyScenario) -> dict[str, str]:
        decision = decide(scenario.job, scenario.facts, policy, scenario.now)
        return {reason.channel.value: reason.evidence for reason in decision.reasons if reason.code is ReasonCode.FREQUENCY_CAPPED}

    own, partner = sendable(OfferType.OWN, route="all"), sendable(OfferType.PARTNER, route="all")
    assert capped(received(50)(own)) == {}
    assert capped(received(1, offer="partner")(own)) == {}
    assert capped(received(1, offer="partner")(partner)) == dict.fromkeys(map(str, Channel), "policy:caps.partner")
    assert capped(received(1, offer="partner", seconds_ago=36 * 3600)(partner)) == {}
    texts = received(1, Channel.SMS)(received(1, Channel.WHATSAPP, "kate")(own))
    assert capped(texts) == {"sms": "policy:caps.texts", "whatsapp": "policy:caps.texts"}


def test_a_service_message_is_exempt_from_every_cap() -> None:
    service = received(50, Channel.SMS)(sendable(None, channels=(Channel.SMS,)))
    assert isinstance(decide_scenario(service), Send)
    assert isinstance(decide_scenario(service.with_template(offer_type=OfferType.OWN)), Send)  # the template's kind decides


def test_a_calendar_day_is_the_recipients_own() -> None:
    scenario = received(2, Channel.SMS, seconds_ago=3600)(sendable(channels=(Channel.SMS,)))
    midnight_in_auckland = replace(scenario, now=datetime(2026, 11, 23, 11, 30, tzinfo=UTC))
    assert codes(decide_scenario(midnight_in_auckland)) == {ReasonCode.FREQUENCY_CAPPED}
    policy = replace(POLICY, quiet_hours={})
    there = midnight_in_auckland.with_facts(timezone="Pacific/Auckland", sent=scenario.facts.sent)
    assert isinstance(decide(there.job, there.facts, policy, there.now), Send)


@pytest.mark.parametrize(
    ("windows", "back"),
    [
        ((), None),
        ((60.0, 86_400.0), timedelta(days=1)),
        ((60.0, None), timedelta(days=2)),
        ((7 * 86_400.0, None), timedelta(days=7)),
    ],
)
def test_sent_messages_are_read_as_far_back_as_a_cap_counts(windows: tuple[float | None, ...], back: timedelta | None) -> None:
    policy = replace(POLICY, caps=tuple(replace(POLICY.caps[0], rolling_seconds=window) for window in windows))
    assert policy.caps_since(NOON) == (None if back is None else NOON - back)

"""Control groups and variants: the right share, always the same people."""

from __future__ import annotations

import math

import pytest
from msgspec.structs import replace

from channels.base import Channel
from dispatcher.domain.decision import ReasonCode, Refuse, Send
from dispatcher.policy import InvalidPolicy, parse, shipped, variant_of
from dispatcher.policy.data import GlobalControlGroup
from dispatcher.policy.variants import is_in_global_group, share_percent
from tests.support.policy_decisions import POLICY, codes, decide_scenario
from tests.support.strategies import (
    IN_GLOBAL_GROUP,
    other_person,
    sendable,
)


def test_the_control_group_has_its_share_and_never_changes() -> None:
    def group(campaign: str, percent: float) -> set[int]:
        return {n for n in range(4000) if share_percent("2026", campaign, f"c-{n}") < percent}

    ten, twenty, other = group("spring", 10), group("spring", 20), group("summer", 10)
    assert ten == group("spring", 10)
    assert ten < twenty
    assert 320 < len(ten) < 480  # 400 expected, within four standard deviations
    assert 10 < len(ten & other) < 80  # another campaign has another control group


def test_variants_are_even_and_independent_of_the_control_group() -> None:
    variants = (("a", "spring"), ("b", "spring-short"), ("c", "spring-long"))
    people = [f"c-{n}" for n in range(3000)]
    drawn = {each: variant_of("2026", variants, "spring", each) for each in people}
    share = {template: sum(each == template for each in drawn.values()) for _, template in variants}
    assert all(896 < count < 1104 for count in share.values())  # 1000 expected, within four standard deviations
    held_out = [template for each, template in drawn.items() if share_percent("2026", "spring", each) < 20]
    assert all(140 < held_out.count(template) < 260 for template in share)  # of 600, 200 expected


@pytest.mark.parametrize("who", ["c-1", "c-2"])
def test_a_control_group_is_exactly_those_below_its_share(who: str) -> None:
    scenario = sendable().with_facts(recipient_id=who).with_job(recipient_id=who)
    drawn = share_percent(POLICY.holdout_salt, "spring-2026", who)
    assert isinstance(decide_scenario(scenario.with_job(holdout_percent=drawn)), Send)
    assert codes(decide_scenario(scenario.with_job(holdout_percent=math.nextafter(drawn, 100)))) == {ReasonCode.HELD_OUT}


def test_a_small_control_group_works_and_triggers_have_none() -> None:
    salt = POLICY.holdout_salt
    person_with_low_share = next(who for who in map("c-{}".format, range(9999)) if share_percent(salt, "spring-2026", who) < 0.5)
    scenario = (
        sendable().with_facts(recipient_id=person_with_low_share).with_job(recipient_id=person_with_low_share, holdout_percent=0.5)
    )
    assert codes(decide_scenario(scenario)) == {ReasonCode.HELD_OUT}
    assert isinstance(decide_scenario(scenario.with_job(campaign_id=None)), Send)


def test_draws_are_stable_across_versions() -> None:
    """A running campaign's control group and variants must not change with a new version. Do not change these numbers."""
    assert [round(share_percent("2026", *draw), 9) for draw in (("spring", "c-1"), ("spring", "c-2"), ("summer", "c-1"))] == [
        59.161597806,
        98.640019639,
        72.35183808,
    ]
    variants = (("a", "A"), ("b", "B"), ("c", "C"))
    drawn = "".join(variant_of("2026", variants, "spring", f"c-{n}") for n in range(3000))
    assert (drawn[:8], *map(drawn.count, "ABC")) == ("BBCCBBAA", 974, 1010, 1016)


def test_the_global_control_group_is_the_same_in_all_campaigns() -> None:
    group, next_quarter = GlobalControlGroup(10, "2026-Q4"), GlobalControlGroup(10, "2027-Q1")
    people = [f"c-{number}" for number in range(4000)]
    drawn = {each for each in people if is_in_global_group(group, each)}
    assert 320 < len(drawn) < 480  # 400 expected, within four standard deviations
    assert 10 < len(drawn & {each for each in people if is_in_global_group(next_quarter, each)}) < 80
    for campaign in ("spring", "summer"):
        assert 10 < len(drawn & {each for each in people if share_percent("2026", campaign, each) < 10}) < 80
    assert sorted(drawn)[:4] == ["c-1000", "c-1008", "c-1033", "c-1059"]  # a running quarter must not change with a new version
    for campaign in ("spring", "summer"):
        scenario = other_person(IN_GLOBAL_GROUP).with_job(campaign_id=campaign)
        assert codes(decide_scenario(scenario)) == {ReasonCode.GLOBAL_CONTROL_GROUP}
        service = other_person(IN_GLOBAL_GROUP, sendable(offer=None)).with_job(campaign_id=campaign)
        assert isinstance(decide_scenario(service), Send)
    assert isinstance(decide_scenario(other_person(IN_GLOBAL_GROUP).with_job(campaign_id=None)), Send)  # a trigger


def test_the_shipped_policy_has_no_global_control_group() -> None:
    group = parse(shipped()).global_group
    assert not any(is_in_global_group(group, f"c-{number}") for number in range(500))
    with pytest.raises(InvalidPolicy, match=r"holdout\.global_salt"):
        parse(shipped().replace("global_percent = 0\nglobal_salt", "global_percent = 5\n# global_salt"))


def test_one_free_channel_is_enough_to_be_held_out() -> None:
    switches = sendable().facts.switches
    off = replace(switches["email"], value="off")
    for channels in ((Channel.PUSH, Channel.EMAIL), (Channel.EMAIL, Channel.PUSH)):
        scenario = sendable().with_facts(switches={**switches, "email": off}).with_job(channels=channels)
        assert isinstance(decide_scenario(scenario), Send)
        decision = decide_scenario(scenario.with_job(holdout_percent=100.0))
        assert isinstance(decision, Refuse)
        assert decision.headline.code is ReasonCode.HELD_OUT
        assert {reason.code for reason in decision.reasons} == {ReasonCode.HELD_OUT, ReasonCode.CHANNEL_OFF}


def test_only_people_who_would_get_the_message_are_held_out() -> None:
    decision = decide_scenario(sendable().with_facts(switches={}).with_job(holdout_percent=100.0))
    assert isinstance(decision, Refuse)
    assert decision.headline.code is ReasonCode.CHANNEL_OFF

"""Each rule is needed and cites its evidence, and the policy oracle agrees with all decisions."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
from hypothesis import given

from channels.base import Channel
from dispatcher.domain.decision import Hold, ReasonCode, Refuse, Send
from dispatcher.domain.message import Mode, OfferType
from dispatcher.domain.recipient import Device
from dispatcher.policy import RULES
from tests.support.policy_decisions import decide_scenario, evidence_of, many_examples, rules_without
from tests.support.policy_oracle import expected_decision
from tests.support.strategies import (
    DISTURBANCES,
    IN_GLOBAL_GROUP,
    PolicyScenario,
    cooling_down,
    other_person,
    received,
    recorded_choice,
    scenarios,
    sendable,
    unread,
)

# -- the policy oracle -------------------------------------------------------------------------------------------------


def assert_oracle_agrees(scenario: PolicyScenario) -> None:
    decision, expected = decide_scenario(scenario), expected_decision(scenario.job, scenario.facts, scenario.now)
    assert type(decision).__name__ == expected.verdict, scenario
    if isinstance(decision, Send):
        assert (
            tuple((permission.channel.value, permission.mode.value, permission.basis) for permission in decision.permissions)
            == expected.permissions
        )
    else:
        assert decision.headline.code.value == expected.headline, scenario
    if isinstance(decision, Hold):
        assert decision.until == expected.until


@many_examples
@given(scenarios())
def test_the_policy_oracle_agrees(scenario: PolicyScenario) -> None:
    assert_oracle_agrees(scenario)


@pytest.mark.parametrize("offer", [*OfferType, None])
@pytest.mark.parametrize("choice", ["tailored", "standard"])
def test_the_policy_oracle_agrees_on_each_single_disturbance(offer: OfferType | None, choice: str) -> None:
    for disturb in DISTURBANCES:
        assert_oracle_agrees(disturb(sendable(offer, choice, route="all")))


# -- every rule is needed ----------------------------------------------------------------------------------------------


ALONE: dict[str, tuple[PolicyScenario, ReasonCode]] = {
    "erased": (sendable().with_facts(erased=True), ReasonCode.ERASED),
    "known": (sendable().with_facts(known=False), ReasonCode.UNKNOWN_RECIPIENT),
    "duplicate": (sendable().with_facts(repeat_of="m-0"), ReasonCode.DUPLICATE),
    "expiry": (sendable().with_job(expires_at=sendable().now), ReasonCode.EXPIRED),
    "objection": (sendable().with_facts(object_marketing=recorded_choice("on", 5)), ReasonCode.OBJECTED),
    "choice": (sendable().with_facts(offers={"own": recorded_choice("none", 5)}), ReasonCode.CHOICE_NONE),
    "mode": (sendable(choice="standard").with_template(modes=frozenset({Mode.TAILORED})), ReasonCode.MODE_NOT_ALLOWED),
    "age": (sendable().with_facts(birth_date=date(2008, 11, 24)), ReasonCode.MINOR),
    "coins": (sendable(OfferType.KATE).with_facts(has_current_account=False), ReasonCode.NO_CURRENT_ACCOUNT),
    "approval": (sendable().with_job(approval=None), ReasonCode.TEMPLATE_NOT_APPROVED),
    "household": (sendable().with_facts(partner_message="m-2"), ReasonCode.HOUSEHOLD),
    "global_control_group": (other_person(IN_GLOBAL_GROUP), ReasonCode.GLOBAL_CONTROL_GROUP),
    "control_group": (sendable().with_job(holdout_percent=100.0), ReasonCode.HELD_OUT),
    "basis": (sendable().with_job(entity="another-bank"), ReasonCode.NO_BASIS),
    "switch": (sendable().with_facts(switches={}), ReasonCode.CHANNEL_OFF),
    "suppression": (
        sendable().with_facts(suppressions={name.value: "suppression:4" for name in Channel}),
        ReasonCode.SUPPRESSED,
    ),
    "unread_answer": (unread(Channel.SMS)(sendable(channels=(Channel.SMS,))), ReasonCode.UNREAD_ANSWER),
    "address": (sendable().with_facts(email=None, phone=None, whatsapp=None, devices=()), ReasonCode.NO_ADDRESS),
    "push_permission": (
        sendable(channels=(Channel.PUSH,)).with_facts(devices=(Device("t", "ios", False),)),
        ReasonCode.NO_OS_PERMISSION,
    ),
    "whatsapp_approval": (
        sendable(channels=(Channel.WHATSAPP,)).with_job(whatsapp_texts=frozenset({("nl", Mode.TAILORED), ("fr", Mode.STANDARD)})),
        ReasonCode.WHATSAPP_NOT_APPROVED,
    ),
    "one_per_address": (
        sendable(channels=(Channel.EMAIL,)).with_facts(address_messages={"email": "m-3"}),
        ReasonCode.ONE_PER_ADDRESS,
    ),
    "frequency": (received(7)(sendable()), ReasonCode.FREQUENCY_CAPPED),
    "rest": (cooling_down(Channel.WHATSAPP, 1)(sendable(channels=(Channel.WHATSAPP,))), ReasonCode.FREQUENCY_CAPPED),
    "quiet_hours": (
        replace(sendable(channels=(Channel.SMS,)), now=datetime(2026, 11, 23, 20, 0, tzinfo=UTC)),
        ReasonCode.QUIET_HOURS,
    ),
}


def test_every_rule_has_a_case_in_which_it_alone_objects() -> None:
    assert ALONE.keys() == RULES.person.keys() | RULES.channel.keys()


@pytest.mark.parametrize("name", ALONE)
def test_removing_a_rule_changes_the_decision(name: str) -> None:
    scenario, code = ALONE[name]
    decision = decide_scenario(scenario)
    assert not isinstance(decision, Send)
    assert (decision.headline.code, decision.headline.rule) == (code, name)
    also_object = {"choice": {"basis"}}  # without a choice there is no basis either
    assert {reason.rule for reason in decision.reasons} - also_object.get(name, set()) == {name}
    other = decide_scenario(scenario, rules_without(RULES, name))
    assert isinstance(other, Send) or other.headline.rule != name


CITED: dict[str, set[str]] = {
    "erased": {"recipient:erased"},
    "known": {"recipient:id"},
    "duplicate": {"m-0"},
    "expiry": {"job:expires_at"},
    "objection": {"consent:5"},
    "choice": {"consent:5"},
    "mode": {"consent:1"},
    "age": {"policy:ages.adult_years"},
    "coins": {"recipient:has_current_account"},
    "approval": {"template:spring"},
    "household": {"m-2"},
    "global_control_group": {"policy:holdout.global_percent"},
    "control_group": {"campaign:spring-2026"},
    "basis": {"policy:entities.another-bank"},
    "switch": {"recipient:switches.email", "recipient:switches.push", "recipient:switches.sms_whatsapp"},
    "suppression": {"suppression:4"},
    "unread_answer": {"inbound:SM1"},
    "address": {"recipient:push", "recipient:email", "recipient:sms", "recipient:whatsapp"},
    "push_permission": {"recipient:push.permission"},
    "whatsapp_approval": {"template:spring"},
    "one_per_address": {"m-3"},
    "frequency": {"policy:caps.a_week"},
    "rest": {"provider:63049"},
    "quiet_hours": {"policy:quiet_hours.sms"},
}


@pytest.mark.parametrize("name", ALONE)
def test_each_rule_cites_its_evidence(name: str) -> None:
    assert evidence_of(ALONE[name][0], name) == CITED[name]


@pytest.mark.parametrize(
    ("scenario", "rule", "code", "evidence"),
    [
        (sendable().with_facts(recipient_id="c-2"), "known", ReasonCode.UNKNOWN_RECIPIENT, "job:recipient_id"),
        (sendable().with_facts(offers={}), "choice", ReasonCode.NO_CHOICE, "recipient:offers.own"),
        (sendable().with_facts(offers={"own": recorded_choice("yes", 5)}), "choice", ReasonCode.NO_CHOICE, "consent:5"),
        (sendable().with_facts(birth_date=None), "age", ReasonCode.AGE_UNKNOWN, "recipient:birth_date"),
    ],
)
def test_a_rule_with_two_reasons_cites_the_right_one(scenario: PolicyScenario, rule: str, code: ReasonCode, evidence: str) -> None:
    reasons = {(reason.code, reason.evidence) for reason in decide_scenario(scenario).reasons if reason.rule == rule}
    assert reasons == {(code, evidence)}


@pytest.mark.parametrize(
    ("name", "code"), [("basis", ReasonCode.NO_BASIS), ("mode", ReasonCode.NO_BASIS), ("choice", ReasonCode.NO_BASIS)]
)
def test_without_a_rule_a_missing_permission_still_refuses(name: str, code: ReasonCode) -> None:
    decision = decide_scenario(ALONE[name][0], rules_without(RULES, name))
    assert isinstance(decision, Refuse)
    assert decision.headline.code is code

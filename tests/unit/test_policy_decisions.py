"""Decisions: default deny, objections override permissions, every refusal has a reason; routes, modes and data categories."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.base import Channel
from dispatcher.domain.decision import Hold, Reason, ReasonCode, Refuse, Send
from dispatcher.domain.message import Mode, OfferType
from dispatcher.policy import RULES, Rules, decide
from dispatcher.policy.case import DecisionCase, RuleObjection
from tests.support.policy_decisions import POLICY, decide_scenario, many_examples
from tests.support.strategies import (
    BOTH,
    PolicyScenario,
    recorded_choice,
    scenarios,
    sendable,
)

# -- general properties ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offer", [*OfferType, None])
@pytest.mark.parametrize("choice", ["tailored", "standard"])
def test_the_undisturbed_scenario_sends_on_every_channel(offer: OfferType | None, choice: str) -> None:
    decision = decide_scenario(sendable(offer, choice, route="all"))
    assert isinstance(decision, Send)
    assert [permission.channel for permission in decision.permissions] == list(Channel)


def test_without_rules_there_is_still_no_permission() -> None:
    nothing_known = sendable().with_facts(offers={})
    denied = tuple(Reason(ReasonCode.NO_BASIS, channel, "default_deny", "rule:default_deny") for channel in Channel)
    assert decide_scenario(nothing_known, Rules({}, {})) == Refuse(denied)


@many_examples
@given(scenarios(), st.sampled_from(list(Channel)), st.sampled_from(list(ReasonCode)))
def test_one_more_objection_never_allows_a_message(scenario: PolicyScenario, where: Channel, code: ReasonCode) -> None:
    def extra_objection(_: DecisionCase, channel: Channel) -> RuleObjection | None:
        return RuleObjection(code, "test:grumble") if channel is where else None

    before = decide_scenario(scenario)
    after = decide_scenario(scenario, Rules(RULES.person, {**RULES.channel, "grumble": extra_objection}))
    sent_before = {permission.channel for permission in before.permissions} if isinstance(before, Send) else set()
    if isinstance(after, Send):
        assert isinstance(before, Send)
        assert where not in {permission.channel for permission in after.permissions}
        assert scenario.job.route == "first" or {permission.channel for permission in after.permissions} == sent_before - {where}
    if isinstance(before, Refuse):
        assert isinstance(after, Refuse)


@many_examples
@given(scenarios(), st.randoms(use_true_random=False))
def test_the_order_of_facts_and_rules_does_not_matter(scenario: PolicyScenario, random: object) -> None:
    def shuffled(mapping: dict[str, object]) -> dict[str, object]:
        items = list(mapping.items())
        random.shuffle(items)  # type: ignore[attr-defined]
        return dict(items)

    mixed = scenario.with_facts(
        offers=shuffled(dict(scenario.facts.offers)),
        switches=shuffled(dict(scenario.facts.switches)),
        devices=tuple(reversed(scenario.facts.devices)),
    )
    rules = Rules(shuffled(dict(RULES.person)), shuffled(dict(RULES.channel)))  # type: ignore[arg-type]
    one, other = decide_scenario(scenario), decide_scenario(mixed, rules)
    assert type(one) is type(other)
    assert set(one.reasons) == set(other.reasons)
    if isinstance(one, Send) and isinstance(other, Send):
        assert one.permissions == other.permissions


@many_examples
@given(scenarios())
def test_every_refusal_gives_a_reason_per_requested_channel(scenario: PolicyScenario) -> None:
    decision = decide_scenario(scenario)
    explained = {reason.channel for reason in decision.reasons}
    if isinstance(decision, Refuse):
        assert explained == set(scenario.job.channels)
    if isinstance(decision, Send) and scenario.job.route == "all":
        assert explained == set(scenario.job.channels) - {permission.channel for permission in decision.permissions}
    assert all(reason.evidence and reason.rule for reason in decision.reasons)


@many_examples
@given(scenarios())
def test_a_hold_ends_once_and_before_the_job_expires(scenario: PolicyScenario) -> None:
    held = decide_scenario(scenario)
    if isinstance(held, Hold):
        assert held.until > scenario.now
        assert scenario.job.expires_at is None or held.until < scenario.job.expires_at
        read = scenario.with_facts(unread_replies={})  # a reply that nobody reads holds again and again
        later = decide_scenario(replace(read, now=held.until))
        assert not isinstance(later, Hold)
        assert any(reason.channel not in {other.channel for other in later.reasons} for reason in held.reasons)


def failing_rule(*_: object) -> RuleObjection | None:
    raise LookupError("someone@example.org")


@pytest.mark.parametrize("rules", [Rules({"bomb": failing_rule}, {}), Rules({}, {"bomb": failing_rule})])
def test_a_rule_that_raises_refuses_without_its_error_text(rules: Rules) -> None:
    decision = decide_scenario(sendable(), rules)
    assert decision == Refuse(tuple(Reason(ReasonCode.FAULT, channel, "bomb", "rule:bomb") for channel in Channel))


def test_facts_that_cannot_be_read_refuse() -> None:
    decision = decide_scenario(sendable().with_facts(offers=None))
    assert decision == Refuse(tuple(Reason(ReasonCode.FAULT, channel, "case", "rule:case") for channel in Channel))


def test_a_naive_time_and_a_job_without_channels_raise() -> None:
    scenario = sendable()
    with pytest.raises(ValueError, match=r"^now needs a time zone$"):
        decide(scenario.job, scenario.facts, POLICY, scenario.now.replace(tzinfo=None))
    with pytest.raises(ValueError, match=r"^a job asks for at least one channel$"):
        decide_scenario(scenario.with_job(channels=()))


# -- evidence, routes and modes ----------------------------------------------------------------------------------------


def test_evidence_names_the_fact_behind_the_reason() -> None:
    scenario = sendable(channels=(Channel.EMAIL, Channel.SMS, Channel.WHATSAPP, Channel.PUSH)).with_facts(
        object_marketing=recorded_choice("on", 9),
        switches={"email": recorded_choice("off", 8)},
        suppressions={"sms": "suppression:4"},
        repeat_of="m-0",
        birth_date=None,
        devices=(),
    )
    decision = decide_scenario(scenario.with_job(holdout_percent=100.0, expires_at=scenario.now))
    assert {(reason.rule, reason.channel.value, reason.evidence) for reason in decision.reasons} >= {
        ("objection", "email", "consent:9"),
        ("switch", "email", "consent:8"),
        ("switch", "sms", "recipient:switches.sms_whatsapp"),
        ("suppression", "sms", "suppression:4"),
        ("duplicate", "push", "m-0"),
        ("age", "push", "recipient:birth_date"),
        ("address", "push", "recipient:push"),
        ("control_group", "email", "campaign:spring-2026"),
        ("expiry", "whatsapp", "job:expires_at"),
    }


@pytest.mark.parametrize(
    ("scenario", "evidence"),
    [
        (sendable(choice="standard").with_template(modes=frozenset({Mode.TAILORED})), "consent:1"),
        (sendable(choice="standard").with_template(modes=frozenset()), "template:spring"),
        (sendable().with_template(modes=frozenset()), "template:spring"),
        (sendable(OfferType.KATE, "standard").with_template(coins=True, modes=frozenset({Mode.STANDARD})), "consent:3"),
        (sendable(OfferType.KATE).with_facts(object_profiling=recorded_choice("on", 9)), "consent:9"),
        (
            sendable().with_facts(object_profiling=recorded_choice("off", 9)).with_template(modes=frozenset()),
            "template:spring",
        ),
        (sendable(None).with_template(modes=frozenset({Mode.TAILORED})), "template:opt-out-acknowledgement"),
    ],
)
def test_mode_not_allowed_cites_choice_objection_or_template(scenario: PolicyScenario, evidence: str) -> None:
    decision = decide_scenario(scenario)
    assert {reason.evidence for reason in decision.reasons if reason.code is ReasonCode.MODE_NOT_ALLOWED} == {evidence}


def test_a_commercial_template_without_offer_type_has_no_choice() -> None:
    decision = decide_scenario(sendable().with_template(offer_type=None))
    assert isinstance(decision, Refuse)
    assert (decision.headline.code, decision.headline.evidence) == (ReasonCode.NO_CHOICE, "template:spring")


def test_route_first_keeps_the_order_and_says_why_others_failed() -> None:
    scenario = sendable(channels=(Channel.SMS, Channel.EMAIL, Channel.PUSH)).with_facts(phone=None)
    decision = decide_scenario(scenario)
    assert isinstance(decision, Send)
    assert [permission.channel for permission in decision.permissions] == [Channel.EMAIL]
    assert decision.reasons == (Reason(ReasonCode.NO_ADDRESS, Channel.SMS, "address", "recipient:sms"),)


def test_a_channel_requested_twice_is_one_leg() -> None:
    decision = decide_scenario(sendable(channels=(Channel.EMAIL, Channel.EMAIL), route="all"))
    assert isinstance(decision, Send)
    assert len(decision.permissions) == 1


def test_the_mode_follows_choice_template_and_objection() -> None:
    def mode(scenario: PolicyScenario) -> Mode | None:
        decision = decide_scenario(scenario)
        return decision.permissions[0].mode if isinstance(decision, Send) else None

    objecting = {"object_profiling": recorded_choice("on", 3)}
    assert mode(sendable()) is Mode.TAILORED
    assert mode(sendable().with_template(modes=frozenset({Mode.STANDARD}))) is Mode.STANDARD
    assert mode(sendable().with_facts(**objecting)) is Mode.STANDARD
    assert mode(sendable().with_facts(**objecting).with_template(modes=frozenset({Mode.TAILORED}))) is None
    assert mode(sendable(choice="standard")) is Mode.STANDARD
    assert mode(sendable(OfferType.KATE).with_facts(**objecting)) is None
    assert mode(sendable(OfferType.KATE, "standard").with_template(coins=True, modes=BOTH)) is None


def test_a_standard_message_may_use_less_than_a_tailored_one() -> None:
    tailored, standard, service = (decide_scenario(sendable(*kind)) for kind in ((), (OfferType.OWN, "standard"), (None,)))
    assert isinstance(tailored, Send)
    assert isinstance(standard, Send)
    assert isinstance(service, Send)
    assert service.permissions[0].categories == POLICY.categories["service"]
    assert "transactions" in tailored.permissions[0].categories
    assert standard.permissions[0].categories < tailored.permissions[0].categories
    assert "transactions" not in standard.permissions[0].categories | service.permissions[0].categories


def test_a_service_message_needs_no_choices() -> None:
    silent = sendable(None).with_facts(offers={}, switches={}, object_marketing=recorded_choice("on", 1), birth_date=None)
    night = replace(silent.with_job(holdout_percent=100.0), now=datetime(2026, 11, 23, 23, 0, tzinfo=UTC))
    decision = decide_scenario(night)
    assert isinstance(decision, Send)
    assert decision.permissions[0].basis == "service"
    assert isinstance(decide_scenario(night.with_facts(suppressions={name.value: "suppression:1" for name in Channel})), Refuse)


def test_household_data_needs_a_registered_partner() -> None:
    def allowed(scenario: PolicyScenario) -> frozenset[str]:
        decision = decide_scenario(scenario)
        assert isinstance(decision, Send)
        return decision.permissions[0].categories

    alone = allowed(sendable())
    assert "household" not in alone
    assert allowed(sendable().with_facts(partner_id="c-2")) == alone | {"household"}
    assert "household" not in allowed(sendable(choice="standard").with_facts(partner_id="c-2"))

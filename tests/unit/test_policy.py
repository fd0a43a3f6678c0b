"""The policy keeps its promises: default deny, an objection wins, every no is explained, a second telling agrees."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels.base import Channel
from dispatcher.domain.decision import Decision, Hold, Reason, ReasonCode, Refuse, Send
from dispatcher.domain.message import Mode, OfferType
from dispatcher.domain.recipient import Device
from dispatcher.policy import RULES, InvalidPolicy, RetryPolicy, Rules, decide, parse, parse_former, shipped, variant_of
from dispatcher.policy.case import DecisionCase, Objection, find_basis
from dispatcher.policy.data import BasisGrant, QuietHours
from dispatcher.policy.rules import next_time, share_percent
from tests.support.policy_oracle import expected_decision
from tests.support.strategies import (
    BOTH,
    DISTURBANCES,
    NOON,
    Disturbance,
    Scenario,
    cooling_down,
    received,
    recorded_choice,
    scenarios,
    sendable,
)

POLICY = parse(shipped())
often = settings(max_examples=4 * settings().max_examples, deadline=None)


def decided(scene: Scenario, rules: Rules = RULES) -> Decision:
    return decide(scene.job, scene.facts, POLICY, scene.now, rules)


def codes(decision: Decision) -> set[ReasonCode]:
    return {reason.code for reason in decision.reasons}


def evidence_of(scene: Scenario, name: str) -> set[str]:
    """What one rule cites."""
    return {reason.evidence for reason in decided(scene).reasons if reason.rule == name}


def without(rules: Rules, name: str) -> Rules:
    return Rules(
        {key: rule for key, rule in rules.person.items() if key != name},
        {key: rule for key, rule in rules.channel.items() if key != name},
    )


# -- the two tellings --------------------------------------------------------------------------------------------------


def agree(scene: Scenario) -> None:
    decision, told = decided(scene), expected_decision(scene.job, scene.facts, scene.now)
    assert type(decision).__name__ == told.verdict, scene
    if isinstance(decision, Send):
        assert tuple((leg.channel.value, leg.mode.value, leg.basis) for leg in decision.legs) == told.legs
    else:
        assert decision.headline.code.value == told.headline, scene
    if isinstance(decision, Hold):
        assert decision.until == told.until


@often
@given(scenarios())
def test_the_second_telling_agrees(scene: Scenario) -> None:
    agree(scene)


@pytest.mark.parametrize("offer", [*OfferType, None])
@pytest.mark.parametrize("choice", ["tailored", "standard"])
def test_the_second_telling_agrees_on_each_single_disturbance(offer: OfferType | None, choice: str) -> None:
    for disturb in DISTURBANCES:
        agree(disturb(sendable(offer, choice, route="all")))


# -- every rule is needed ----------------------------------------------------------------------------------------------

ALONE: dict[str, tuple[Scenario, ReasonCode]] = {
    "erased": (sendable().with_facts(erased=True), ReasonCode.ERASED),
    "known": (sendable().with_facts(known=False), ReasonCode.UNKNOWN_RECIPIENT),
    "duplicate": (sendable().with_facts(repeat_of="m-0"), ReasonCode.DUPLICATE),
    "expiry": (sendable().with_job(expires_at=sendable().now), ReasonCode.EXPIRED),
    "objection": (sendable().with_facts(object_marketing=recorded_choice("on", 5)), ReasonCode.OBJECTED),
    "choice": (sendable().with_facts(offers={"own": recorded_choice("none", 5)}), ReasonCode.CHOICE_NONE),
    "mode": (sendable(choice="standard").with_brief(modes=frozenset({Mode.TAILORED})), ReasonCode.MODE_NOT_ALLOWED),
    "age": (sendable().with_facts(birth_date=date(2008, 11, 24)), ReasonCode.MINOR),
    "coins": (sendable(OfferType.KATE).with_facts(has_current_account=False), ReasonCode.NO_CURRENT_ACCOUNT),
    "approval": (sendable().with_job(approval=None), ReasonCode.TEMPLATE_NOT_APPROVED),
    "household": (sendable().with_facts(partner_message="m-2"), ReasonCode.HOUSEHOLD),
    "control_group": (sendable().with_job(holdout_percent=100.0), ReasonCode.HELD_OUT),
    "basis": (sendable().with_job(entity="another-bank"), ReasonCode.NO_BASIS),
    "switch": (sendable().with_facts(switches={}), ReasonCode.CHANNEL_OFF),
    "suppression": (
        sendable().with_facts(suppressions={name.value: "suppression:4" for name in Channel}),
        ReasonCode.SUPPRESSED,
    ),
    "address": (sendable().with_facts(email=None, phone=None, whatsapp=None, devices=()), ReasonCode.NO_ADDRESS),
    "push_permission": (
        sendable(channels=(Channel.PUSH,)).with_facts(devices=(Device("t", "ios", False),)),
        ReasonCode.NO_OS_PERMISSION,
    ),
    "frequency": (received(7)(sendable()), ReasonCode.FREQUENCY_CAPPED),
    "rest": (cooling_down(Channel.WHATSAPP, 1)(sendable(channels=(Channel.WHATSAPP,))), ReasonCode.FREQUENCY_CAPPED),
    "quiet_hours": (
        replace(sendable(channels=(Channel.SMS,)), now=datetime(2026, 11, 23, 20, 0, tzinfo=UTC)),
        ReasonCode.QUIET_HOURS,
    ),
}


def test_every_rule_has_an_example_in_which_it_is_needed() -> None:
    assert ALONE.keys() == RULES.person.keys() | RULES.channel.keys()


@pytest.mark.parametrize("name", ALONE)
def test_taking_one_rule_out_changes_the_answer(name: str) -> None:
    scene, code = ALONE[name]
    decision = decided(scene)
    assert not isinstance(decision, Send)
    assert (decision.headline.code, decision.headline.rule) == (code, name)
    backed_up = {"choice": {"basis"}}  # without a choice there is no basis either: two locks on one door
    assert {reason.rule for reason in decision.reasons} - backed_up.get(name, set()) == {name}
    other = decided(scene, without(RULES, name))
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
    "control_group": {"campaign:spring-2026"},
    "basis": {"policy:entities.another-bank"},
    "switch": {"recipient:switches.email", "recipient:switches.push", "recipient:switches.sms_whatsapp"},
    "suppression": {"suppression:4"},
    "address": {"recipient:push", "recipient:email", "recipient:sms", "recipient:whatsapp"},
    "push_permission": {"recipient:push.permission"},
    "frequency": {"policy:caps.a_week"},
    "rest": {"provider:63049"},
    "quiet_hours": {"policy:quiet_hours.sms"},
}


@pytest.mark.parametrize("name", ALONE)
def test_each_rule_cites_what_it_looked_at(name: str) -> None:
    assert evidence_of(ALONE[name][0], name) == CITED[name]


@pytest.mark.parametrize(
    ("scene", "rule", "code", "evidence"),
    [
        (sendable().with_facts(recipient_id="c-2"), "known", ReasonCode.UNKNOWN_RECIPIENT, "job:recipient_id"),
        (sendable().with_facts(offers={}), "choice", ReasonCode.NO_CHOICE, "recipient:offers.own"),
        (sendable().with_facts(offers={"own": recorded_choice("yes", 5)}), "choice", ReasonCode.NO_CHOICE, "consent:5"),
        (sendable().with_facts(birth_date=None), "age", ReasonCode.AGE_UNKNOWN, "recipient:birth_date"),
    ],
)
def test_a_rule_with_two_reasons_cites_the_right_one(scene: Scenario, rule: str, code: ReasonCode, evidence: str) -> None:
    reasons = {(reason.code, reason.evidence) for reason in decided(scene).reasons if reason.rule == rule}
    assert reasons == {(code, evidence)}


@pytest.mark.parametrize(
    ("name", "code"), [("basis", ReasonCode.NO_BASIS), ("mode", ReasonCode.NO_BASIS), ("choice", ReasonCode.NO_BASIS)]
)
def test_even_without_the_rule_nothing_leaves_that_no_permission_was_found_for(name: str, code: ReasonCode) -> None:
    decision = decided(ALONE[name][0], without(RULES, name))
    assert isinstance(decision, Refuse)
    assert decision.headline.code is code


# -- the laws ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offer", [*OfferType, None])
@pytest.mark.parametrize("choice", ["tailored", "standard"])
def test_the_undisturbed_scene_sends_on_every_channel(offer: OfferType | None, choice: str) -> None:
    decision = decided(sendable(offer, choice, route="all"))
    assert isinstance(decision, Send)
    assert [leg.channel for leg in decision.legs] == list(Channel)


def test_no_rules_at_all_is_still_not_a_permission() -> None:
    nothing_known = sendable().with_facts(offers={})
    denied = tuple(Reason(ReasonCode.NO_BASIS, channel, "default_deny", "rule:default_deny") for channel in Channel)
    assert decided(nothing_known, Rules({}, {})) == Refuse(denied)


COMMERCIAL_BASES = ("contract", "consent", "legitimate_interest", "soft_opt_in")


@pytest.mark.parametrize(
    ("basis", "offer", "choice"),
    [
        ("service", OfferType.OWN, "tailored"),
        ("service", OfferType.OWN, "standard"),
        ("contract", OfferType.OWN, "standard"),
        ("hunch", OfferType.OWN, "tailored"),
        *((basis, OfferType.OWN, "none") for basis in COMMERCIAL_BASES),
        *((basis, None, "standard") for basis in COMMERCIAL_BASES),
    ],
)
def test_a_basis_asks_for_its_conditions_even_where_no_policy_file_could_put_it(
    basis: str, offer: OfferType | None, choice: str
) -> None:
    row = {Channel.EMAIL: (BasisGrant(basis, "policy:basis.wrong"),)}
    policy = replace(POLICY, basis={"kbc-bank": {offer or "service": {choice: row}}})
    scene = sendable(offer, choice)
    assert find_basis(DecisionCase(scene.job, scene.facts, policy, scene.now), Channel.EMAIL) is None


@often
@given(scenarios(), st.sampled_from(list(Channel)), st.sampled_from(list(ReasonCode)))
def test_one_more_objection_never_turns_a_no_into_a_yes(scene: Scenario, where: Channel, code: ReasonCode) -> None:
    def grumble(_: DecisionCase, channel: Channel) -> Objection | None:
        return Objection(code, "test:grumble") if channel is where else None

    before = decided(scene)
    after = decided(scene, Rules(RULES.person, {**RULES.channel, "grumble": grumble}))
    sent_before = {leg.channel for leg in before.legs} if isinstance(before, Send) else set()
    if isinstance(after, Send):
        assert isinstance(before, Send)
        assert where not in {leg.channel for leg in after.legs}
        assert scene.job.route == "first" or {leg.channel for leg in after.legs} == sent_before - {where}
    if isinstance(before, Refuse):
        assert isinstance(after, Refuse)


@often
@given(scenarios(), st.randoms(use_true_random=False))
def test_the_order_of_facts_and_rules_does_not_matter(scene: Scenario, random: object) -> None:
    def shuffled(mapping: dict[str, object]) -> dict[str, object]:
        items = list(mapping.items())
        random.shuffle(items)  # type: ignore[attr-defined]
        return dict(items)

    mixed = scene.with_facts(
        offers=shuffled(dict(scene.facts.offers)),
        switches=shuffled(dict(scene.facts.switches)),
        devices=tuple(reversed(scene.facts.devices)),
    )
    rules = Rules(shuffled(dict(RULES.person)), shuffled(dict(RULES.channel)))  # type: ignore[arg-type]
    one, other = decided(scene), decided(mixed, rules)
    assert type(one) is type(other)
    assert set(one.reasons) == set(other.reasons)
    if isinstance(one, Send) and isinstance(other, Send):
        assert one.legs == other.legs


@often
@given(scenarios())
def test_every_no_gives_a_reason_for_each_asked_channel(scene: Scenario) -> None:
    decision = decided(scene)
    explained = {reason.channel for reason in decision.reasons}
    if isinstance(decision, Refuse):
        assert explained == set(scene.job.channels)
    if isinstance(decision, Send) and scene.job.route == "all":
        assert explained == set(scene.job.channels) - {leg.channel for leg in decision.legs}
    assert all(reason.evidence and reason.rule for reason in decision.reasons)


@often
@given(scenarios())
def test_a_hold_ends_before_the_job_does_and_for_good(scene: Scenario) -> None:
    held = decided(scene)
    if isinstance(held, Hold):
        assert held.until > scene.now
        assert scene.job.expires_at is None or held.until < scene.job.expires_at
        retry_hint = decided(replace(scene, now=held.until))
        assert not isinstance(retry_hint, Hold)
        assert any(reason.channel not in {other.channel for other in retry_hint.reasons} for reason in held.reasons)


def bomb(*_: object) -> Objection | None:
    raise LookupError("someone@example.org")


@pytest.mark.parametrize("rules", [Rules({"bomb": bomb}, {}), Rules({}, {"bomb": bomb})])
def test_a_rule_that_raises_refuses_and_keeps_its_words_to_itself(rules: Rules) -> None:
    decision = decided(sendable(), rules)
    assert decision == Refuse(tuple(Reason(ReasonCode.FAULT, channel, "bomb", "rule:bomb") for channel in Channel))


def test_facts_that_cannot_be_read_refuse() -> None:
    decision = decided(sendable().with_facts(offers=None))
    assert decision == Refuse(tuple(Reason(ReasonCode.FAULT, channel, "case", "rule:case") for channel in Channel))


def test_a_moment_without_a_zone_and_a_job_without_channels_are_bugs() -> None:
    scene = sendable()
    with pytest.raises(ValueError, match=r"^now needs a time zone$"):
        decide(scene.job, scene.facts, POLICY, scene.now.replace(tzinfo=None))
    with pytest.raises(ValueError, match=r"^a job asks for at least one channel$"):
        decided(scene.with_job(channels=()))


# -- evidence, routes and modes ----------------------------------------------------------------------------------------


def test_evidence_names_the_fact_behind_the_reason() -> None:
    scene = sendable(channels=(Channel.EMAIL, Channel.SMS, Channel.WHATSAPP, Channel.PUSH)).with_facts(
        object_marketing=recorded_choice("on", 9),
        switches={"email": recorded_choice("off", 8)},
        suppressions={"sms": "suppression:4"},
        repeat_of="m-0",
        birth_date=None,
        devices=(),
    )
    decision = decided(scene.with_job(holdout_percent=100.0, expires_at=scene.now))
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
    ("change", "evidence"),
    [
        (lambda s: s.with_job(entity="another-bank"), "policy:entities.another-bank"),
        (lambda s: s.with_facts(offers={"own": recorded_choice("none", 5)}), "policy:basis.own.none"),
        (lambda s: s.with_facts(offers={}), "policy:basis.own.none"),
        (lambda s: s.with_facts(offers={"own": recorded_choice("yes", 5)}), "policy:basis.own.yes"),
        (
            lambda s: s.with_facts(offers={"own": recorded_choice("standard", 5, "provider")}, purchased=frozenset()),
            "policy:basis.own.standard.email",
        ),
    ],
)
def test_a_lacking_basis_names_the_place_in_the_policy(change: Disturbance, evidence: str) -> None:
    decision = decided(change(sendable(channels=(Channel.EMAIL,))))
    assert {reason.evidence for reason in decision.reasons if reason.code is ReasonCode.NO_BASIS} == {evidence}


def test_a_service_message_too_needs_a_place_in_the_policy() -> None:
    policy = parse(shipped().replace('[basis.service]\npush = "service"\n', "[basis.service]\n"))
    scene = sendable(None, channels=(Channel.PUSH,))
    expected = Reason(ReasonCode.NO_BASIS, Channel.PUSH, "basis", "policy:basis.service.push")
    assert decide(scene.job, scene.facts, policy, scene.now) == Refuse((expected,))


@pytest.mark.parametrize(
    ("scene", "evidence"),
    [
        (sendable(choice="standard").with_brief(modes=frozenset({Mode.TAILORED})), "consent:1"),
        (sendable(choice="standard").with_brief(modes=frozenset()), "template:spring"),
        (sendable().with_brief(modes=frozenset()), "template:spring"),
        (sendable(OfferType.KATE, "standard").with_brief(coins=True, modes=frozenset({Mode.STANDARD})), "consent:3"),
        (sendable(OfferType.KATE).with_facts(object_profiling=recorded_choice("on", 9)), "consent:9"),
        (
            sendable().with_facts(object_profiling=recorded_choice("off", 9)).with_brief(modes=frozenset()),
            "template:spring",
        ),
        (sendable(None).with_brief(modes=frozenset({Mode.TAILORED})), "template:opt-out-acknowledgement"),
    ],
)
def test_a_rendering_that_is_not_allowed_is_blamed_on_choice_objection_or_template(scene: Scenario, evidence: str) -> None:
    decision = decided(scene)
    assert {reason.evidence for reason in decision.reasons if reason.code is ReasonCode.MODE_NOT_ALLOWED} == {evidence}


def test_a_commercial_template_without_an_offer_type_finds_no_choice() -> None:
    decision = decided(sendable().with_brief(offer_type=None))
    assert isinstance(decision, Refuse)
    assert (decision.headline.code, decision.headline.evidence) == (ReasonCode.NO_CHOICE, "template:spring")


def test_route_first_takes_the_asked_order_and_says_why_it_passed_others_over() -> None:
    scene = sendable(channels=(Channel.SMS, Channel.EMAIL, Channel.PUSH)).with_facts(phone=None)
    decision = decided(scene)
    assert isinstance(decision, Send)
    assert [leg.channel for leg in decision.legs] == [Channel.EMAIL]
    assert decision.reasons == (Reason(ReasonCode.NO_ADDRESS, Channel.SMS, "address", "recipient:sms"),)


def test_a_channel_asked_twice_is_one_leg() -> None:
    decision = decided(sendable(channels=(Channel.EMAIL, Channel.EMAIL), route="all"))
    assert isinstance(decision, Send)
    assert len(decision.legs) == 1


def test_what_a_choice_may_be_written_in() -> None:
    def mode(scene: Scenario) -> Mode | None:
        decision = decided(scene)
        return decision.legs[0].mode if isinstance(decision, Send) else None

    objecting = {"object_profiling": recorded_choice("on", 3)}
    assert mode(sendable()) is Mode.TAILORED
    assert mode(sendable().with_brief(modes=frozenset({Mode.STANDARD}))) is Mode.STANDARD
    assert mode(sendable().with_facts(**objecting)) is Mode.STANDARD
    assert mode(sendable().with_facts(**objecting).with_brief(modes=frozenset({Mode.TAILORED}))) is None
    assert mode(sendable(choice="standard")) is Mode.STANDARD
    assert mode(sendable(OfferType.KATE).with_facts(**objecting)) is None
    assert mode(sendable(OfferType.KATE, "standard").with_brief(coins=True, modes=BOTH)) is None


def test_a_standard_message_may_use_less_than_a_tailored_one() -> None:
    tailored, standard, service = (decided(sendable(*kind)) for kind in ((), (OfferType.OWN, "standard"), (None,)))
    assert isinstance(tailored, Send)
    assert isinstance(standard, Send)
    assert isinstance(service, Send)
    assert service.legs[0].categories == POLICY.categories["service"]
    assert "transactions" in tailored.legs[0].categories
    assert standard.legs[0].categories < tailored.legs[0].categories
    assert "transactions" not in standard.legs[0].categories | service.legs[0].categories


def test_a_service_message_does_not_ask_for_choices() -> None:
    silent = sendable(None).with_facts(offers={}, switches={}, object_marketing=recorded_choice("on", 1), birth_date=None)
    night = replace(silent.with_job(holdout_percent=100.0), now=datetime(2026, 11, 23, 23, 0, tzinfo=UTC))
    decision = decided(night)
    assert isinstance(decision, Send)
    assert decision.legs[0].basis == "service"
    assert isinstance(decided(night.with_facts(suppressions={name.value: "suppression:1" for name in Channel})), Refuse)


def test_a_household_s_data_is_only_for_who_has_a_registered_partner() -> None:
    def allowed(scene: Scenario) -> frozenset[str]:
        decision = decided(scene)
        assert isinstance(decision, Send)
        return decision.legs[0].categories

    alone = allowed(sendable())
    assert "household" not in alone
    assert allowed(sendable().with_facts(partner_id="c-2")) == alone | {"household"}
    assert "household" not in allowed(sendable(choice="standard").with_facts(partner_id="c-2"))


@pytest.mark.parametrize(
    ("scene", "basis", "evidence"),
    [
        (sendable(), "contract", "consent:1"),
        (sendable(choice="standard"), "soft_opt_in", "policy:soft_opt_in.products.mortgage"),
        (sendable(OfferType.PARTNER, "standard"), "consent", "consent:2"),
        (sendable(None), "service", "policy:basis.service.email"),
    ],
)
def test_a_leg_names_what_permits_it(scene: Scenario, basis: str, evidence: str) -> None:
    decision = decided(scene.with_job(channels=(Channel.EMAIL,)))
    assert isinstance(decision, Send)
    assert [(leg.basis, leg.evidence) for leg in decision.legs] == [(basis, evidence)]


# -- the soft opt-in ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "basis"),
    [
        (lambda s: s, "soft_opt_in"),
        (lambda s: s.with_facts(purchased=frozenset({"insurance"})), "consent"),
        (lambda s: s.with_facts(purchased=frozenset({"never heard of"})), "consent"),
        (lambda s: s.with_facts(entities=frozenset({"kbc-bank", "cbc-banque"})), "consent"),
        (lambda s: s.with_facts(entities=frozenset({"cbc-banque"})), "consent"),
        (lambda s: s.with_job(entity="kbc-insurance"), "consent"),
        (lambda s: s.with_brief(offer_type=OfferType.PARTNER), "consent"),
        (lambda s: s.with_brief(product=None), "consent"),
        (lambda s: s.with_facts(purchased=frozenset(), offers={"own": recorded_choice("standard", 1, "unsubscribe")}), None),
    ],
)
def test_the_soft_opt_in_is_for_own_analogous_products_of_the_same_entity(
    change: Callable[[Scenario], Scenario], basis: str | None
) -> None:
    decision = decided(change(sendable(choice="standard", channels=(Channel.EMAIL,))))
    assert (decision.legs[0].basis if isinstance(decision, Send) else None) == basis


def test_the_soft_opt_in_needs_the_objection_to_have_been_offered() -> None:
    policy = parse(shipped().replace("objection_offered = true", "objection_offered = false"))
    scene = sendable(choice="standard", channels=(Channel.EMAIL,))
    decision = decide(scene.job, scene.facts, policy, scene.now)
    assert isinstance(decision, Send)
    assert decision.legs[0].basis == "consent"


# -- clocks ------------------------------------------------------------------------------------------------------------


def test_a_birthday_counts_by_the_recipients_own_calendar() -> None:
    scene = sendable().with_facts(birth_date=date(2008, 11, 24), timezone="Pacific/Auckland")
    eve_in_brussels = datetime(2026, 11, 23, 11, 0, tzinfo=UTC)  # midnight in Auckland
    assert isinstance(decided(replace(scene, now=eve_in_brussels).with_job(channels=(Channel.EMAIL,))), Send)
    assert codes(decided(replace(scene, now=eve_in_brussels - timedelta(seconds=1)))) >= {ReasonCode.MINOR}


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-03-29T00:15", "2026-03-29T01:30"),  # 02:30 does not exist that night: 03:30 summer time
        ("2026-10-25T00:15", "2026-10-25T01:30"),  # 02:30 comes twice: the second one
        ("2026-10-25T01:15", "2026-10-25T01:30"),
        ("2026-10-24T23:59", "2026-10-25T01:30"),
    ],
)
def test_quiet_hours_survive_both_changes_of_the_clock(now: str, until: str) -> None:
    hours = QuietHours(time(22, 0), time(2, 30))
    policy = replace(POLICY, quiet_hours={Channel.SMS: hours})
    scene = sendable(channels=(Channel.SMS,))
    start = datetime.fromisoformat(now).replace(tzinfo=UTC)
    decision = decide(scene.job, scene.facts, policy, start)
    assert isinstance(decision, Hold)
    assert decision.until == datetime.fromisoformat(until).replace(tzinfo=UTC)
    assert decision.until.tzinfo is UTC  # as it is kept, wherever the program runs
    assert not hours.covers(decision.until.astimezone(ZoneInfo("Europe/Brussels")).time())


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-11-21T21:00", "2026-11-23T08:00"),  # Saturday night, over Sunday, to Monday at nine
        ("2026-05-23T18:30", "2026-05-26T07:00"),  # the eve of Whitsun: Sunday, then a public holiday
        ("2026-12-25T11:00", "2026-12-26T08:00"),  # Christmas noon: the day after is an ordinary Saturday
        ("2026-03-28T20:00", "2026-03-30T07:00"),  # over a silent day with 23 hours
        ("2026-10-24T20:00", "2026-10-26T08:00"),  # over one with 25
        ("2026-11-10T22:59", "2026-11-12T08:00"),  # a minute before Armistice Day
    ],
)
def test_silent_days_hold_until_somebody_may_be_disturbed(now: str, until: str) -> None:
    scene = replace(sendable(channels=(Channel.SMS,)), now=datetime.fromisoformat(now).replace(tzinfo=UTC))
    decision = decided(scene)
    assert isinstance(decision, Hold)
    assert decision.until == datetime.fromisoformat(until).replace(tzinfo=UTC)
    assert isinstance(decided(replace(scene, now=decision.until)), Send)
    assert isinstance(decided(scene.with_job(expires_at=decision.until)), Refuse)


@pytest.mark.parametrize("channels", [(Channel.SMS, Channel.PUSH), (Channel.PUSH, Channel.SMS)])
def test_a_hold_lasts_until_the_first_channel_opens(channels: tuple[Channel, ...]) -> None:
    evening = datetime(2026, 11, 23, 21, 0, tzinfo=UTC)
    hours = {Channel.SMS: QuietHours(time(20, 0), time(9, 0)), Channel.PUSH: QuietHours(time(20, 0), time(7, 0))}
    scene = sendable(channels=channels)
    decision = decide(scene.job, scene.facts, replace(POLICY, quiet_hours=hours), evening)
    assert isinstance(decision, Hold)
    assert decision.until == datetime(2026, 11, 24, 6, 0, tzinfo=UTC)


def test_a_silent_day_ends_at_midnight_where_the_night_is_not_quiet() -> None:
    siesta = QuietHours(time(12, 0), time(14, 0), weekdays=frozenset({6}))
    policy = replace(POLICY, quiet_hours={Channel.SMS: siesta})
    scene = sendable(channels=(Channel.SMS,))
    decision = decide(scene.job, scene.facts, policy, datetime(2026, 11, 22, 9, 0, tzinfo=UTC))  # Sunday at ten
    assert isinstance(decision, Hold)
    assert decision.until == datetime(2026, 11, 22, 23, 0, tzinfo=UTC)  # Monday, in Brussels


def test_a_silent_day_begins_and_ends_where_the_recipient_lives() -> None:
    sunday_in_auckland = datetime(2026, 11, 21, 23, 0, tzinfo=UTC)  # there it is Sunday noon
    scene = replace(sendable(channels=(Channel.SMS,)), now=sunday_in_auckland).with_facts(timezone="Pacific/Auckland")
    decision = decided(scene)
    assert isinstance(decision, Hold)
    assert decision.until == datetime(2026, 11, 22, 20, 0, tzinfo=UTC)


def test_a_hold_that_would_outlast_the_job_is_an_expiry() -> None:
    night = replace(sendable(channels=(Channel.SMS,)), now=datetime(2026, 11, 23, 20, 0, tzinfo=UTC))
    morning = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
    assert decided(night.with_job(expires_at=morning + timedelta(seconds=1))) == decided(night)
    decision = decided(night.with_job(expires_at=morning))
    assert isinstance(decision, Refuse)
    assert decision.headline == Reason(ReasonCode.EXPIRED, Channel.SMS, "expiry", "job:expires_at")


@pytest.mark.parametrize(
    ("hours", "quiet"),
    [
        (QuietHours(time(12, 0), time(14, 0)), [False, True, True, False, False]),
        (QuietHours(time(14, 0), time(12, 0)), [True, False, False, True, True]),
    ],
)
def test_quiet_hours_begin_on_the_stroke_and_end_on_it(hours: QuietHours, quiet: list[bool]) -> None:
    clocks = (time(11, 59, 59), time(12, 0), time(13, 59, 59), time(14, 0), time(23, 0))
    assert [hours.covers(clock) for clock in clocks] == quiet


@pytest.mark.parametrize(("minutes", "until"), [(-1, 0), (0, 24 * 60), (1, 24 * 60)])
def test_the_next_time_a_clock_shows_is_never_now(minutes: int, until: int) -> None:
    midnight = datetime(2026, 11, 23, tzinfo=UTC)
    assert next_time(midnight + timedelta(minutes=minutes), time(0, 0), UTC) == midnight + timedelta(minutes=until)


# -- frequency caps ----------------------------------------------------------------------------------------------------


def test_each_cap_counts_its_own_channels_and_offers_and_all_of_them_apply() -> None:
    caps = """
caps = [
    { name = "partner", offer_types = ["partner"], max = 1, window = "36 hours" },
    { name = "texts", channels = ["sms", "whatsapp"], max = 2, window = "calendar_day" },
]
"""
    text = shipped()
    policy = parse(caps + text[: text.index("[[caps]]")] + text[text.index("[rests]") :])

    def capped(scene: Scenario) -> dict[str, str]:
        decision = decide(scene.job, scene.facts, policy, scene.now)
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
    assert isinstance(decided(service), Send)
    assert isinstance(decided(service.with_brief(offer_type=OfferType.OWN)), Send)  # it is the kind that counts


def test_a_calendar_day_is_the_recipients_own() -> None:
    scene = received(2, Channel.SMS, seconds_ago=3600)(sendable(channels=(Channel.SMS,)))
    midnight_in_auckland = replace(scene, now=datetime(2026, 11, 23, 11, 30, tzinfo=UTC))
    assert codes(decided(midnight_in_auckland)) == {ReasonCode.FREQUENCY_CAPPED}
    policy = replace(POLICY, quiet_hours={})
    there = midnight_in_auckland.with_facts(timezone="Pacific/Auckland", sent=scene.facts.sent)
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
def test_what_was_sent_is_asked_for_as_far_back_as_some_cap_looks(
    windows: tuple[float | None, ...], back: timedelta | None
) -> None:
    policy = replace(POLICY, caps=tuple(replace(POLICY.caps[0], rolling_seconds=window) for window in windows))
    assert policy.caps_since(NOON) == (None if back is None else NOON - back)


# -- the control group -------------------------------------------------------------------------------------------------


def test_the_control_group_is_the_announced_share_and_always_the_same_people() -> None:
    def group(campaign: str, percent: float) -> set[int]:
        return {n for n in range(4000) if share_percent("2026", campaign, f"c-{n}") < percent}

    ten, twenty, other = group("spring", 10), group("spring", 20), group("summer", 10)
    assert ten == group("spring", 10)
    assert ten < twenty
    assert 320 < len(ten) < 480  # 400 expected, four standard deviations
    assert 10 < len(ten & other) < 80  # another campaign draws anew


def test_a_variant_is_drawn_evenly_and_apart_from_the_control_group() -> None:
    variants = (("a", "spring"), ("b", "spring-short"), ("c", "spring-long"))
    people = [f"c-{n}" for n in range(3000)]
    drawn = {each: variant_of("2026", variants, "spring", each) for each in people}
    share = {template: sum(each == template for each in drawn.values()) for _, template in variants}
    assert all(896 < count < 1104 for count in share.values())  # 1000 expected, four standard deviations
    held_out = [template for each, template in drawn.items() if share_percent("2026", "spring", each) < 20]
    assert all(140 < held_out.count(template) < 260 for template in share)  # of 600, 200 expected


@pytest.mark.parametrize("who", ["c-1", "c-2"])
def test_a_control_group_is_exactly_those_drawn_below_its_share(who: str) -> None:
    scene = sendable().with_facts(recipient_id=who).with_job(recipient_id=who)
    drawn = share_percent(POLICY.holdout_salt, "spring-2026", who)
    assert isinstance(decided(scene.with_job(holdout_percent=drawn)), Send)
    assert codes(decided(scene.with_job(holdout_percent=math.nextafter(drawn, 100)))) == {ReasonCode.HELD_OUT}


def test_a_small_control_group_is_one_too_and_without_a_campaign_there_is_none() -> None:
    salt = POLICY.holdout_salt
    drawn_low = next(who for who in map("c-{}".format, range(9999)) if share_percent(salt, "spring-2026", who) < 0.5)
    scene = sendable().with_facts(recipient_id=drawn_low).with_job(recipient_id=drawn_low, holdout_percent=0.5)
    assert codes(decided(scene)) == {ReasonCode.HELD_OUT}
    assert isinstance(decided(scene.with_job(campaign_id=None)), Send)


def test_draws_outlive_the_program_that_made_them() -> None:
    """A running campaign's control group and variants must not change with a new version: these numbers stay for ever."""
    assert [round(share_percent("2026", *draw), 9) for draw in (("spring", "c-1"), ("spring", "c-2"), ("summer", "c-1"))] == [
        59.161597806,
        98.640019639,
        72.35183808,
    ]
    variants = (("a", "A"), ("b", "B"), ("c", "C"))
    drawn = "".join(variant_of("2026", variants, "spring", f"c-{n}") for n in range(3000))
    assert (drawn[:8], *map(drawn.count, "ABC")) == ("BBCCBBAA", 974, 1010, 1016)


def test_nobody_is_held_out_who_would_not_have_got_the_message() -> None:
    decision = decided(ALONE["switch"][0].with_job(holdout_percent=100.0))
    assert isinstance(decision, Refuse)
    assert decision.headline.code is ReasonCode.CHANNEL_OFF


# -- the file ----------------------------------------------------------------------------------------------------------


def faults_of(*changes: tuple[str, str]) -> list[str]:
    text = shipped()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    with pytest.raises(InvalidPolicy) as caught:
        parse(text, "bank.toml")
    return [str(fault) for fault in caught.value.faults]


def test_all_faults_of_a_policy_file_are_named_at_once() -> None:
    faults = faults_of(
        ("adult_years = 18", "adult_yaers = 18"),
        ("cap_seconds = 3600", "cap_seconds = 3"),
        ('whatsapp = "contract"', 'whatsap = "contract"'),
        ("from = 21:00:00", "from = 08:00:00"),
    )
    assert faults == [
        "bank.toml: ages.adult_years: is missing",
        "bank.toml: ages.adult_yaers: unknown key; did you mean adult_years?",
        "bank.toml: basis.own.tailored.whatsap: unknown key; did you mean whatsapp?",
        "bank.toml: quiet_hours.push: from and to must differ; a channel that is never used has no basis instead",
        "bank.toml: retry.cap_seconds = 3.0: not less than base_seconds",
    ]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('email = "consent"', 'email = "soft_opt_in"', "basis.partner.standard.email = 'soft_opt_in'"),
        ('email = "contract"', 'email = "legitimate_interest"', "basis.own.tailored.email = 'legitimate_interest'"),
        ('"preference_centre", "import"]', '"provider"]', "consent.sources = 'provider'"),
        ('sms_whatsapp = ["sms", "whatsapp"]', 'sms_whatsapp = ["sms"]', "channel_groups.sms_whatsapp: must hold"),
        (
            'standard = ["identity",',
            'standard = ["shoe_size", "identity",',
            "categories.standard = ['shoe_size']: standard may not use more than tailored does",
        ),
        ("adult_years = 18", "adult_years = true", "ages.adult_years = True: a whole number"),
        (
            'default_zone = "Europe/Brussels"',
            'default_zone = "Europe/Brusels"',
            "bank.toml: default_zone = 'Europe/Brusels': a time zone such as Europe/Brussels",
        ),
        ("[holdout]", "[holdout", "bank.toml: the file: is not TOML: "),
        ("on = 2026-11-23", 'on = "soon"', "signed.on = 'soon': a date such as"),
        ("needs_current_account = true", 'needs_current_account = "yes"', "true or false"),
        (
            'sender_address = "news@kbc-bank.example"',
            'sender_address = "news"',
            "bank.toml: entities.kbc-bank.sender_address = 'news': an e-mail address",
        ),
        (
            'controllers = ["KBC Bank NV"]',
            "controllers = []",
            "bank.toml: entities.kbc-bank.controllers: at least one company that answers",
        ),
        ("[basis.own.tailored]", "[basis.own.tailord]", "basis.own.tailord: unknown key; did you mean tailored?"),
        ('push = "service"', 'push = "servise"', "basis.service.push = 'servise': unknown; did you mean service?"),
        ('email = ["email"]', 'email = ["emial"]', "channel_groups.email = 'emial': unknown; did you mean email?"),
        ('sold_by = ["kbc-insurance"]', 'sold_by = ["kbc-insurence"]', "did you mean kbc-insurance?"),
        (
            'analogous = ["insurance"]',
            'analogous = ["insurence"]',
            "soft_opt_in.products.insurance.analogous = 'insurence': unknown; did you mean",
        ),
        ("[coins]", "[[coins]]", "bank.toml: coins = [{'needs_current_account': True}]: a table"),
        ('by = "example policy, signed by nobody"', 'by = " "', "signed.by = ' ': a text in quotes"),
        ('service = ["identity"', 'service = [7, "identity"', "'partner_offer', 'coins', 'contact']: a list of words"),
        (
            'service = ["identity"',
            'service = ["identity", "identity"',
            "'identity', 'language', 'product', 'partner_offer', 'coins', 'contact']: each word once",
        ),
        ("base_seconds = 30", "base_seconds = 0", "retry.base_seconds = 0: a number from 1 to 86400"),
        ('window = "7 days"', 'window = "7 dayz"', "caps.1.window = '7 dayz': calendar_day, or a length such as"),
        ('window = "7 days"', 'window = "0 days"', "caps.1.window = '0 days'"),
        ('window = "7 days"', "", "caps.1.window: is missing"),
        ("max = 7", "max = 0", "caps.1.max = 0: a whole number"),
        ('name = "a_week"', 'name = "text_messages_a_day"', "caps.2.name = 'text_messages_a_day': another cap has this name"),
        ('channels = ["sms", "whatsapp"]\nmax', 'channels = ["smss"]\nmax', "did you mean sms?"),
        ('public_holidays = "BE"', 'public_holidays = "Atlantis"', "public_holidays = 'Atlantis': a country such as BE"),
        ('silent_days = ["sunday", "pub', 'silent_days = ["sonday", "pub', "did you mean sunday?"),
        (
            'silent_days = ["sunday", "pub',
            'silent_days = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday", "pub',
            "quiet_hours.sms.silent_days: leaves no day",
        ),
        ("complaint_rate_pause = 0.003", "complaint_rate_pause = 0.0003", "complaint_rate_pause = 0.0003: not less than"),
        ("audience_min = 500_000", "audience_min = -1", "four_eyes.audience_min = -1: a whole number"),
        (
            '{ products = ["loan"] }',
            '{ products = ["laon"] }',
            "topics.consumer_credit.products = 'laon': unknown; did you mean loan?",
        ),
        (
            "contact =",
            'senders = { sms = "A far too long name" }\ncontact =',
            "entities.kbc-bank.senders.sms = 'A far too long name': a number",
        ),
        ("contact =", 'senders = { whatsapp = "KBC" }\ncontact =', "entities.kbc-bank.senders.whatsapp = 'KBC': a number such as"),
        ("contact =", 'senders = { push = "KBC" }\ncontact =', "entities.kbc-bank.senders.push: unknown key"),
        (
            'channels = ["sms", "whatsapp"]\nmax',
            'offer_types = ["onw"]\nmax',
            "caps.2.offer_types = 'onw': unknown; did you mean own?",
        ),
        ('channels = ["sms", "whatsapp"]\nmax', 'chanels = ["sms"]\nmax', "caps.2.chanels: unknown key; did you mean channels?"),
        ('window = "7 days"', 'window = "367 days"', "caps.1.window = '367 days': calendar_day, or a length"),
        ("push = { from = 21", "pusch = { from = 21", "quiet_hours.pusch: unknown key; did you mean push?"),
        ("from = 21:00:00", 'from = "21:00"', "quiet_hours.push.from = '21:00': a time such as 21:00:00"),
        ("whatsapp = { codes", "whatsup = { codes", "rests.whatsup: unknown key; did you mean whatsapp?"),
        ("templates = true", 'templates = "loan_offer"', "four_eyes.templates = 'loan_offer': true or false"),
        ('content = "30 days"', 'content = "a month"', "retention.content = 'a month': a length such as"),
        ('content = "30 days"', 'content = "0 days"', "retention.content = '0 days'"),
        ('content = "30 days"', 'content = "3651 days"', "retention.content = '3651 days': not longer than decisions"),
        ('news = "30 days"', 'news = "101 years"', "retention.news = '101 years': a length such as"),
        ('answers = "30 days"', 'anwsers = "30 days"', "retention.anwsers: unknown key; did you mean answers?"),
        ('decisions = "10 years"', 'decisions = "364 days"', "retention.decisions = '364 days': a year at least"),
        ('consent = "10 years"', 'consent = "9 years"', "retention.consent = '9 years': not shorter than decisions"),
        ("attempts_max = 6", "attempts_max = 6.5", "retry.attempts_max = 6.5: a whole number from 1 to 100"),
    ],
)
def test_a_policy_that_contradicts_itself_or_the_law_is_not_accepted(old: str, new: str, fault: str) -> None:
    assert any(fault in line for line in faults_of((old, new)))


BOUNDS = [
    ("max = 7", "caps.1.max", 1, 10_000),
    ("attempts_max = 6", "retry.attempts_max", 1, 100),
    ("base_seconds = 30", "retry.base_seconds", 1, 3600),  # more would exceed cap_seconds
    ("cap_seconds = 3600", "retry.cap_seconds", 30, 604_800),  # less would fall below base_seconds
    ("throttle_seconds = 60", "retry.throttle_seconds", 1, 86_400),
    ("stopped_seconds = 300", "retry.stopped_seconds", 1, 86_400),
    ("complaint_rate_warn = 0.001", "brake.complaint_rate_warn", 0, 0.003),  # as often warned as paused at the most
    ("complaint_rate_pause = 0.003", "brake.complaint_rate_pause", 0.001, 1),
    ("bounce_rate_pause = 0.05", "brake.bounce_rate_pause", 0, 1),
    ("minimum = 1000", "brake.minimum", 1, 10_000_000),
    ("audience_min = 500_000", "four_eyes.audience_min", 0, 1_000_000_000),
    ("adult_years = 18", "ages.adult_years", 1, 120),
    ("hours = 24", "rests.whatsapp.hours", 1, 8_784),
]


@pytest.mark.parametrize(("written", "key", "least", "most"), BOUNDS)
def test_a_number_is_taken_up_to_its_bounds_and_not_beyond(written: str, key: str, least: float, most: float) -> None:
    name = written.partition(" = ")[0]
    for right in (least, most):
        parse(shipped().replace(written, f"{name} = {right}", 1))
    below = least - 1 if isinstance(least, int) else least / 2
    for wrong in (below, most + 1):
        faults = faults_of((written, f"{name} = {wrong}"))
        assert any(fault.startswith(f"bank.toml: {key} = ") or "not less than" in fault for fault in faults)


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ('window = "7 days"', 'window = "366 days"'),
        ('window = "7 days"', 'window = "1 minutes"'),
        ('decisions = "10 years"', 'decisions = "3650 days"'),
        ('consent = "10 years"', 'consent = "100 years"'),
        ('consent = "10 years"', 'consent = "36500 days"'),
        ('content = "30 days"', 'content = "10 years"'),
        ('content = "30 days"', 'content = "1 days"'),
    ],
)
def test_a_length_is_taken_up_to_its_bounds(written: str, right: str) -> None:
    parse(shipped().replace(written, right, 1))


@pytest.mark.parametrize("wrong", ["100 years 1", "101 years", "36501 days", "-1 days", "1  days", "days", "٣ days", "1.5 years"])
def test_a_length_that_is_none_is_not_taken(wrong: str) -> None:
    [fault] = faults_of(('consent = "10 years"', f'consent = "{wrong}"'))
    assert fault.startswith(f"bank.toml: retention.consent = {wrong!r}: a length such as")


def test_a_year_is_the_least_that_decisions_are_kept() -> None:
    shorter = shipped().replace('decisions = "10 years"', 'decisions = "1 years"')
    assert parse(shorter).retention.decisions.days == 365


def test_there_is_an_entity_at_least_and_faults_stand_one_to_a_line() -> None:
    text = shipped()
    start, end = text.index("[entities.kbc-bank]"), text.index("[basis.own.tailored]")
    with pytest.raises(InvalidPolicy) as caught:
        parse(f"entities = {{}}\n{text[:start]}{text[end:]}")
    lines = str(caught.value).splitlines()
    assert "policy.toml: entities: at least one entity" in lines
    assert len(lines) == len(caught.value.faults) > 1


def test_caps_are_a_list_of_tables_and_may_be_none() -> None:
    before, _, after = shipped().partition("[[caps]]")
    rest = after[after.index("[rests]") :]
    assert parse(f"caps = []\n{before}{rest}").caps == ()
    with pytest.raises(InvalidPolicy) as caught:
        parse(f"caps = 7\n{before}{rest}")
    assert str(caught.value) == "policy.toml: caps = 7: tables headed [[caps]], or caps = []"


def test_what_the_file_says_is_what_the_policy_holds() -> None:
    policy = parse(shipped().replace("cap_seconds = 3600", "cap_seconds = 30"))
    assert policy.retry == RetryPolicy(6, 30.0, 30.0, 60.0, 300.0)
    assert (policy.default_zone, policy.adult_years, policy.signed_on) == ("Europe/Brussels", 18, date(2026, 11, 23))
    assert policy.entities["kbc-insurance"].names["fr"] == "KBC Assurances"
    assert policy.topics == {"consumer_credit": {"loan"}}
    assert len(policy.digest) == 64


def test_a_term_is_counted_by_the_calendar() -> None:
    leap, noon = datetime(2028, 2, 29, 12, tzinfo=UTC), datetime(2026, 11, 23, 12, tzinfo=UTC)
    assert POLICY.retention.prospects.before(leap) == datetime(2023, 2, 28, 12, tzinfo=UTC)
    assert POLICY.retention.decisions.before(noon) == datetime(2016, 11, 23, 12, tzinfo=UTC)
    assert POLICY.retention.content.before(noon) == datetime(2026, 10, 24, 12, tzinfo=UTC)
    assert str(POLICY.retention.decisions) == "10 years"


def test_a_missing_table_is_one_fault_and_not_one_per_key_in_it() -> None:
    with pytest.raises(InvalidPolicy) as caught:
        parse("")
    places = [fault.key for fault in caught.value.faults]
    assert len(places) == len(set(places)) == 21
    assert all(fault.expected == "is missing" for fault in caught.value.faults)


def test_an_entity_may_open_a_place_that_the_common_tables_leave_shut() -> None:
    text = shipped()
    start, end = text.index("[basis.kate.tailored]"), text.index("[basis.service]")
    opened = '[entities.kbc-bank.basis.kate.tailored]\nemail = "contract"\n[entities.kbc-bank.basis.partner.tailored]\nsms = []\n'
    policy = parse(text[:start] + opened + text[end:])
    kate = policy.basis["kbc-bank"]["kate"]
    assert {choice: set(row) for choice, row in kate.items()} == {"tailored": {Channel.EMAIL}}
    assert "kate" not in policy.basis["cbc-banque"]
    partner = policy.basis["kbc-bank"]["partner"]
    assert (partner["tailored"][Channel.SMS], len(partner["tailored"][Channel.EMAIL]), len(partner["standard"])) == ((), 1, 4)


def test_an_entity_may_have_senders_of_its_own_for_text_messages() -> None:
    text = shipped().replace("contact =", 'senders = { sms = "KBC", whatsapp = "+32460000002" }\ncontact =', 1)
    assert parse(text).entities["kbc-bank"].senders == {Channel.SMS: "KBC", Channel.WHATSAPP: "+32460000002"}
    assert POLICY.entities["kbc-bank"].senders == {}


def test_a_policy_of_an_older_version_still_tells_in_whose_name_and_by_which_age() -> None:
    older = (
        shipped()
        .partition("[retention]")[0]
        .replace("KBC Bank NV", "Kredietbank NV")
        .replace("adult_years = 18", "adult_years = 21")
    )
    with pytest.raises(InvalidPolicy):
        parse(older)
    then = parse_former(older, POLICY)
    assert (then.entities["kbc-bank"].controllers, then.adult_years, then.retention) == (("Kredietbank NV",), 21, POLICY.retention)
    assert then.digest == hashlib.sha256(older.encode()).hexdigest()
    assert parse_former(older.replace("Europe/Brussels", "Europe/Lisbon"), POLICY).default_zone == "Europe/Lisbon"
    assert parse_former(shipped(), POLICY) == POLICY
    for hopeless in ("", "[", "default_zone = 7\n[ages]\nadult_years = 'x'"):
        bare = parse_former(hopeless, POLICY)
        assert (bare.entities, bare.default_zone, bare.adult_years) == (POLICY.entities, POLICY.default_zone, POLICY.adult_years)


def test_an_entity_may_close_a_single_place_of_the_basis() -> None:
    text = shipped().replace(
        "# [entities.kbc-insurance.basis.own.standard]\n# whatsapp",
        "[entities.kbc-insurance.basis.own.standard]\nwhatsapp",
    )
    policy = parse(text)
    assert policy.digest != POLICY.digest
    scene = sendable(choice="standard", route="all").with_job(entity="kbc-insurance")
    decision = decide(scene.job, scene.facts, policy, scene.now)
    assert isinstance(decision, Send)
    assert {reason.channel for reason in decision.reasons} == {Channel.WHATSAPP}
    assert codes(decision) == {ReasonCode.NO_BASIS}
    assert decide(scene.with_job(entity="kbc-bank").job, scene.facts, policy, scene.now).reasons == ()


@pytest.mark.parametrize("unknown", [None, "", "Mars/Olympus", "../etc/passwd", "Europe"])
def test_an_unknown_zone_is_the_policys_own_and_not_no_quiet_hours(unknown: str | None) -> None:
    policy = replace(POLICY, default_zone="Pacific/Auckland")  # 13 hours ahead of UTC in November
    scene = sendable(channels=(Channel.SMS,)).with_facts(timezone=unknown)
    late, noon = datetime(2026, 11, 23, 8, 0, tzinfo=UTC), datetime(2026, 11, 22, 23, 0, tzinfo=UTC)
    assert isinstance(decide(scene.job, scene.facts, policy, late), Hold)
    assert isinstance(decide(scene.job, scene.facts, policy, noon), Send)

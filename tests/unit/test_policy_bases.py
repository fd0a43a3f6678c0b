"""Lawful bases: their conditions, their evidence, and the soft opt-in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from channels.base import Channel
from dispatcher.domain.decision import Reason, ReasonCode, Refuse, Send
from dispatcher.domain.message import OfferType
from dispatcher.policy import decide, parse, shipped
from dispatcher.policy.case import DecisionCase, find_basis
from dispatcher.policy.data import BasisGrant
from tests.support.policy_decisions import POLICY, decide_scenario
from tests.support.strategies import (
    Disturbance,
    PolicyScenario,
    recorded_choice,
    sendable,
)

# -- general properties ------------------------------------------------------------------------------------------------


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
def test_a_basis_checks_its_conditions_in_every_cell(basis: str, offer: OfferType | None, choice: str) -> None:
    row = {Channel.EMAIL: (BasisGrant(basis, "policy:basis.wrong"),)}
    policy = replace(POLICY, basis={"kbc-bank": {offer or "service": {choice: row}}})
    scenario = sendable(offer, choice)
    assert find_basis(DecisionCase(scenario.job, scenario.facts, policy, scenario.now), Channel.EMAIL) is None


# -- evidence, routes and modes ----------------------------------------------------------------------------------------


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
def test_a_missing_basis_names_the_key_of_the_policy(change: Disturbance, evidence: str) -> None:
    decision = decide_scenario(change(sendable(channels=(Channel.EMAIL,))))
    assert {reason.evidence for reason in decision.reasons if reason.code is ReasonCode.NO_BASIS} == {evidence}


def test_a_service_message_needs_a_basis_too() -> None:
    policy = parse(shipped().replace('[basis.service]\npush = "service"\n', "[basis.service]\n"))
    scenario = sendable(None, channels=(Channel.PUSH,))
    expected = Reason(ReasonCode.NO_BASIS, Channel.PUSH, "basis", "policy:basis.service.push")
    assert decide(scenario.job, scenario.facts, policy, scenario.now) == Refuse((expected,))


@pytest.mark.parametrize(
    ("scenario", "basis", "evidence"),
    [
        (sendable(), "contract", "consent:1"),
        (sendable(choice="standard"), "soft_opt_in", "policy:soft_opt_in.products.mortgage"),
        (sendable(OfferType.PARTNER, "standard"), "consent", "consent:2"),
        (sendable(None), "service", "policy:basis.service.email"),
    ],
)
def test_a_leg_names_its_basis_and_evidence(scenario: PolicyScenario, basis: str, evidence: str) -> None:
    decision = decide_scenario(scenario.with_job(channels=(Channel.EMAIL,)))
    assert isinstance(decision, Send)
    assert [(permission.basis, permission.evidence) for permission in decision.permissions] == [(basis, evidence)]


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
        (lambda s: s.with_template(offer_type=OfferType.PARTNER), "consent"),
        (lambda s: s.with_template(product=None), "consent"),
        (lambda s: s.with_facts(purchased=frozenset(), offers={"own": recorded_choice("standard", 1, "unsubscribe")}), None),
    ],
)
def test_the_soft_opt_in_needs_an_analogous_own_product(
    change: Callable[[PolicyScenario], PolicyScenario], basis: str | None
) -> None:
    decision = decide_scenario(change(sendable(choice="standard", channels=(Channel.EMAIL,))))
    assert (decision.permissions[0].basis if isinstance(decision, Send) else None) == basis


def test_the_soft_opt_in_needs_an_offered_objection() -> None:
    policy = parse(shipped().replace("objection_offered = true", "objection_offered = false"))
    scenario = sendable(choice="standard", channels=(Channel.EMAIL,))
    decision = decide(scenario.job, scenario.facts, policy, scenario.now)
    assert isinstance(decision, Send)
    assert decision.permissions[0].basis == "consent"

"""Decisions by the shipped policy, for tests."""

from __future__ import annotations

from hypothesis import settings

from dispatcher.domain.decision import Decision, ReasonCode
from dispatcher.policy import RULES, Rules, decide, parse, shipped
from tests.support.strategies import (
    PolicyScenario,
)

# The shipped policy, with the control group across campaigns that it leaves out; c-1, who may get everything, is not in it.
POLICY = parse(shipped().replace("global_percent = 0\n", "global_percent = 10\n"))

many_examples = settings(max_examples=4 * settings().max_examples, deadline=None)


def decide_scenario(scenario: PolicyScenario, rules: Rules = RULES) -> Decision:
    return decide(scenario.job, scenario.facts, POLICY, scenario.now, rules)


def codes(decision: Decision) -> set[ReasonCode]:
    return {reason.code for reason in decision.reasons}


def evidence_of(scenario: PolicyScenario, name: str) -> set[str]:
    """The evidence that one rule cites."""
    return {reason.evidence for reason in decide_scenario(scenario).reasons if reason.rule == name}


def rules_without(rules: Rules, name: str) -> Rules:
    return Rules(
        {key: rule for key, rule in rules.person.items() if key != name},
        {key: rule for key, rule in rules.channel.items() if key != name},
    )

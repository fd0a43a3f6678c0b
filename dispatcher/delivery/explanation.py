"""Explain a message under the policy by which it was decided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dispatcher.domain.recipient import Language
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.consent import events
from dispatcher.ledger.delivery.messages import Message
from dispatcher.ledger.maintenance import policies
from dispatcher.policy import Explanation, Policy, explain, parse_former
from dispatcher.policy.record import DecisionRecord, events_in, from_record, with_details
from dispatcher.runtime.services import Services


def explain_to_customer(services: Services, message: Message, language: Language) -> Explanation:
    """Why a message was sent or not, in the customer's language."""
    with lend(services.pool) as connection:
        return explain_message(connection, services.policy, message, language)


def recorded_decision(services: Services, message: Message) -> DecisionRecord | None:
    """The decision about a message, with what is known of the choices behind it; None where none was needed or taken."""
    if not message.decision or "is" not in message.decision:
        return None
    with lend(services.pool) as connection:
        return from_record(_with_details(connection, message.decision))


def explain_message(connection: Connection, policy: Policy, message: Message, language: Language) -> Explanation:
    """The same over a connection. `policy` is the one in force; an older decision is explained by the policy of its time.

    A job without a decision yet is explained as undecided.
    """
    decision = _with_details(connection, message.decision) if message.decision else _undecided(message, policy)
    policy_then = _policy_of(connection, policy, decision["policy"])
    return explain(decision, language, policy_then, message.state, message.reason, message.channel)


def _with_details(connection: Connection, decision: Mapping[str, Any]) -> dict[str, Any]:
    known = events.details(connection, events_in(decision))
    return with_details(decision, {event: (each.contract_version, each.dated) for event, each in known.items()})


def _policy_of(connection: Connection, policy: Policy, digest: str) -> Policy:
    if digest == policy.digest:
        return policy
    text = policies.find_policy(connection, digest)
    return parse_former(text, policy) if text else policy


def _undecided(message: Message, policy: Policy) -> dict[str, Any]:
    spec = message.spec
    return {"policy": policy.digest, "is": "refuse", "job": [spec.entity, spec.template, spec.kind, spec.offer_type], "reasons": []}

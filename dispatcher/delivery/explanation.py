"""A message's explanation, under the policy that it was decided by."""

from __future__ import annotations

from typing import Any

from dispatcher.domain.recipient import Language
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.delivery.messages import Message
from dispatcher.ledger.maintenance import policies
from dispatcher.policy import Explanation, Policy, explain, parse_former
from dispatcher.runtime.services import Services


def explain_message(services: Services, connection: Connection, message: Message, language: Language) -> Explanation:
    """Why a message was sent or not, true to its recorded decision. A job that nobody has decided yet is told as such."""
    kept = message.decision or _undecided(message, services.policy)
    return explain(kept, language, _policy_of(services, connection, kept["policy"]), message.state, message.reason, message.channel)


def _policy_of(services: Services, connection: Connection, digest: str) -> Policy:
    if digest == services.policy.digest:
        return services.policy
    text = policies.find_policy(connection, digest)
    return parse_former(text, services.policy) if text else services.policy


def _undecided(message: Message, policy: Policy) -> dict[str, Any]:
    spec = message.spec
    return {"policy": policy.digest, "is": "refuse", "job": [spec.entity, spec.template, spec.kind, spec.offer_type], "reasons": []}

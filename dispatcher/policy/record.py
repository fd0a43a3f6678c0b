"""A decision as the ledger stores it: small, made of JSON types, and enough to explain the decision years later.

Besides the decision it holds the choices on which the decision is based, as they were then. What the customer changes
afterwards does not change the explanation of this message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from channels.base import Channel
from dispatcher.domain.decision import Decision, Hold, Permission, Reason, ReasonCode, Refuse, Send
from dispatcher.domain.decision_skeleton import merge_reasons
from dispatcher.domain.message import Job, Mode
from dispatcher.domain.recipient import Choice, Facts
from dispatcher.policy.data import Policy

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """A record read back. The keys of `choices` are subjects: "offers.own", "switches.email", "object_marketing"."""

    policy_digest: str
    entity: str
    template: str
    kind: str
    offer_type: str | None
    decision: Decision
    choices: Mapping[str, Choice]
    categories: frozenset[str]
    used: bool  # True: `categories` is what the text used; False: all that it was allowed to use


def record(decision: Decision, facts: Facts, policy: Policy, job: Job, used: Iterable[str] | None = None) -> Record:
    """The decision as JSON. `used` names the data categories that the template uses, if known."""
    permissions = decision.permissions if isinstance(decision, Send) else ()
    info = job.info
    document: Record = {
        "policy": policy.digest,
        "is": DECISION_NAMES[type(decision)],
        "job": [job.entity, info.template, info.kind.value, info.offer_type],
    }
    if permissions:
        document["legs"] = [[each.channel.value, each.mode.value, each.basis, each.evidence] for each in permissions]
        allowed = permissions[0].categories  # all have the same mode, so the same categories
        if categories := allowed if used is None else allowed.intersection(used):
            document["allowed" if used is None else "used"] = sorted(categories)
    if decision.reasons:
        document["reasons"] = _reasons(decision.reasons)
    if choices := supporting_choices(decision, facts, policy, job):
        document["choices"] = {subject: _choice(choice) for subject, choice in choices}
    if job.approval:
        document["approval"] = job.approval
    if isinstance(decision, Hold):
        document["until"] = decision.until.isoformat()
    return document


_NONE: frozenset[str] = frozenset()
DECISION_NAMES: Mapping[type, str] = {Send: "send", Hold: "hold", Refuse: "refuse"}


def events_in(document: Mapping[str, Any]) -> list[str]:
    """The consent events of the choices in a record."""
    return [event for _, event, *_ in document.get("choices", {}).values()]


def with_details(document: Mapping[str, Any], details: Mapping[str, tuple[str, bool]]) -> Record:
    """The record with what the ledger knows besides of each choice, by event: contract version, and whether its day is known."""
    choices = document.get("choices", {})
    return {**document, "choices": {subject: [*choice[:4], *details[choice[1]]] for subject, choice in choices.items()}}


def from_record(document: Mapping[str, Any]) -> DecisionRecord:
    """Read a record back. Raises KeyError or ValueError for a document that `record` did not write."""
    entity, template, kind, offer_type = document["job"]
    categories = frozenset(document.get("used", document.get("allowed", ())))
    return DecisionRecord(
        policy_digest=document["policy"],
        entity=entity,
        template=template,
        kind=kind,
        offer_type=offer_type,
        decision=_decision(document, categories),
        choices={
            subject: Choice(value, event, source, datetime.fromisoformat(at), *details)
            for subject, (value, event, source, at, *details) in document.get("choices", {}).items()
        },
        categories=categories,
        used="allowed" not in document,
    )


def _reasons(reasons: tuple[Reason, ...]) -> list[list[str]]:
    """One entry per objection: code, rule, evidence, then the channels on which it was raised."""
    merged = merge_reasons([(each.code.value, each.channel.value, each.rule, each.evidence) for each in reasons])
    return [[*objection, *channels] for objection, channels in merged.items()]


def supporting_choices(decision: Decision, facts: Facts, policy: Policy, job: Job) -> list[tuple[str, Choice]]:
    """The choice for this offer type, the switches of the permitted channels, and each choice that a reason cites; by subject."""
    choices: list[tuple[str, Choice]] = []
    offer = job.info.offer_type
    if offer is None:  # a service message needs no choice
        return choices
    cited = {reason.evidence for reason in decision.reasons} if decision.reasons else _NONE
    groups = {policy.groups[each.channel] for each in decision.permissions} if isinstance(decision, Send) else _NONE
    if (chosen := facts.offers.get(offer)) is not None:
        choices.append((f"offers.{offer}", chosen))
    for group, choice in facts.switches.items():
        if group in groups or choice.event in cited:
            choices.append((f"switches.{group}", choice))
    for subject, objection in (("object_marketing", facts.object_marketing), ("object_profiling", facts.object_profiling)):
        if objection is not None and (objection.event in cited or objection.value != "off"):
            choices.append((subject, objection))
    return choices


def _choice(choice: Choice) -> list[str]:
    return [choice.value, choice.event, choice.source, choice.at.isoformat(timespec="seconds")]


def _decision(document: Mapping[str, Any], categories: frozenset[str]) -> Decision:
    reasons = tuple(
        Reason(ReasonCode(code), Channel(channel), rule, evidence)
        for code, rule, evidence, *channels in document.get("reasons", ())
        for channel in channels
    )
    if document["is"] == "hold":
        return Hold(datetime.fromisoformat(document["until"]), reasons)
    if document["is"] == "refuse":
        return Refuse(reasons)
    permissions = (Permission(Channel(name), Mode(mode), basis, why, categories) for name, mode, basis, why in document["legs"])
    return Send(tuple(permissions), reasons)

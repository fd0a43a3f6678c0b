"""A decision as the ledger keeps it: small, made of JSON's own kinds, and enough to tell years later why.

Besides the decision it holds the choices that the decision rests on as they were then: what the customer changes
afterwards does not change the story of this message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from channels.base import Channel
from dispatcher.domain.decision import Decision, Hold, Permission, Reason, ReasonCode, Refuse, Send
from dispatcher.domain.message import Job, Mode
from dispatcher.domain.recipient import Choice, Facts
from dispatcher.policy.data import Policy

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """A record read back. `choices` goes by what they are about: "offers.own", "switches.email", "object_marketing"."""

    policy_digest: str
    entity: str
    template: str
    kind: str
    offer_type: str | None
    decision: Decision
    choices: Mapping[str, Choice]
    categories: frozenset[str]
    used: bool  # whether `categories` is what the text really used, or all that it might have


def record(decision: Decision, facts: Facts, policy: Policy, job: Job, used: Iterable[str] | None = None) -> Record:
    """The decision as JSON. `used` names the data categories that the template asks for, where that is known."""
    legs = decision.legs if isinstance(decision, Send) else ()
    allowed = legs[0].categories if legs else frozenset()  # a mode is one person's: all legs have the same
    categories = allowed if used is None else allowed & frozenset(used)
    kept: Record = {
        "policy": policy.digest,
        "is": type(decision).__name__.lower(),
        "job": [job.entity, job.info.template, job.info.kind.value, job.info.offer_type],
        "legs": [[leg.channel.value, leg.mode.value, leg.basis, leg.evidence] for leg in legs],
        "reasons": _reasons(decision.reasons),
        "choices": {about: _choice(choice) for about, choice in _supporting_choices(decision, facts, policy, job)},
        "approval": job.approval,
        "until": decision.until.isoformat() if isinstance(decision, Hold) else None,
        "allowed" if used is None else "used": sorted(categories),
    }
    return {key: value for key, value in kept.items() if value}


def from_record(kept: Mapping[str, Any]) -> DecisionRecord:
    """Read a record back. Raises KeyError or ValueError for what `record` did not write."""
    entity, template, kind, offer_type = kept["job"]
    categories = frozenset(kept.get("used", kept.get("allowed", ())))
    return DecisionRecord(
        policy_digest=kept["policy"],
        entity=entity,
        template=template,
        kind=kind,
        offer_type=offer_type,
        decision=_decision(kept, categories),
        choices={
            about: Choice(value, event, source, datetime.fromisoformat(at))
            for about, (value, event, source, at) in kept.get("choices", {}).items()
        },
        categories=categories,
        used="allowed" not in kept,
    )


def _reasons(reasons: tuple[Reason, ...]) -> list[list[str]]:
    """One entry per objection: code, rule, evidence, then the channels it was raised on."""
    merged: dict[tuple[str, str, str], list[str]] = {}
    for said in reasons:
        merged.setdefault((said.code.value, said.rule, said.evidence), []).append(said.channel.value)
    return [[*what, *channels] for what, channels in merged.items()]


def _supporting_choices(decision: Decision, facts: Facts, policy: Policy, job: Job) -> Iterable[tuple[str, Choice]]:
    """The choice for this type of offer, the switches of the legs, and whatever a reason cites."""
    cited = {said.evidence for said in decision.reasons}
    legs = decision.legs if isinstance(decision, Send) else ()
    groups = {policy.groups[leg.channel] for leg in legs}
    if job.info.offer_type is None:  # a service message rests on no choice
        return
    for offer, choice in facts.offers.items():
        if offer == job.info.offer_type:
            yield f"offers.{offer}", choice
    for group, choice in facts.switches.items():
        if group in groups or choice.event in cited:
            yield f"switches.{group}", choice
    for about in ("object_marketing", "object_profiling"):
        said: Choice | None = getattr(facts, about)
        if said is not None and (said.event in cited or said.value != "off"):
            yield about, said


def _choice(choice: Choice) -> list[str]:
    return [choice.value, choice.event, choice.source, choice.at.isoformat(timespec="seconds")]


def _decision(kept: Mapping[str, Any], categories: frozenset[str]) -> Decision:
    reasons = tuple(
        Reason(ReasonCode(code), Channel(channel), rule, evidence)
        for code, rule, evidence, *channels in kept.get("reasons", ())
        for channel in channels
    )
    if kept["is"] == "hold":
        return Hold(datetime.fromisoformat(kept["until"]), reasons)
    if kept["is"] == "refuse":
        return Refuse(reasons)
    legs = (Permission(Channel(name), Mode(mode), basis, why, categories) for name, mode, basis, why in kept["legs"])
    return Send(tuple(legs), reasons)

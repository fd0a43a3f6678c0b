"""Hear every rule on every asked channel, then send, hold or refuse. Default deny; an objection beats a permission."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from channels.base import Channel
from dispatcher.domain.decision import Decision, Hold, Permission, Reason, ReasonCode, Refuse, Send
from dispatcher.domain.message import Job
from dispatcher.domain.recipient import Facts
from dispatcher.policy.case import DecisionCase, Objection, basis
from dispatcher.policy.data import SERVICE, Policy
from dispatcher.policy.rules import RULES, Rules

NO_PERMISSION = Objection(ReasonCode.NO_BASIS, "rule:default_deny")  # no rule objected, yet nothing was found that permits


def decide(job: Job, facts: Facts, policy: Policy, now: datetime, rules: Rules = RULES) -> Decision:
    """Whether this job may reach this recipient now. Pure: the same arguments give the same decision for ever.

    `Send` has one leg for route "first" (the first allowed channel in the asked order), every allowed one for "all",
    and the reasons against the other channels. `Hold` comes only when nothing can leave now and something could later,
    before the job expires; its reasons are those that delay. `Refuse` has at least one reason per asked channel. A rule
    that raises refuses, with `Code.FAULT`. Raises ValueError for a `now` without a zone and for a job that asks no
    channel: both are bugs of ours.
    """
    if now.tzinfo is None:
        raise ValueError("now needs a time zone")
    if not job.channels:
        raise ValueError("a job asks for at least one channel")
    channels = tuple(dict.fromkeys(job.channels))
    try:
        case = DecisionCase(job, facts, policy, now)
    except Exception:  # whatever is wrong with these facts, nothing is sent on them
        return Refuse(tuple(Reason(ReasonCode.FAULT, channel, "case", "rule:case") for channel in channels))
    return _combine(case, channels, rules)


def _combine(case: DecisionCase, channels: tuple[Channel, ...], rules: Rules) -> Decision:
    about_person = list(_person_objections(case, rules))
    legs: list[Permission] = []
    refusals: list[Reason] = []
    delays: list[Reason] = []
    held_until: datetime | None = None
    for channel in channels:
        heard = [*about_person, *_channel_objections(case, channel, rules)]
        if not heard:
            leg = _permission(case, channel)
            if isinstance(leg, Permission):
                legs.append(leg)
                continue
            heard = [leg]
        until = _delayed_until(case, heard)
        if until is not None:
            delays += [_reason(said, channel) for said in heard]
            held_until = until if held_until is None else min(held_until, until)
        else:
            refusals += [_reason(said, channel) for said in heard]
    if legs:
        chosen = tuple(legs) if case.job.route == "all" else (legs[0],)
        return Send(chosen, tuple(refusals + delays))
    return Refuse(tuple(refusals)) if held_until is None else Hold(held_until, tuple(delays))


RuleObjection = tuple[str, Objection]  # the rule's name and what it says


def _person_objections(case: DecisionCase, rules: Rules) -> Iterator[RuleObjection]:
    for name, rule in rules.person.items():
        try:
            said = rule(case)
        except Exception:
            said = Objection(ReasonCode.FAULT, f"rule:{name}")
        if said is not None:
            yield name, said


def _channel_objections(case: DecisionCase, channel: Channel, rules: Rules) -> Iterator[RuleObjection]:
    for name, rule in rules.channel.items():
        try:
            said = rule(case, channel)
        except Exception:
            said = Objection(ReasonCode.FAULT, f"rule:{name}")
        if said is not None:
            yield name, said


def _permission(case: DecisionCase, channel: Channel) -> Permission | RuleObjection:
    """The permission itself: a leg exists only where a mode and a basis are positively found."""
    found = basis(case, channel)
    if found is None or case.mode is None:
        return "default_deny", NO_PERMISSION
    name, evidence = found
    categories = case.policy.categories[SERVICE if case.service else case.mode.value]
    if case.facts.partner_id is None:  # children and others who live there have no part in this
        categories -= case.policy.household_categories
    return Permission(channel, case.mode, name, evidence, categories)


def _delayed_until(case: DecisionCase, heard: list[RuleObjection]) -> datetime | None:
    """Until when all of these only say "not now"; None when one of them says no, or the job would be over by then.

    In the latter case the expiry joins what was heard.
    """
    untils = [said.until for _, said in heard]
    until = max((moment for moment in untils if moment is not None), default=None)
    if until is None or None in untils:
        return None
    expires_at = case.job.expires_at
    if expires_at is not None and expires_at <= until:
        heard.append(("expiry", Objection(ReasonCode.EXPIRED, "job:expires_at")))
        return None
    return until


def _reason(heard: RuleObjection, channel: Channel) -> Reason:
    name, said = heard
    return Reason(said.code, channel, name, said.evidence)

"""Check every rule on every requested channel, then send, hold or refuse. Default deny: an objection overrides a permission."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from channels.base import Channel
from dispatcher.domain.decision import Decision, Hold, Permission, Reason, ReasonCode, Refuse, Send
from dispatcher.domain.message import Job
from dispatcher.domain.recipient import Facts
from dispatcher.policy.case import DecisionCase, RuleObjection, find_basis
from dispatcher.policy.data import SERVICE, Policy
from dispatcher.policy.rules import RULES, Rules

NO_PERMISSION = RuleObjection(ReasonCode.NO_BASIS, "rule:default_deny")  # no rule objected, but no mode or basis was found


def decide(job: Job, facts: Facts, policy: Policy, now: datetime, rules: Rules = RULES) -> Decision:
    """Whether this job may reach this recipient now. Pure: the same arguments always give the same decision.

    `Send` has one permission for route "first" (the first allowed channel in the requested order), all allowed ones for "all", and
    the reasons against the other channels. `Hold` means that nothing can be sent now, but something can later, before the
    job expires; its reasons are those that delay. `Refuse` has at least one reason per requested channel. A rule that
    raises an exception refuses, with `ReasonCode.FAULT`. Raises ValueError for a `now` without a time zone and for a job
    without channels: both are bugs of the caller.
    """
    if now.tzinfo is None:
        raise ValueError("now needs a time zone")
    if not job.channels:
        raise ValueError("a job asks for at least one channel")
    channels = tuple(dict.fromkeys(job.channels))
    try:
        case = DecisionCase(job, facts, policy, now)
    except Exception:  # the facts are wrong, so nothing may be sent
        return Refuse(tuple(Reason(ReasonCode.FAULT, channel, "case", "rule:case") for channel in channels))
    return _combine(case, channels, rules)


def _combine(case: DecisionCase, channels: tuple[Channel, ...], rules: Rules) -> Decision:
    about_person = list(_person_objections(case, rules))
    permissions: list[Permission] = []
    refusals: list[Reason] = []
    delays: list[Reason] = []
    held_until: datetime | None = None
    for channel in channels:
        objections = [*about_person, *_channel_objections(case, channel, rules)]
        if not objections:
            permission = _permission(case, channel)
            if isinstance(permission, Permission):
                permissions.append(permission)
                continue
            objections = [permission]
        until = _delayed_until(case, objections)
        if until is not None:
            delays += [_reason(objection, channel) for objection in objections]
            held_until = until if held_until is None else min(held_until, until)
        else:
            refusals += [_reason(objection, channel) for objection in objections]
    if permissions:
        chosen = tuple(permissions) if case.job.route == "all" else (permissions[0],)
        return Send(chosen, tuple(refusals + delays))
    return Refuse(tuple(refusals)) if held_until is None else Hold(held_until, tuple(delays))


NamedObjection = tuple[str, RuleObjection]  # the rule's name, and its objection


def _person_objections(case: DecisionCase, rules: Rules) -> Iterator[NamedObjection]:
    for name, rule in rules.person.items():
        try:
            objection = rule(case)
        except Exception:
            objection = RuleObjection(ReasonCode.FAULT, f"rule:{name}")
        if objection is not None:
            yield name, objection


def _channel_objections(case: DecisionCase, channel: Channel, rules: Rules) -> Iterator[NamedObjection]:
    for name, rule in rules.channel.items():
        try:
            objection = rule(case, channel)
        except Exception:
            objection = RuleObjection(ReasonCode.FAULT, f"rule:{name}")
        if objection is not None:
            yield name, objection


def _permission(case: DecisionCase, channel: Channel) -> Permission | NamedObjection:
    """The permission. It exists only if both a mode and a basis are found."""
    found = find_basis(case, channel)
    if found is None or case.mode is None:
        return "default_deny", NO_PERMISSION
    name, evidence = found
    categories = case.policy.categories[SERVICE if case.service else case.mode.value]
    if case.facts.partner_id is None:  # children and other people at the address are not part of a household
        categories -= case.policy.household_categories
    return Permission(channel, case.mode, name, evidence, categories)


def _delayed_until(case: DecisionCase, objections: list[NamedObjection]) -> datetime | None:
    """The end of the delay, if all objections only delay; None if one of them refuses, or if the job expires before.

    In the latter case the expiry is appended to `objections`.
    """
    ends = [objection.until for _, objection in objections]
    until = max((end for end in ends if end is not None), default=None)
    if until is None or None in ends:
        return None
    expires_at = case.job.expires_at
    if expires_at is not None and expires_at <= until:
        objections.append(("expiry", RuleObjection(ReasonCode.EXPIRED, "job:expires_at")))
        return None
    return until


def _reason(named: NamedObjection, channel: Channel) -> Reason:
    name, objection = named
    return Reason(objection.code, channel, name, objection.evidence)

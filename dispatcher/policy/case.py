"""One job for one recipient under one policy at one moment: what the rules look at, worked out once."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, tzinfo
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from channels.base import Channel
from dispatcher.domain.decision import ReasonCode
from dispatcher.domain.message import Job, Kind, Mode
from dispatcher.domain.recipient import Choice, Facts
from dispatcher.policy.data import SERVICE, BasisGrant, Policy, Row

EMPTY_ROW: Row = {}
EMPTY_TABLE: Mapping[str, Row] = {}
PERMITTING_CHOICES = {Mode.TAILORED.value: Mode.TAILORED, Mode.STANDARD.value: Mode.STANDARD}


class Objection(NamedTuple):
    """What a rule says against a send. With `until` it only says "not now"."""

    code: ReasonCode
    evidence: str
    until: datetime | None = None


class DecisionCase:
    """The things that several rules need, in slots: built once per decision, and decisions come by the thousand."""

    __slots__ = ("choice", "chosen", "facts", "job", "local", "mode", "now", "policy", "profiling", "row", "service")

    def __init__(self, job: Job, facts: Facts, policy: Policy, now: datetime) -> None:
        info = job.info
        self.job, self.facts, self.policy, self.now = job, facts, policy, now
        self.service = info.kind is Kind.SERVICE
        self.local = now.astimezone(zone_of(facts.timezone, policy.default_zone))
        self.profiling = facts.object_profiling is None or facts.object_profiling.value == "off"
        self.choice: Choice | None = None  # on record for the template's offer type, whatever it says
        self.chosen: Mode | None = None  # what it says, where that permits anything
        if self.service:
            table, choice = SERVICE, Mode.STANDARD.value
        else:
            table, choice = info.offer_type or "", ""
            self.choice = facts.offers.get(table)
            if self.choice is not None:
                choice = self.choice.value
                self.chosen = PERMITTING_CHOICES.get(choice)
        self.row = policy.basis.get(job.entity, {}).get(table, EMPTY_TABLE).get(choice, EMPTY_ROW)
        self.mode = self._mode()

    def _mode(self) -> Mode | None:
        """How the message would be written; None where no rendering suits the choice.

        A tailored customer's contract also covers a standard rendering. The reverse never holds, and Kate Coins, which
        are personal by nature, need the tailored choice and no objection to profiling.
        """
        info = self.job.info
        standard = Mode.STANDARD if Mode.STANDARD in info.modes else None
        if self.service:
            return standard
        if self.chosen is Mode.TAILORED and self.profiling:
            return Mode.TAILORED if Mode.TAILORED in info.modes else standard
        return standard if self.chosen is not None and not info.coins else None


def basis(case: DecisionCase, channel: Channel) -> tuple[str, str] | None:
    """The first basis that the policy allows here and whose conditions hold, with its evidence; None without one."""
    for permission in case.row.get(channel, ()):
        evidence = _evidence_for(permission, case)
        if evidence is not None:
            return permission.basis, evidence
    return None


def _evidence_for(permission: BasisGrant, case: DecisionCase) -> str | None:
    choice = case.choice
    match permission.basis:
        case "service":
            return permission.key if case.service else None
        case "contract":
            return choice.event if choice and case.chosen is Mode.TAILORED else None
        case "consent":
            return choice.event if choice and case.chosen and choice.source in case.policy.consent_sources else None
        case "legitimate_interest":
            return permission.key if case.chosen else None
        case "soft_opt_in":
            return _soft_opt_in(case) if case.chosen else None
    return None


def _soft_opt_in(case: DecisionCase) -> str | None:
    """An analogous product, surely bought from this very entity, with the objection offered; else None."""
    terms, info, facts = case.policy.soft_opt_in, case.job.info, case.facts
    offered = terms.products.get(info.product or "")
    if not terms.objection_offered or info.offer_type != "own" or offered is None:
        return None
    for name in sorted(facts.purchased & offered.analogous):
        # The record does not say where it was bought: only one of the person's entities may be a seller of it.
        if facts.entities & terms.products[name].sold_by == {case.job.entity}:
            return f"policy:soft_opt_in.products.{name}"
    return None


@lru_cache(maxsize=1024)
def zone_of(name: str | None, default: str) -> tzinfo:
    """The recipient's time zone, or the policy's where it is unknown or no zone at all."""
    try:
        return ZoneInfo(name or default)
    except (OSError, ValueError, LookupError):
        return ZoneInfo(default)


def age_years(born: date, today: date) -> int:
    """Completed years. Who was born on 29 February is a year older on 1 March in other years."""
    return today.year - born.year - ((today.month, today.day) < (born.month, born.day))

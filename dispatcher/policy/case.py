"""One job for one recipient under one policy at one moment: what the rules look at, computed once."""

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


class RuleObjection(NamedTuple):
    """A rule's objection to a send. With `until` it only delays."""

    code: ReasonCode
    evidence: str
    until: datetime | None = None


class DecisionCase:
    """Values that several rules need. It has slots because it is built once per decision, for thousands of decisions."""

    __slots__ = ("choice", "chosen", "facts", "job", "local", "mode", "now", "policy", "profiling", "row", "service")

    def __init__(self, job: Job, facts: Facts, policy: Policy, now: datetime) -> None:
        info = job.info
        self.job, self.facts, self.policy, self.now = job, facts, policy, now
        self.service = info.kind is Kind.SERVICE
        self.local = now.astimezone(zone_of(facts.timezone, policy.default_zone))
        self.profiling = facts.object_profiling is None or facts.object_profiling.value == "off"
        self.choice: Choice | None = None  # the recorded choice for the template's offer type, with any value
        self.chosen: Mode | None = None  # its mode, if it permits messages
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
        """The mode in which the message would be rendered; None if the choice allows no rendering of the template.

        A customer's tailored contract also covers a standard rendering, but not the reverse. Kate Coins are always
        personal: they need the tailored choice and no objection to profiling.
        """
        info = self.job.info
        standard = Mode.STANDARD if Mode.STANDARD in info.modes else None
        if self.service:
            return standard
        if self.chosen is Mode.TAILORED and self.profiling:
            return Mode.TAILORED if Mode.TAILORED in info.modes else standard
        return standard if self.chosen is not None and not info.coins else None


def find_basis(case: DecisionCase, channel: Channel) -> tuple[str, str] | None:
    """The first basis that the policy allows here and whose conditions hold, with its evidence; None if there is none."""
    for grant in case.row.get(channel, ()):
        evidence = _evidence_for(grant, case)
        if evidence is not None:
            return grant.basis, evidence
    return None


def _evidence_for(grant: BasisGrant, case: DecisionCase) -> str | None:
    choice = case.choice
    match grant.basis:
        case "service":
            return grant.key if case.service else None
        case "contract":
            return choice.event if choice and case.chosen is Mode.TAILORED and _is_accepted(case, choice) else None
        case "consent":
            return choice.event if choice and case.chosen and choice.source in case.policy.consent_sources else None
        case "legitimate_interest":
            return grant.key if case.chosen else None
        case "soft_opt_in":
            return _soft_opt_in(case) if case.chosen else None
    return None


RENEWAL = "policy:tailored_contract.renewal"  # the evidence where an acceptance of a former version is not enough


def needs_renewal(case: DecisionCase, channel: Channel) -> bool:
    """Whether the basis is missing here only because the customer accepted another version of the contract."""
    choice, grants = case.choice, case.row.get(channel, ())
    has_contract = case.chosen is Mode.TAILORED and any(grant.basis == "contract" for grant in grants)
    return has_contract and choice is not None and not _is_accepted(case, choice)


def _is_accepted(case: DecisionCase, choice: Choice) -> bool:
    """Whether the contract that the customer accepted is still valid: any version, unless the policy requires the present one."""
    rules = case.policy.contract
    return rules.renewal == "kept" or choice.contract_version == rules.version


def _soft_opt_in(case: DecisionCase) -> str | None:
    """The evidence of a purchase of an analogous product, certainly from this entity, with the objection offered; else None."""
    terms, info, facts = case.policy.soft_opt_in, case.job.info, case.facts
    offered = terms.products.get(info.product or "")
    if not terms.objection_offered or info.offer_type != "own" or offered is None:
        return None
    for name in sorted(facts.purchased & offered.analogous):
        # The record does not say where it was bought. It is certain only if one of the person's entities sells it, and no other.
        if facts.entities & terms.products[name].sold_by == {case.job.entity}:
            return f"policy:soft_opt_in.products.{name}"
    return None


@lru_cache(maxsize=1024)
def zone_of(name: str | None, default: str) -> tzinfo:
    """The recipient's time zone, or the policy's default if it is unknown or not a zone."""
    try:
        return ZoneInfo(name or default)
    except (OSError, ValueError, LookupError):
        return ZoneInfo(default)


def age_years(born: date, today: date) -> int:
    """Completed years. For a person born on 29 February, the birthday in other years is 1 March."""
    return today.year - born.year - ((today.month, today.day) < (born.month, born.day))

"""The policy: read it (`parse`), ask it (`decide`), keep what it said (`record`), tell people why (`explain`). Pure."""

from dispatcher.policy.data import Entity, Policy, Retry
from dispatcher.policy.reading import parse, shipped
from dispatcher.policy.rules import RULES, Rules
from dispatcher.policy.section import Fault, PolicyFaults
from dispatcher.policy.verdict import decide

__all__ = ["RULES", "Entity", "Fault", "Policy", "PolicyFaults", "Retry", "Rules", "decide", "parse", "shipped"]

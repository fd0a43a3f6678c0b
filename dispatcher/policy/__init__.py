"""The policy. Pure.

`parse` reads it, `decide` decides by it, `record` serialises a decision, and `explain` explains one to its recipient.
Here `explain` and `record` are the functions, not the modules of these names.
"""

from dispatcher.policy.data import (
    DEFAULT_FILE_RULES,
    Entity,
    FileRules,
    Policy,
    RetentionPeriod,
    RetentionPeriods,
    RetryPolicy,
    ScheduleRules,
    SmsPrices,
)
from dispatcher.policy.explain import Explanation, explain
from dispatcher.policy.reading import parse, parse_former, shipped
from dispatcher.policy.record import DecisionRecord, from_record, record
from dispatcher.policy.rules import RULES, Rules
from dispatcher.policy.section import InvalidPolicy, PolicyError
from dispatcher.policy.variants import variant_of
from dispatcher.policy.verdict import decide

__all__ = [
    "DEFAULT_FILE_RULES",
    "RULES",
    "DecisionRecord",
    "Entity",
    "Explanation",
    "FileRules",
    "InvalidPolicy",
    "Policy",
    "PolicyError",
    "RetentionPeriod",
    "RetentionPeriods",
    "RetryPolicy",
    "Rules",
    "ScheduleRules",
    "SmsPrices",
    "decide",
    "explain",
    "from_record",
    "parse",
    "parse_former",
    "record",
    "shipped",
    "variant_of",
]

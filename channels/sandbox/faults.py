"""Fault rules: which requests fail, and how.

A rule is one JSON object. Which requests: `provider`, `match` (text in the request, such as an address), and one of `share` (of
all requests, 0 to 1), `every` (each n-th) or `next` (only the next n); without any of them, all requests. What happens: `status`
(with `error`, the provider's own code; `body` and `headers` replace the documented ones), `delay_seconds`, `cut` (the answer ends
after so many bytes), `taken` (the message is recorded although the client gets an error or no answer). A rule without `status`,
`cut` and `delay_seconds` closes the connection without an answer.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_type_hints
from urllib.parse import quote


class RuleError(ValueError):
    """An invalid fault rule; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class FaultRule:
    """One rule, as described above. With a `status` of 0 the provider's own answer stays."""

    provider: str = ""
    match: str = ""
    share: float = 1.0
    every: int = 1
    next: int = 0
    status: int = 0
    error: str = ""
    body: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    cut: int | None = None
    taken: bool = False

    @property
    def loses_answer(self) -> bool:
        return not self.status and self.cut is None and not self.delay_seconds

    @property
    def records_message(self) -> bool:
        """Whether the request is handled as usual although the rule applies."""
        return self.taken or (not self.status and not self.loses_answer)


def parse_rules(rules: object, providers: Collection[str]) -> tuple[FaultRule, ...]:
    """Parse rules from JSON; `providers` are the valid provider names. Raises RuleError."""
    if not isinstance(rules, list):
        raise RuleError("expected a list of rules")
    return tuple(_parse_rule(rule, providers) for rule in rules)


def _parse_rule(rule: object, providers: Collection[str]) -> FaultRule:
    if not isinstance(rule, dict):
        raise RuleError("a rule is an object")
    unknown = set(rule) - set(get_type_hints(FaultRule))
    if unknown:
        raise RuleError(f"unknown field: {', '.join(sorted(unknown))}")
    known: dict[str, Any] = dict(rule)
    if "error" in known:
        known["error"] = str(known["error"])
    fault = FaultRule(**known)
    if fault.provider and fault.provider not in providers:
        raise RuleError(f"provider is one of {', '.join(providers)}")
    _check_numbers(fault)
    return fault


def _check_numbers(fault: FaultRule) -> None:
    try:
        if not (0 <= fault.share <= 1 and fault.every >= 1 and fault.next >= 0 and fault.delay_seconds >= 0):
            raise RuleError("share is 0..1, every is 1 or more, next and delay_seconds are not negative")
        if fault.status and not 100 <= fault.status <= 599:
            raise RuleError("status is an HTTP status")
    except TypeError:
        raise RuleError("share, every, next, status and delay_seconds are numbers") from None


class FaultRules:
    """The active rules, with their counters and random numbers."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._rules: tuple[FaultRule, ...] = ()
        self.profile = "calm"
        self._matches: list[int] = []
        self._needles: list[tuple[bytes, bytes]] = []

    @property
    def rules(self) -> Sequence[FaultRule]:
        return self._rules

    def set(self, rules: Sequence[FaultRule], profile: str = "") -> None:
        """Replace the active rules; `profile` is the name of the set."""
        self._rules, self.profile = tuple(rules), profile or ("own" if rules else "calm")
        self._matches = [0] * len(rules)
        self._needles = [(rule.match.encode(), quote(rule.match, safe="").encode()) for rule in rules]

    def pick(self, provider: str, body: bytes) -> FaultRule | None:
        """Return the first rule that applies to this request."""
        for index, rule in enumerate(self._rules):
            if rule.provider and rule.provider != provider:
                continue
            plain, encoded = self._needles[index]
            if plain in body or encoded in body:
                self._matches[index] += 1
                if self._applies(rule, self._matches[index]):
                    return rule
        return None

    def _applies(self, rule: FaultRule, matches: int) -> bool:
        if rule.next:
            return matches <= rule.next
        return matches % rule.every == 0 and (rule.share >= 1 or self._rng.random() < rule.share)

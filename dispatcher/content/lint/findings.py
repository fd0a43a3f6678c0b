"""Findings of the linter, and the rules that they name."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from importlib import resources

from dispatcher.domain.spelling import did_you_mean


class Severity(StrEnum):
    """How serious a finding is."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class LintRule:
    """One rule: its code, what it checks, why (with the source: a law, an RFC, a provider), how to mend a fault, and a faulty
    example."""

    code: str
    group: str
    severity: Severity
    title: str
    why: str
    source: str
    mend: str
    example: str


@dataclass(frozen=True, slots=True, order=True)
class LintFinding:
    """One fault, at a line (from 1) of a file of the template folder. `languages`, `channels`, `modes` and
    `templates` are those of the messages that have it; empty where it does not depend on them."""

    file: str
    line: int
    code: str
    severity: Severity
    field: str
    value: str
    message: str
    languages: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()

    def __str__(self) -> str:
        shown = f" = {self.value!r}" if self.value else ""
        shared = self.templates if self.file.startswith("_shared/") else ()
        where = "; ".join(", ".join(names) for names in (shared, self.channels, self.languages, self.modes) if names)
        text = f"{self.file}:{self.line}: {self.code} {self.severity}: {self.field}{shown}: {self.message}"
        return f"{text} ({where})" if where else text


@lru_cache(maxsize=1)
def lint_rules() -> Mapping[str, LintRule]:
    """All rules by code: see `rules.toml`."""
    source = resources.files("dispatcher.content.lint").joinpath("rules.toml").read_text(encoding="utf-8")
    return {
        code: LintRule(code=code, **{**table, "severity": Severity(table["severity"])})
        for code, table in sorted(tomllib.loads(source).items())
    }


def lint_rule(code: str) -> LintRule:
    """The rule with this code. Raises KeyError with the nearest code."""
    rules = lint_rules()
    if code.upper() not in rules:
        raise KeyError(f"there is no code {code!r}{did_you_mean(code.upper(), rules)}")
    return rules[code.upper()]


def merged(findings: Iterable[LintFinding]) -> list[LintFinding]:
    """The findings in the order of files and lines; those that differ only in language, channel and mode are one."""
    by_place: dict[LintFinding, list[LintFinding]] = {}
    for each in findings:
        by_place.setdefault(replace(each, languages=(), channels=(), modes=(), templates=()), []).append(each)
    return sorted(
        replace(
            place,
            languages=_union(each.languages for each in same),
            channels=_union(each.channels for each in same),
            modes=_union(each.modes for each in same),
            templates=_union(each.templates for each in same),
        )
        for place, same in by_place.items()
    )


def _union(names: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(sorted({name for each in names for name in each}))

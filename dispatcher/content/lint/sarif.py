"""Findings as SARIF 2.1.0, which code hosts show beside the lines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dispatcher.content.lint.findings import LintFinding, LintRule, Severity, lint_rules

_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}


def sarif(findings: Iterable[LintFinding], root: str, version: str) -> dict[str, Any]:
    """One run of the linter. `root` is the folder of the templates as seen from the repository, `version` that of the program."""
    rules = lint_rules()
    index = {code: number for number, code in enumerate(rules)}
    driver = {"name": "dispatcher templates check", "version": version, "rules": [_rule(each) for each in rules.values()]}
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": [_result(each, index[each.code], root) for each in findings]}],
    }


def _rule(rule: LintRule) -> dict[str, Any]:
    return {
        "id": rule.code,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": f"{rule.why} Source: {rule.source}."},
        "help": {"text": f"{rule.mend} Faulty example: {rule.example}"},
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
        "properties": {"tags": [rule.group]},
    }


def _result(finding: LintFinding, rule_index: int, root: str) -> dict[str, Any]:
    shown = f" = {finding.value!r}" if finding.value else ""
    places = {"languages": finding.languages, "channels": finding.channels, "modes": finding.modes}
    uri = f"{root.rstrip('/')}/{finding.file}" if root else finding.file
    return {
        "ruleId": finding.code,
        "ruleIndex": rule_index,
        "level": _LEVELS[finding.severity],
        "message": {"text": f"{finding.field}{shown}: {finding.message}"},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": uri}, "region": {"startLine": max(1, finding.line)}}}],
        "properties": {name: list(values) for name, values in places.items() if values},
    }

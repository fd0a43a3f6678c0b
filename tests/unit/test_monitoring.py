"""Alert rules and dashboards: generated, valid PromQL, and about metrics that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from dispatcher.maintenance.alert_rules import rules
from dispatcher.maintenance.metrics import GAUGES, OUTSIDE_GAUGES, STATE_GAUGES
from dispatcher.runtime.metric_families import FAMILIES
from dispatcher.runtime.metrics import PREFIX
from docs.monitoring import DASHBOARDS, files
from tests.support.promtool import check_rules

RUNBOOKS = Path(__file__).parents[2] / "docs" / "how-to" / "runbooks"
OF_PROMETHEUS = {"instance", "job", "le"}
_METRIC = re.compile(r"\b(dispatcher_\w+)(?:\{([^}]*)\})?")
_GROUPS = re.compile(r"\b(?:by|on) \(([^)]*)\)")


def expressions() -> list[str]:
    """Every expression of a rule or dashboard."""
    return [*(rule.expression for rule in rules()), *(each for page in DASHBOARDS for each in page.expressions())]


def declared() -> dict[str, set[str]]:
    """The series that exist, each with its labels."""
    names: dict[str, set[str]] = {PREFIX + gauge.name: set(gauge.labels) for gauge in (*GAUGES, *OUTSIDE_GAUGES, *STATE_GAUGES)}
    for family in FAMILIES:
        for suffix in ("_bucket", "_sum", "_count") if family.buckets else ("",):
            names[PREFIX + family.name + suffix] = {*family.labels, *(["le"] if suffix == "_bucket" else [])}
    return names


def used(expression: str) -> Iterator[tuple[str, set[str]]]:
    """The metrics of an expression, each with the labels by which it is selected."""
    for name, selectors in _METRIC.findall(expression):
        yield name, set(re.findall(r"(\w+)\s*[=!]", selectors))


def test_rules_and_dashboards_in_deploy_are_generated() -> None:
    stale = [path.name for path, text in files().items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run `python -m docs.monitoring`"


@pytest.mark.parametrize("expression", expressions())
def test_an_expression_names_only_metrics_and_labels_that_exist(expression: str) -> None:
    names, labels = declared(), set(OF_PROMETHEUS)
    for name, selectors in used(expression):
        assert name in names
        assert selectors <= names[name]
        labels |= names[name]
    for group in _GROUPS.findall(expression):
        assert {label.strip() for label in group.split(",")} <= labels


def test_every_expression_is_valid_promql(tmp_path: Path) -> None:
    records = [{"record": "x", "expr": each.replace("$__rate_interval", "5m")} for each in expressions()]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": records}]}))
    check_rules(file)


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} - {"index"} == {rule.runbook for rule in rules()}


def test_a_metric_has_one_name_and_a_unit_by_convention() -> None:
    names = [family.name for family in FAMILIES] + [gauge.name for gauge in (*GAUGES, *OUTSIDE_GAUGES, *STATE_GAUGES)]
    assert len(set(names)) == len(names)
    for family in FAMILIES:
        assert family.name.endswith(
            "_seconds" if family.buckets else ("_connections", "_connections_max") if family.is_gauge else "_total"
        )

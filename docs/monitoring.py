"""Writes the alert rules and dashboards to `deploy/`: `python -m docs.monitoring`.

A test fails while a file differs from what this module would write.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dispatcher.maintenance.alert_rules import AlertRule, rules

DEPLOY = Path(__file__).parents[1] / "deploy"
HEAD = "# Written by `python -m docs.monitoring` from dispatcher/maintenance/alert_rules.py. Do not edit it here.\n"
WIDTH, PANEL_WIDTH, PANEL_HEIGHT = 24, 12, 8


def alerts() -> str:
    """The rule file of Prometheus."""
    group = {"name": "dispatcher", "rules": [_alert(rule) for rule in rules()]}
    return HEAD + yaml.safe_dump({"groups": [group]}, sort_keys=False, width=120, allow_unicode=True)


def _alert(rule: AlertRule) -> Mapping[str, Any]:
    return {
        "alert": f"Dispatcher{rule.name}",
        "expr": rule.expression,
        "for": f"{rule.minutes}m",
        "labels": {"severity": rule.severity.value},
        "annotations": {"summary": rule.text, "runbook": f"docs/how-to/runbooks/{rule.runbook}.md"},
    }


@dataclass(frozen=True, slots=True)
class Panel:
    """A graph: a title, Grafana's unit, and expressions with the legend of each."""

    title: str
    unit: str
    queries: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A page of graphs."""

    name: str
    title: str
    panels: Sequence[Panel]

    def expressions(self) -> list[str]:
        """Every expression of it."""
        return [expression for panel in self.panels for expression, _ in panel.queries]


def _quantiles(metric: str, by: str = "") -> list[tuple[str, str]]:
    """The median and the 95th and 99th percentile of a histogram."""
    labels, legend = (f"{by}, le", f"{{{{{by}}}}} ") if by else ("le", "")
    return [
        (f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket[$__rate_interval])))", f"{legend}p{share * 100:g}")
        for share in (0.5, 0.95, 0.99)
    ]


def _rate(metric: str, by: str, selector: str = "") -> list[tuple[str, str]]:
    """The rate of a counter by labels."""
    legend = " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(","))
    return [(f"sum by ({by}) (rate({metric}{selector}[$__rate_interval]))", legend)]


def _ratio(part: str, whole: str, legend: str) -> tuple[str, str]:
    return f"{part} / {whole}", legend


# A counter begins with its first event: without a complaint there is none, and the panel would be empty instead of 0.
COMPLAINTS = 'sum by (channel) (increase(dispatcher_messages_total{state="complained"}[6h]))'
ACCEPTED = 'sum by (channel) (increase(dispatcher_messages_total{state="accepted"}[6h]))'

DASHBOARDS = (
    Dashboard(
        "sending",
        "Dispatcher: sending",
        (
            Panel("Messages by state", "ops", _rate("dispatcher_messages_total", "state")),
            Panel("Accepted by channel and kind", "ops", _rate("dispatcher_messages_total", "channel, kind", '{state="accepted"}')),
            Panel("Refused and held by reason", "ops", _rate("dispatcher_messages_total", "reason", '{state=~"refused|held"}')),
            Panel("Running campaigns", "short", [('max(dispatcher_campaigns{state="running"})', "running")]),
            Panel("Longest idle campaign", "s", [("max(dispatcher_campaign_idle_seconds)", "idle")]),
            Panel("Unresolved messages", "short", [("max(dispatcher_messages_unresolved)", "unresolved")]),
            Panel("Claim to last hand-off", "s", _quantiles("dispatcher_claim_to_hand_off_seconds", "kind")),
            Panel("Hand-off of a batch", "s", _quantiles("dispatcher_hand_off_seconds", "kind")),
            Panel("Opt-out to last hand-off", "s", _quantiles("dispatcher_opt_out_to_last_hand_off_seconds")),
            Panel("Canaries: opt-out to the last message", "s", _quantiles("dispatcher_canary_opt_out_seconds", "stage")),
            Panel("Renders by path", "ops", _rate("dispatcher_renders_total", "path")),
        ),
    ),
    Dashboard(
        "providers",
        "Dispatcher: providers",
        (
            Panel("Results", "ops", _rate("dispatcher_provider_results_total", "provider, channel, result")),
            Panel("Time to the answer", "s", _quantiles("dispatcher_provider_seconds", "provider")),
            Panel("Put back by our rate limit", "ops", _rate("dispatcher_rate_limited_total", "channel")),
            Panel("Wait for our rate limit", "s", _quantiles("dispatcher_rate_limit_wait_seconds", "channel")),
            Panel("Stopped channels", "short", [("max by (channel) (dispatcher_channel_stopped)", "{{channel}}")]),
            Panel("Webhook calls", "ops", _rate("dispatcher_webhook_calls_total", "provider, result")),
            Panel("Lag of provider events", "s", _quantiles("dispatcher_provider_event_lag_seconds", "provider")),
            Panel("Provider events not applied", "s", [("max(dispatcher_events_unsettled_age_seconds)", "age of the oldest")]),
            Panel(
                "Complaint rate, 6 hours",
                "percentunit",
                [
                    _ratio(f"({COMPLAINTS} or 0 * {ACCEPTED})", ACCEPTED, "{{channel}}"),
                ],
            ),
        ),
    ),
    Dashboard(
        "operation",
        "Dispatcher: operation",
        (
            Panel("Tasks that wait", "short", [("max by (lane) (dispatcher_lane_tasks)", "{{lane}}")]),
            Panel("Age of the oldest", "s", [("max by (lane) (dispatcher_lane_age_seconds)", "{{lane}}")]),
            Panel("Finished tasks", "ops", _rate("dispatcher_tasks_total", "task, state")),
            Panel("Time of tasks", "s", _quantiles("dispatcher_task_seconds", "task")),
            Panel("Publication to start", "s", _quantiles("dispatcher_task_wait_seconds", "task")),
            Panel("Published by beat and others", "ops", _rate("dispatcher_tasks_published_total", "task")),
            Panel("Engines", "short", [("min by (engine) (dispatcher_engine_up)", "{{engine}}")]),
            Panel(
                "Database connections",
                "short",
                [
                    ("sum by (instance) (dispatcher_pool_connections)", "{{instance}}"),
                    ("sum by (instance) (dispatcher_pool_connections_max)", "{{instance}} at most"),
                ],
            ),
            Panel(
                "Wait for a connection",
                "s",
                [
                    _ratio(
                        "sum by (instance) (rate(dispatcher_pool_wait_seconds_total[$__rate_interval]))",
                        "sum by (instance) (rate(dispatcher_pool_requests_total[$__rate_interval]))",
                        "{{instance}}",
                    )
                ],
            ),
            Panel("Outbox", "s", [("max(dispatcher_outbox_age_seconds)", "age of the oldest")]),
            Panel(
                "Event endpoints and sinks",
                "s",
                [
                    ("max by (endpoint) (dispatcher_webhook_lag_seconds)", "{{endpoint}}"),
                    ("max by (sink) (dispatcher_event_sink_lag_seconds)", "{{sink}}"),
                ],
            ),
            Panel("Free disk", "percentunit", [("dispatcher_disk_free_bytes / dispatcher_disk_size_bytes", "{{instance}}")]),
        ),
    ),
)


def dashboard(page: Dashboard) -> str:
    """A dashboard as Grafana imports it."""
    document = {
        "uid": f"dispatcher-{page.name}",
        "title": page.title,
        "tags": ["dispatcher"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [{"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"}]},
        "panels": [_panel(number, panel) for number, panel in enumerate(page.panels)],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _panel(number: int, panel: Panel) -> Mapping[str, Any]:
    row, column = divmod(number * PANEL_WIDTH, WIDTH)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "gridPos": {"x": column, "y": row * PANEL_HEIGHT, "w": PANEL_WIDTH, "h": PANEL_HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + place), "expr": expression, "legendFormat": legend}
            for place, (expression, legend) in enumerate(panel.queries)
        ],
    }


def files() -> Mapping[Path, str]:
    """Every file with its text."""
    return {
        DEPLOY / "prometheus" / "alerts.yaml": alerts(),
        **{DEPLOY / "grafana" / f"{page.name}.json": dashboard(page) for page in DASHBOARDS},
    }


def main() -> None:
    """Write what has changed."""
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"{path.relative_to(DEPLOY.parent)}\n")


if __name__ == "__main__":
    main()

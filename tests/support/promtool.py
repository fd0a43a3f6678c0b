"""Evaluate alert rules with promtool, the program of Prometheus, on metrics as they are served before and after a fault."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "alerts.yaml"
MINUTES = 480  # until the evaluation: more than the longest range of a rule
CALM = 120  # minutes before the fault


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it. Without it, the test is skipped, and fails in CI."""
    program = shutil.which("promtool")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("promtool is missing: install Debian's package prometheus")
        pytest.skip("promtool is not installed")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=300)


def check_rules(file: Path) -> None:
    """Check a rule file."""
    done = promtool("check", "rules", "--lint=none", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


def firing(alert: str, before: str, after: str, *, minutes: int = MINUTES) -> bool:
    """Whether an alert fires after so many minutes: two hours as in `before`, then as in `after`, both as `/metrics` serves them.

    A gauge keeps its value. A counter that has grown between the two goes on growing as much each minute. The times of promtool
    begin at 0, so Unix times are moved there.
    """
    document = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": _series(before, after, minutes),
                "alert_rule_test": [{"eval_time": f"{minutes}m", "alertname": f"Dispatcher{alert}", "exp_alerts": []}],
            }
        ],
    }
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(document, file)
        file.flush()
        done = promtool("test", "rules", file.name)
    if done.returncode == 0:
        return False
    assert re.search(r"got:\s*\[\s*0?:?", done.stdout + done.stderr), done.stdout + done.stderr
    assert f"alertname: Dispatcher{alert}" in done.stdout + done.stderr
    return True


def _series(before: str, after: str, minutes: int) -> list[dict[str, str]]:
    first, last = _samples(before), _samples(after)
    series = []
    for name in sorted({*first, *last}):
        old, new = first.get(name), last.get(name)
        calm = f"{old!r}x{CALM}" if old is not None else f"_x{CALM}"
        step = max(0.0, (new or 0.0) - (old or 0.0)) if _is_counter(name) else 0.0
        fault = f"{new!r}+{step!r}x{minutes - CALM}" if new is not None else f"_x{minutes - CALM}"
        series.append({"series": name, "values": f"{calm} {fault}"})
    return series


def _samples(text: str) -> dict[str, float]:
    """The samples by name and labels, in the spelling of promtool; each of the instance `web`, as after a scrape."""
    samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {**sample.labels, "instance": "web", "job": "dispatcher"}
            inside = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
            moved = sample.value - time.time() if sample.name.endswith("_timestamp_seconds") else sample.value
            samples[f"{sample.name}{{{inside}}}"] = moved
    return samples


def _is_counter(name: str) -> bool:
    return name.partition("{")[0].endswith(("_total", "_bucket", "_sum", "_count"))

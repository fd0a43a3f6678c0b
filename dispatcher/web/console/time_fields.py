"""The fields of a campaign's times and rate, as local times of the policy's zone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from dispatcher.domain.local_times import BadLocalTime, local_text, moment_of, occurrence_of
from dispatcher.web.console.draft_forms import Errors, Posted, number

TIMES = ("send_at", "expires_at")
TIME_FIELDS = (*TIMES, "rate_per_second")


def read_times(posted: Posted, zone: str) -> tuple[dict[str, Any], dict[str, str], Errors]:
    """The values for the campaign form, what was entered, and errors by field. An empty field has no value."""
    values: dict[str, Any] = {}
    errors: dict[str, list[str]] = {}
    entered = {name: posted.text(name) for name in (*TIME_FIELDS, *(f"{name}_occurrence" for name in TIMES))}
    for name in TIMES:
        if not entered[name]:
            continue
        try:
            values[name] = moment_of(entered[name], zone, entered[f"{name}_occurrence"]).isoformat()
        except BadLocalTime as error:
            errors[name] = [str(error)]
            entered[f"{name}_occurrence"] = entered[f"{name}_occurrence"] or ("?" if error.is_double else "")
    if entered["rate_per_second"]:
        values["rate_per_second"] = number(entered["rate_per_second"])
    return values, entered, errors


def shown_times(form: Mapping[str, Any], zone: str) -> dict[str, str]:
    """The fields of a form with these values."""
    rate = form.get("rate_per_second")
    shown = {"rate_per_second": f"{rate:.10g}" if isinstance(rate, int | float) else str(rate or "")}
    for name in TIMES:
        value = form.get(name)
        at = datetime.fromisoformat(value) if isinstance(value, str) else value
        shown[name] = local_text(at, zone) if at else ""
        shown[f"{name}_occurrence"] = occurrence_of(at, zone) if at else ""
    return shown


def unchanged(entered: Mapping[str, str], form: Mapping[str, Any], zone: str) -> dict[str, Any]:
    """The values of fields that show what the form has: a page shows times without their seconds."""
    shown = shown_times(form, zone)
    keys = {name: (name, f"{name}_occurrence") if name in TIMES else (name,) for name in TIME_FIELDS}
    return {name: form.get(name) for name in TIME_FIELDS if all(entered[key] == shown[key] for key in keys[name])}

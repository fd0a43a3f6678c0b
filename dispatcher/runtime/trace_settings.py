"""Settings of traces. Where they go, and how many, is said by the standard variables of OpenTelemetry (OTEL_…)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec

from dispatcher.runtime.environment import EnvironmentReader

TRACE_ID = "{trace_id}"


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """`page` is the URL of a trace in a viewer, with `{trace_id}` in it; "" where there is none."""

    is_on: bool = False
    page: str = ""


def read_traces(read: EnvironmentReader) -> TraceSettings:
    """The settings of traces."""
    is_on = (
        read.choice(
            "DISPATCHER_TRACES",
            ("off", "otlp"),
            "off",
            about="`otlp`: send traces by OTLP over HTTP; needs the extra `traces`. Where to, and which share: the standard "
            "variables `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER` and others",
        )
        == "otlp"
    )
    if is_on and find_spec("opentelemetry.sdk") is None:
        read.fault("DISPATCHER_TRACES is 'otlp', but opentelemetry-sdk is not installed: it is the extra `traces`.")
    page = read.text(
        "DISPATCHER_TRACE_URL",
        about="the page of a trace in your viewer, for links in the console",
        values="a URL with `{trace_id}`, such as `https://grafana.example.com/explore?trace={trace_id}`",
    )
    if page and (not re.fullmatch(r"https?://[^\s\"'<>]+", page) or page.count(TRACE_ID) != 1):
        read.fault(f"DISPATCHER_TRACE_URL must be an http or https URL with {TRACE_ID} in it, once.")
    return TraceSettings(is_on, page)

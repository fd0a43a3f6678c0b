"""Settings of traces: what is wrong is named, and a link is made of what is right."""

from __future__ import annotations

import pytest

from dispatcher.runtime.environment import EnvironmentReader
from dispatcher.runtime.trace_settings import TraceSettings, read_traces
from dispatcher.runtime.tracing import page_of_trace

TRACE = "4b" * 16


def test_traces_are_off_by_default() -> None:
    assert read_traces(EnvironmentReader({})) == TraceSettings(is_on=False, page="")


@pytest.mark.parametrize(
    "url", ["tempo/{trace_id}", "https://tempo.example/", "https://t.example/{trace_id}/{trace_id}", "javascript:{trace_id}"]
)
def test_a_page_of_traces_is_a_url_with_the_id_once(url: str) -> None:
    read = EnvironmentReader({"DISPATCHER_TRACE_URL": url})
    read_traces(read)
    assert len(read.faults) == 1


def test_a_sampled_trace_has_a_page() -> None:
    page = read_traces(EnvironmentReader({"DISPATCHER_TRACE_URL": "https://tempo.example/t/{trace_id}"})).page
    assert page_of_trace(page, f"00-{TRACE}-{'0f' * 8}-01") == f"https://tempo.example/t/{TRACE}"
    for nothing in (f"00-{TRACE}-{'0f' * 8}-00", "javascript:alert(1)", "", None):
        assert page_of_trace(page, nothing) is None
    assert page_of_trace("", f"00-{TRACE}-{'0f' * 8}-01") is None

"""Spans of our own, and the trace context that travels with a campaign or trigger. Off by default: then nothing here does anything.

The context of the request or task that submitted a campaign or trigger is stored in its spec, as a W3C `traceparent`. So everything
that happens to its messages joins that trace, also a delivery report that comes days later.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

from dispatcher.runtime.trace_settings import TRACE_ID

LINKS_MAX = 32  # of a span: a batch of events can be of many traces

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-01")  # sampled ones only: no other is stored
_tracer = trace.get_tracer("dispatcher")
_OFF: AbstractContextManager[Span] = nullcontext(trace.INVALID_SPAN)
_NOTHING: AbstractContextManager[None] = nullcontext()


class TraceSwitch:
    """Whether this process exports traces."""

    is_on = False


def span(
    name: str,
    attributes: Mapping[str, AttributeValue] | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    parent: str | None = None,
    linked: Iterable[str | None] = (),
) -> AbstractContextManager[Span]:
    """A span around a block. It is a child of `parent`, a `traceparent`, or else of the current span; `linked` are other traces.

    Where `parent` is of another trace than the current span, it is linked to that span.
    """
    return _span(name, attributes, kind, parent, linked) if TraceSwitch.is_on else _OFF


@contextmanager
def _span(
    name: str, attributes: Mapping[str, AttributeValue] | None, kind: SpanKind, parent: str | None, linked: Iterable[str | None]
) -> Iterator[Span]:
    current = trace.get_current_span().get_span_context()
    links = [Link(each) for each in map(_parse, dict.fromkeys(linked)) if each is not None][:LINKS_MAX]
    start, given = None, _parse(parent)
    if given is not None and given.trace_id != current.trace_id:
        start = trace.set_span_in_context(NonRecordingSpan(given), contexts.Context())
        links += [Link(current)] if current.is_valid and current.trace_flags.sampled else []
    # An error's text may hold personal data: the span names its class only.
    with _tracer.start_as_current_span(
        name, start, kind, attributes, links, record_exception=False, set_status_on_exception=False
    ) as started:
        try:
            yield started
        except BaseException as error:
            started.set_attribute("error.type", type(error).__qualname__)
            started.set_status(StatusCode.ERROR)
            raise


def within(traceparent: str | None) -> AbstractContextManager[None]:
    """What the block publishes or calls belongs to this trace; to the current one where there is none."""
    return _within(traceparent) if TraceSwitch.is_on and traceparent is not None else _NOTHING


def in_new_trace() -> AbstractContextManager[None]:
    """What the block starts is a trace of its own: periodic tasks are not traced, but what they start may be."""
    return _attached(contexts.Context()) if TraceSwitch.is_on else _NOTHING


def _within(traceparent: str) -> AbstractContextManager[None]:
    given = _parse(traceparent)
    if given is None:
        return _NOTHING
    return _attached(trace.set_span_in_context(NonRecordingSpan(given), contexts.Context()))


@contextmanager
def _attached(context: contexts.Context) -> Iterator[None]:
    token = contexts.attach(context)
    try:
        yield
    finally:
        contexts.detach(token)


def current_traceparent() -> str | None:
    """The `traceparent` of the current span; None where it is not sampled, or nothing is traced."""
    if not TraceSwitch.is_on:
        return None
    current = trace.get_current_span().get_span_context()
    if not current.is_valid or not current.trace_flags.sampled:
        return None
    return f"00-{current.trace_id:032x}-{current.span_id:016x}-01"


def flush() -> None:
    """Export what is not exported yet, for at most two seconds: a collector that is away must not delay the end of a process."""
    if TraceSwitch.is_on and callable(force := getattr(trace.get_tracer_provider(), "force_flush", None)):
        force(2_000)


def log_ids() -> Mapping[str, str]:
    """The ids of the current span for a log line, by the names of OpenTelemetry's data model for logs."""
    if not TraceSwitch.is_on:
        return {}
    current = trace.get_current_span().get_span_context()
    if not current.trace_flags.sampled:  # an id that leads nowhere
        return {}
    return {"trace_id": f"{current.trace_id:032x}", "span_id": f"{current.span_id:016x}"}


def page_of_trace(page: str, traceparent: str | None) -> str | None:
    """The page of a trace in the viewer; None without a viewer or a trace."""
    match = _TRACEPARENT.fullmatch(traceparent or "")
    return page.replace(TRACE_ID, match[1]) if page and match else None


def _parse(traceparent: str | None) -> SpanContext | None:
    match = _TRACEPARENT.fullmatch(traceparent or "")
    if match is None:
        return None
    context = SpanContext(int(match[1], 16), int(match[2], 16), is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    return context if context.is_valid else None

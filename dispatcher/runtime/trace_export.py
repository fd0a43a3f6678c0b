"""Export of traces with the OpenTelemetry SDK, the extra `traces`. Imported only where traces are on.

An attribute leaves this process only if `ALLOWED` names it. The libraries' own attributes hold URLs with tokens, addresses of
callers, and texts of errors with rows of the database.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
from opentelemetry.propagate import set_global_textmap
from opentelemetry.propagators.textmap import CarrierT, Getter, Setter, TextMapPropagator, default_getter, default_setter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanContext, SpanKind, Status
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes

from dispatcher.runtime.tracing import TraceSwitch

ALLOWED = frozenset({
    # https://opentelemetry.io/docs/specs/semconv/: http, db, messaging. Not `url.path`, `url.query`, `server.address` (the Host
    # header), `client.address`, `user_agent.original`, `db.query.parameter`, `exception.message`.
    *("http.request.method", "http.route", "http.response.status_code", "error.type"),
    *("db.system.name", "db.namespace", "db.operation.name", "db.query.text", "db.response.status_code"),
    *("messaging.system", "messaging.operation.type", "messaging.destination.name", "messaging.batch.message_count"),
    *("messaging.message.id", "celery.action", "celery.task_name", "celery.state"),
    *("dispatcher.campaign", "dispatcher.period", "dispatcher.chunk", "dispatcher.claim", "dispatcher.event_kinds"),
    *("dispatcher.results", "dispatcher.endpoint"),
})  # fmt: skip
STATEMENT_CHARACTERS_MAX = 2_000
NOT_TRACED = r"/healthz,/readyz,/metrics,/static"  # asked every few seconds
API = "/v1/"
# What may begin a trace, besides a request and a span that is linked to traces: a campaign or trigger that is submitted. Not the
# periodic tasks, nor their statements.
ROOTS = frozenset({"submit campaign", "submit trigger", "run/dispatcher.submit_campaign", "run/dispatcher.trigger"})

_LITERAL = re.compile(r"'(?:[^']|'')*'")


class ApiTraceContext(TextMapPropagator):
    """W3C trace context, of callers of the API and of our own broker messages only: anybody may open a public page.

    Neither `tracestate` nor `baggage` is taken: both are texts of the caller, which could hold personal data.
    """

    def __init__(self) -> None:
        self._inner = TraceContextTextMapPropagator()

    def extract(self, carrier: CarrierT, context: Context | None = None, getter: Getter[CarrierT] = default_getter) -> Context:
        """See `TextMapPropagator`. The carrier of a request is its ASGI scope."""
        before = context if context is not None else Context()
        if isinstance(carrier, Mapping) and not str(carrier.get("path", API)).startswith(API):
            return before
        given = trace.get_current_span(self._inner.extract(carrier, Context(), getter)).get_span_context()
        if not given.is_valid:
            return before
        plain = SpanContext(given.trace_id, given.span_id, given.is_remote, given.trace_flags)
        return trace.set_span_in_context(trace.NonRecordingSpan(plain), before)

    def inject(self, carrier: CarrierT, context: Context | None = None, setter: Setter[CarrierT] = default_setter) -> None:
        """See `TextMapPropagator`."""
        self._inner.inject(carrier, context, setter)

    @property
    def fields(self) -> set[str]:
        """The names of the headers."""
        return {"traceparent"}


class KnownRoots(Sampler):
    """Leaves the decision to another sampler, and drops what begins no trace (see `ROOTS`), with everything below it.

    Only a request whose caller does not sample may be sampled all the same: where the other sampler ignores the caller's flag.
    """

    def __init__(self, inner: Sampler) -> None:
        self._inner = inner

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: Any = None,
    ) -> SamplingResult:
        """See `Sampler`."""
        parent = trace.get_current_span(parent_context).get_span_context()
        is_wanted = parent.trace_flags.sampled if parent.is_valid else bool(links) or name in ROOTS
        if not is_wanted and kind is not SpanKind.SERVER:
            return SamplingResult(Decision.DROP)
        return self._inner.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """See `Sampler`."""
        return f"KnownRoots({self._inner.get_description()})"


class RedactingExporter(SpanExporter):
    """Exports copies of the spans, with ids, codes, names of routes and statements, and nothing else."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See `SpanExporter`."""
        return self._inner.export([redacted(each) for each in spans])

    def shutdown(self) -> None:
        """See `SpanExporter`."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """See `SpanExporter`."""
        return self._inner.force_flush(timeout_millis)


def redacted(span: ReadableSpan) -> ReadableSpan:
    """A copy without what could hold personal data or secrets: other attributes, texts of errors, and paths in names."""
    attributes = {name: value for name, value in (span.attributes or {}).items() if name in ALLOWED}
    if isinstance(statement := attributes.get("db.query.text"), str):
        attributes["db.query.text"] = _LITERAL.sub("'?'", " ".join(statement.split()))[:STATEMENT_CHARACTERS_MAX]
    name = span.name
    if span.kind is SpanKind.SERVER:  # never the path, also where no route matches
        name = " ".join(str(attributes[key]) for key in ("http.request.method", "http.route") if key in attributes) or "HTTP"
    return ReadableSpan(
        name=name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=attributes,
        events=[
            Event(each.name, {"exception.type": str((each.attributes or {}).get("exception.type", ""))}, each.timestamp)
            for each in span.events
            if each.name == "exception"
        ],
        links=[Link(each.context) for each in span.links],
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def start(processor: SpanProcessor | None = None) -> TracerProvider:
    """Export traces from this process, as the standard OTEL_ variables say. After a fork, never before: it starts a thread."""
    # The stable names of attributes; without it the libraries use those of 2022.
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http,database")
    resource = Resource.create({} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: "dispatcher"})
    provider = TracerProvider(resource=resource)  # with the sampler that OTEL_TRACES_SAMPLER names
    provider.sampler = KnownRoots(provider.sampler)
    provider.add_span_processor(processor or BatchSpanProcessor(RedactingExporter(OTLPSpanExporter())))
    trace.set_tracer_provider(provider)
    set_global_textmap(ApiTraceContext())
    PsycopgInstrumentor().instrument(tracer_provider=provider, capture_parameters=False)
    CeleryInstrumentor().instrument(tracer_provider=provider)  # type: ignore[no-untyped-call]
    TraceSwitch.is_on = True
    return provider


def trace_requests(application: Any) -> None:
    """Trace the requests of a FastAPI application."""
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor  # a worker has no web framework

    FastAPIInstrumentor.instrument_app(application, excluded_urls=NOT_TRACED, exclude_spans=["receive", "send"])

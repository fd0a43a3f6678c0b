"""Traces inside one process: what is stored, what is published, what leaves; and that nothing happens where they are off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Decision, ParentBased, Sampler, TraceIdRatioBased

from dispatcher.campaigns import scheduler, submission
from dispatcher.events import feed, publication
from dispatcher.intake.campaign import parse_campaign
from dispatcher.ledger.campaigns import lifecycle
from dispatcher.ledger.connection import lend
from dispatcher.ledger.events import stream
from dispatcher.runtime.services import Services
from dispatcher.runtime.trace_export import KnownRoots, RedactingExporter, start, trace_requests
from dispatcher.runtime.tracing import TraceSwitch, current_traceparent, in_new_trace, span, within
from dispatcher.web.app import create
from tests.support.services import Broker, add_people, make_services, person

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
PLANTED = "anna.peeters@example.org"
CALLER = f"00-{'4b' * 16}-{'0f' * 8}-01"


@pytest.fixture(scope="module")
def exporter() -> Iterator[InMemorySpanExporter]:
    """Traces of this process end here, as they would leave it."""
    memory = InMemorySpanExporter()
    provider = start(SimpleSpanProcessor(RedactingExporter(memory)))
    assert isinstance(trace.get_tracer_provider(), TracerProvider)
    yield memory
    TraceSwitch.is_on = False
    PsycopgInstrumentor().uninstrument()
    CeleryInstrumentor().uninstrument()  # type: ignore[no-untyped-call]
    provider.shutdown()


@pytest.fixture
def services(database: str, exporter: InMemorySpanExporter) -> Iterator[Services]:
    TraceSwitch.is_on = True
    with make_services(database) as made:
        add_people(made, *(person(f"c-{number}", number) for number in range(10)))
        exporter.clear()
        yield made
    TraceSwitch.is_on = False


def spans(exporter: InMemorySpanExporter, name: str = "") -> list[ReadableSpan]:
    return [each for each in exporter.get_finished_spans() if name in ("", each.name)]


def submit(services: Services, campaign_id: str = "spring", **changes: Any) -> None:
    rows = [{"recipient": f"c-{number}", "data": OFFER} for number in range(10)]
    form = {"id": campaign_id, "template": "loan_offer", "channels": ["email"], "audience": rows, **changes}
    submission.submit(services, parse_campaign(form, submission.validation_context(services)))


def stored_trace(services: Services, campaign_id: str = "spring") -> str | None:
    with lend(services.pool) as connection:
        campaign = lifecycle.find(connection, campaign_id)
    assert campaign is not None
    return campaign.spec.trace


def test_the_trace_of_a_submission_reaches_its_chunks_and_its_events(services: Services, exporter: InMemorySpanExporter) -> None:
    submit(services)
    stored = stored_trace(services)
    (submitted,) = spans(exporter, "submit campaign")
    assert submitted.context is not None
    assert stored == f"00-{submitted.context.trace_id:032x}-{submitted.context.span_id:016x}-01"
    broker = Broker(dues=scheduler.due_chunks(services))
    assert [due.trace for due in broker.dues] == [stored]
    broker.work(services)
    publication.publish(services)
    with lend(services.pool) as connection:
        lines = [line for row in stream.read(connection, 0, None) for line in row.lines]
    assert sum(stored.encode() in line for line in lines) == 10
    assert feed.verify(services).fault is None


def test_the_same_campaign_again_is_the_same_in_any_trace(services: Services) -> None:
    submit(services)
    first = stored_trace(services)
    with in_new_trace():
        rows = [{"recipient": f"c-{number}", "data": OFFER} for number in range(10)]
        form = {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": rows, "priority": 5}  # the default
        again = submission.submit(services, parse_campaign(form, submission.validation_context(services)))
    assert again.status is submission.SubmitStatus.KNOWN
    assert stored_trace(services) == first
    with lend(services.pool) as connection:
        campaign = lifecycle.find(connection, "spring")
    assert campaign is not None
    assert campaign.spec == replace(campaign.spec, trace=None)  # compared where digests differ, as of another version's submission


def test_without_traces_nothing_is_stored_or_published(services: Services, exporter: InMemorySpanExporter) -> None:
    TraceSwitch.is_on = False
    submit(services)
    assert stored_trace(services) is None
    assert [due.trace for due in scheduler.due_chunks(services)] == [None]
    with span("chunk") as nothing, within(CALLER):
        assert not nothing.is_recording()
        assert current_traceparent() is None
    assert not spans(exporter, "submit campaign")


def test_of_a_large_campaign_twenty_chunks_are_traced(services: Services) -> None:
    add_people(services, *(person(f"p-{number}") for number in range(200)))
    rows = [{"recipient": f"p-{number}", "data": OFFER} for number in range(200)]
    submit(services, "large", audience=rows, rate_per_second=1)  # a chunk holds what leaves in one second: one message
    with lend(services.pool) as connection:
        connection.execute("UPDATE campaigns SET spec = spec || '{\"rate_per_second\": null}' WHERE id = 'large'")
        connection.execute("UPDATE chunks SET due_at = '2020-01-01'")
    services = replace(services, limits=replace(services.limits, window_chunks=1_000))
    dues = scheduler.due_chunks(services)
    assert sum(len(due.numbers) for due in dues) == 200
    assert 19 <= sum(due.trace is not None for due in dues) <= 21


def test_an_error_leaves_its_class_and_not_its_text(services: Services, exporter: InMemorySpanExporter) -> None:
    with pytest.raises(psycopg.errors.InvalidTextRepresentation), span("submit trigger"), lend(services.pool) as connection:
        connection.execute("SELECT %s::int", (PLANTED,))
    (failed,) = (each for each in spans(exporter) if each.name == "SELECT" and each.events)
    assert [dict(event.attributes or {}) for event in failed.events] == [
        {"exception.type": "psycopg.errors.InvalidTextRepresentation"}
    ]
    assert PLANTED not in "".join(each.to_json() for each in spans(exporter))


def test_literals_in_statements_do_not_leave(services: Services, exporter: InMemorySpanExporter) -> None:
    with span("submit trigger"), lend(services.pool) as connection:
        connection.execute(f"SELECT '{PLANTED}', 'it''s {PLANTED}'")
    (statement,) = (each.attributes["db.query.text"] for each in spans(exporter, "SELECT") if each.attributes)
    assert statement == "SELECT '?', '?'"


def test_paths_queries_headers_and_baggage_do_not_leave(services: Services, exporter: InMemorySpanExporter) -> None:
    application = create(services, Broker())
    trace_requests(application)
    headers = {
        "traceparent": CALLER,
        "tracestate": f"who={PLANTED.replace('@', '-')}",
        "baggage": f"who={PLANTED}",
        "user-agent": PLANTED,
        "x-forwarded-for": "192.0.2.7",
        "authorization": f"Bearer {PLANTED}",
    }
    with TestClient(application, base_url="http://anna.peeters.example", follow_redirects=False) as client:
        for path in (f"/u/{PLANTED}", f"/p/{PLANTED}?who={PLANTED}", f"/v1/recipients/{PLANTED}?q={PLANTED}", f"/{PLANTED}"):
            client.get(path, headers=headers)
        client.post("/v1/campaigns", headers=headers, json={"id": PLANTED})
        client.request(PLANTED.partition("@")[0].upper(), "/v1/campaigns", headers=headers)
    requests = [each for each in spans(exporter) if each.kind is trace.SpanKind.SERVER]
    assert len(requests) == 6
    assert {"GET /u/{token:path}", "GET"} <= {each.name for each in requests}
    left = "".join(each.to_json() for each in spans(exporter)).lower()
    for planted in ("peeters", "192.0.2.7", "bearer"):
        assert planted not in left


def test_only_callers_of_the_api_bring_a_trace_of_their_own(services: Services, exporter: InMemorySpanExporter) -> None:
    application = create(services, Broker())
    trace_requests(application)
    with TestClient(application) as client:
        client.get("/v1/campaigns/spring", headers={"traceparent": CALLER})
        client.get("/u/token", headers={"traceparent": CALLER})
        client.post("/webhooks/sendgrid", headers={"traceparent": CALLER})
    joined = {
        each.name: each.context.trace_id == int("4b" * 16, 16) for each in spans(exporter) if each.context and each.attributes
    }
    assert {name: joined[name] for name in ("GET /v1/campaigns/{campaign_id}", "GET /u/{token:path}")} == {
        "GET /v1/campaigns/{campaign_id}": True,
        "GET /u/{token:path}": False,
    }


@pytest.mark.parametrize("inner", [ALWAYS_ON, TraceIdRatioBased(1.0), ParentBased(ALWAYS_ON)])
def test_periodic_tasks_and_what_they_do_are_not_traced(inner: Sampler) -> None:
    sampler = KnownRoots(inner)

    def decision(name: str, kind: trace.SpanKind, parent: trace.SpanContext | None = None) -> Decision:
        context = trace.set_span_in_context(trace.NonRecordingSpan(parent), Context()) if parent else Context()
        return sampler.should_sample(context, 1, name, kind).decision

    dropped = trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(0))
    sampled = trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(1))
    assert decision("run/dispatcher.release_due", trace.SpanKind.CONSUMER) is Decision.DROP
    assert decision("SELECT", trace.SpanKind.CLIENT, dropped) is Decision.DROP
    assert decision("run/dispatcher.send_chunk", trace.SpanKind.CONSUMER, dropped) is Decision.DROP
    assert decision("run/dispatcher.send_chunk", trace.SpanKind.CONSUMER, sampled) is Decision.RECORD_AND_SAMPLE
    assert decision("submit campaign", trace.SpanKind.INTERNAL) is Decision.RECORD_AND_SAMPLE
    assert decision("GET /v1/campaigns", trace.SpanKind.SERVER) is Decision.RECORD_AND_SAMPLE

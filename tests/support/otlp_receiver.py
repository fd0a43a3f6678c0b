"""A receiver of traces by OTLP over HTTP, as a collector is one. It reads them with OpenTelemetry's own protocol buffers."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from tests.support.http_servers import Answer, ReceivedRequest, ServerLog, http_answer, http_server


@dataclass(frozen=True)
class ReceivedSpan:
    """A span as it arrived. Ids are in hexadecimal; `parent` is "" for a span without one."""

    name: str
    trace: str
    id: str
    parent: str
    linked: tuple[str, ...]  # the traces of its links
    attributes: Mapping[str, Any]


@dataclass
class OtlpReceiver:
    """A receiver on a port of this machine, and all bytes that it got."""

    server: ServerLog
    bodies: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        """For OTEL_EXPORTER_OTLP_ENDPOINT."""
        return f"http://127.0.0.1:{self.server.port}"

    @property
    def spans(self) -> list[ReceivedSpan]:
        """All spans, in the order in which they came."""
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        return [
            ReceivedSpan(
                span.name,
                span.trace_id.hex(),
                span.span_id.hex(),
                span.parent_span_id.hex(),
                tuple(link.trace_id.hex() for link in span.links),
                {each.key: _value(each.value) for each in span.attributes},
            )
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return [_value(each) for each in value.array_value.values] if kind == "array_value" else getattr(value, str(kind))


@contextmanager
def otlp_receiver() -> Iterator[OtlpReceiver]:
    """A receiver that takes everything."""
    bodies: list[bytes] = []

    def note(request: ReceivedRequest, _: int) -> Answer:
        is_zipped = request.headers.get("content-encoding") == "gzip"
        bodies.append(gzip.decompress(request.body) if is_zipped else request.body)
        return http_answer(200)

    with http_server(note) as server:
        yield OtlpReceiver(server, bodies)

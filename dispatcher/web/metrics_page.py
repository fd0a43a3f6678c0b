"""`/metrics`: the metrics in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fastapi import APIRouter, Depends
from fastapi.responses import PlainTextResponse

from dispatcher.maintenance.metrics import GAUGES, Gauge, Sample, collect
from dispatcher.web.api.query_parameters import known_query_parameters
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.errors import problem_responses

router = APIRouter(tags=["health"], dependencies=[Depends(known_query_parameters)], responses=problem_responses(422))
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@router.get(
    "/metrics", response_class=PlainTextResponse, response_description="The metrics", responses=problem_responses(401, 403, 503)
)
def show_metrics(services: ServicesDependency) -> PlainTextResponse:
    """All metrics, for Prometheus."""
    counts = collect(services)
    return PlainTextResponse("".join(_family(gauge, gauge.samples(counts)) for gauge in GAUGES), media_type=MEDIA_TYPE)


def _family(gauge: Gauge, samples: Sequence[Sample]) -> str:
    """One metric family. Values of our own enums need no escaping."""
    name = f"dispatcher_{gauge.name}"
    head = f"# HELP {name} {gauge.help}\n# TYPE {name} gauge\n"
    return head + "".join(f"{name}{_labels(labels)} {float(value):g}\n" for labels, value in samples)


def _labels(labels: Mapping[str, str]) -> str:
    inside = ",".join(f'{name}="{value}"' for name, value in labels.items())
    return f"{{{inside}}}" if inside else ""

"""`/metrics`: what only the ledger knows, what is around it, and what this process counted, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from fastapi import APIRouter, Depends
from fastapi.responses import PlainTextResponse

from dispatcher.maintenance.metrics import Sample, families
from dispatcher.runtime.metrics import MEDIA_TYPE, PREFIX, exposition, record_pool, start_in_process
from dispatcher.web.api.query_parameters import known_query_parameters
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.errors import problem_responses

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

router = APIRouter(tags=["health"], dependencies=[Depends(known_query_parameters)], responses=problem_responses(422))


@lru_cache(maxsize=1)
def _registry() -> CollectorRegistry:
    """The registry of this process; made at the first scrape, which hands on all that was collected until then."""
    return start_in_process()


@router.get(
    "/metrics", response_class=PlainTextResponse, response_description="The metrics", responses=problem_responses(401, 403, 503)
)
def show_metrics(services: ServicesDependency) -> PlainTextResponse:
    """All metrics, for Prometheus. While the ledger is away, those that do not need it."""
    record_pool(services.pool.pop_stats())
    gauges = "".join(family_text(*family) for family in families(services))
    return PlainTextResponse(gauges + exposition(_registry()), media_type=MEDIA_TYPE)


def family_text(name: str, meaning: str, samples: Sequence[Sample]) -> str:
    """One metric family in the text format."""
    name = PREFIX + name
    head = f"# HELP {name} {meaning}\n# TYPE {name} gauge\n"
    return head + "".join(f"{name}{_labels(labels)} {_number(value)}\n" for labels, value in samples)


def _number(value: float) -> str:
    """Six digits are enough for counts and ages; times and bytes need all of theirs."""
    return f"{float(value):g}" if abs(value) < 1e6 else repr(float(value))


def _labels(labels: Mapping[str, str]) -> str:
    inside = ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items())
    return f"{{{inside}}}" if inside else ""


def _escape(value: str) -> str:
    return str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

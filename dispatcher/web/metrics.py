"""Metrics for Prometheus, in its text format. Counts only: no names of people, campaigns or addresses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from channels.base import Channel
from dispatcher.maintenance.metrics import Metrics, collect
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.errors import problem_responses

router = APIRouter(tags=["health"])
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Sample = tuple[Mapping[str, str], float]


@router.get("/metrics", response_class=PlainTextResponse, responses=problem_responses(503))
def metrics(services: ServicesDependency) -> PlainTextResponse:
    """All metrics, for Prometheus."""
    return PlainTextResponse("".join(_lines(collect(services), services.clock())), media_type=MEDIA_TYPE)


def _lines(counted: Metrics, now: datetime) -> Iterator[str]:
    stopped = {stop.channel for stop in counted.stops}
    age = (now - counted.oldest_unsettled_at).total_seconds() if counted.oldest_unsettled_at else 0.0
    yield _gauge("campaigns", "Campaigns by state.", [({"state": state}, count) for state, count in counted.campaigns.items()])
    yield _gauge("chunks_open", "Chunks of campaigns and triggers that are not done.", [({}, counted.chunks_open)])
    yield _gauge("messages_parked", "Messages held or waiting.", [({}, counted.messages_parked)])
    yield _gauge(
        "messages_overdue",
        "Parked messages whose time has come; if they stay, beat is not running.",
        [({}, counted.messages_overdue)],
    )
    yield _gauge("events_unsettled", "Provider events not yet applied.", [({}, counted.events_unsettled)])
    yield _gauge("events_unsettled_age_seconds", "Age of the oldest of them.", [({}, age)])
    yield _gauge("texts_waiting", "Inbound messages that wait for an employee.", [({}, counted.texts_waiting)])
    yield _gauge("messages_unresolved", "Unresolved messages: they may have been sent.", [({}, counted.unresolved)])
    yield _gauge(
        "provider_codes",
        "Providers' codes of the last week that need a person; an unknown one has no rule yet.",
        [({"known": str(known).lower()}, sum(alert.known is known for alert in counted.alerts)) for known in (True, False)],
    )
    yield _gauge(
        "channel_stopped",
        "1 for a channel whose keys or settings are wrong: it sends nothing until a check passes.",
        [({"channel": channel}, channel in stopped) for channel in Channel],
    )


def _gauge(name: str, meaning: str, samples: Sequence[Sample]) -> str:
    """One metric family. Labels are values of our own enums, so they need no escaping."""
    head = f"# HELP dispatcher_{name} {meaning}\n# TYPE dispatcher_{name} gauge\n"
    return head + "".join(f"dispatcher_{name}{_labels(labels)} {float(value):g}\n" for labels, value in samples)


def _labels(labels: Mapping[str, str]) -> str:
    inside = ",".join(f'{name}="{value}"' for name, value in labels.items())
    return f"{{{inside}}}" if inside else ""

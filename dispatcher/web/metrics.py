"""Figures for Prometheus, in its text format. Counts only: no names of people, campaigns or addresses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from channels.base import Channel
from dispatcher.ledger.connection import lend
from dispatcher.ledger.maintenance.metrics import Metrics
from dispatcher.ledger.maintenance.metrics import metrics as figures
from dispatcher.runtime.services import Services
from dispatcher.web.dependencies import ServicesHere
from dispatcher.web.errors import answers

router = APIRouter(tags=["health"])
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Sample = tuple[Mapping[str, str], float]


@router.get("/metrics", response_class=PlainTextResponse, responses=answers(503))
def metrics(services: ServicesHere) -> PlainTextResponse:
    """How things stand, for Prometheus."""
    with lend(services.pool) as connection:
        found = figures(connection, services.clock())
    return PlainTextResponse("".join(_lines(services, found)), media_type=MEDIA_TYPE)


def _lines(services: Services, found: Metrics) -> Iterator[str]:
    stopped = {stop.channel for stop in found.stops}
    age = (services.clock() - found.oldest_unsettled_at).total_seconds() if found.oldest_unsettled_at else 0.0
    yield _gauge("campaigns", "Campaigns by state.", [({"state": state}, count) for state, count in found.campaigns.items()])
    yield _gauge("chunks_open", "Chunks of campaigns and triggers not yet dealt with.", [({}, found.chunks_open)])
    yield _gauge("messages_parked", "Messages held or waiting.", [({}, found.messages_parked)])
    yield _gauge(
        "messages_overdue", "Parked messages whose time has come; lasting ones mean beat is away.", [({}, found.messages_overdue)]
    )
    yield _gauge("events_unsettled", "Provider events not yet applied.", [({}, found.events_unsettled)])
    yield _gauge("events_unsettled_age_seconds", "Age of the oldest of them.", [({}, age)])
    yield _gauge("texts_waiting", "Answers by SMS or WhatsApp that a person must read.", [({}, found.texts_waiting)])
    yield _gauge("messages_unresolved", "Messages that may have gone.", [({}, found.unresolved)])
    yield _gauge(
        "provider_codes",
        "Codes of providers that call for a person, heard in the last week; of unknown ones nobody has said what should follow.",
        [({"known": str(known).lower()}, sum(alert.known is known for alert in found.alerts)) for known in (True, False)],
    )
    yield _gauge(
        "channel_stopped",
        "1 for a channel whose keys or settings are wrong: it sends nothing until a check passes.",
        [({"channel": channel}, channel in stopped) for channel in Channel],
    )


def _gauge(name: str, meaning: str, samples: Sequence[Sample]) -> str:
    """One family. Labels come from our own enums, so there is nothing in them to escape."""
    head = f"# HELP dispatcher_{name} {meaning}\n# TYPE dispatcher_{name} gauge\n"
    return head + "".join(f"dispatcher_{name}{_labels(labels)} {float(value):g}\n" for labels, value in samples)


def _labels(labels: Mapping[str, str]) -> str:
    inside = ",".join(f'{name}="{value}"' for name, value in labels.items())
    return f"{{{inside}}}" if inside else ""

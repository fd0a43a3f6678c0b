"""Metrics of what is around the ledger: engines, lanes, disk, certificates. An error in one of them hides no other."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog
from cryptography import x509

from dispatcher.client.jobs import BrokerUnavailable
from dispatcher.domain.broker_url import is_rabbitmq
from dispatcher.domain.errors import LedgerUnavailable
from dispatcher.ledger.connection import lend
from dispatcher.ledger.delivery import scheduling
from dispatcher.ledger.maintenance import metrics
from dispatcher.maintenance.lane_backlog import LaneBacklog, backlog, ping
from dispatcher.runtime.services import Services, Watched

WAIT_SECONDS_MAX = 2.0  # a scrape has ten seconds

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """`engines`: whether each answers. `certificates`: when each ends, by file name, as a Unix time."""

    engines: Mapping[str, bool]
    lanes: Mapping[str, LaneBacklog]
    disk_size: int | None = None
    disk_free: int | None = None
    certificates: Mapping[str, float] = field(default_factory=dict)
    looked_at: float = 0.0


def look(services: Services) -> Surroundings:
    """Look at everything once."""
    watched, engines, lanes = services.watched, {"database": _answers(services)}, dict[str, LaneBacklog]()
    if watched.broker_url:
        try:
            lanes = dict(backlog(watched.broker_url))
            engines["broker"] = True
        except BrokerUnavailable as error:
            log.warning("the lanes cannot be looked at", fault=str(error))
            engines["broker"] = False
    if watched.store_url:
        engines["store"] = _store_answers(watched.store_url)
    if is_rabbitmq(watched.broker_url) and engines["database"]:
        lanes = _with_ages(services, lanes)
    disk = shutil.disk_usage(watched.home) if watched.home is not None and watched.home.is_dir() else None
    return Surroundings(
        engines=engines,
        lanes=lanes,
        disk_size=disk.total if disk else None,
        disk_free=disk.free if disk else None,
        certificates=_certificate_ends(watched),
        looked_at=time.time(),
    )


def _store_answers(store_url: str) -> bool:
    try:
        ping(store_url)
    except BrokerUnavailable as error:
        log.warning("the store does not answer", fault=str(error))
        return False
    return True


def _with_ages(services: Services, lanes: dict[str, LaneBacklog]) -> dict[str, LaneBacklog]:
    """The backlogs with the age of the oldest chunk, where chunks wait: RabbitMQ does not tell it, the ledger does."""
    try:
        with lend(services.pool, WAIT_SECONDS_MAX) as connection:
            ages = scheduling.oldest_published(connection)
    except LedgerUnavailable:
        return lanes
    return {
        lane: replace(waiting, oldest_at=ages[lane].timestamp()) if waiting.tasks and lane in ages else waiting
        for lane, waiting in lanes.items()
    }


def _answers(services: Services) -> bool:
    try:
        with lend(services.pool, WAIT_SECONDS_MAX) as connection:
            metrics.ping(connection)
    except LedgerUnavailable:
        return False
    return True


def _certificate_ends(watched: Watched) -> Mapping[str, float]:
    """When each file's first certificate ends: that is the server's own. 0 for a file that cannot be read."""
    return {file.name: _end(file) for file in watched.certificates}


def _end(file: Path) -> float:
    try:
        return x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc.timestamp()
    except (OSError, ValueError):
        return 0.0

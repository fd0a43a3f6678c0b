"""Counts for operators, and whether the database answers."""

from __future__ import annotations

from dispatcher.ledger.connection import lend
from dispatcher.ledger.maintenance import metrics
from dispatcher.ledger.maintenance.metrics import Metrics
from dispatcher.runtime.services import Services

__all__ = ["Metrics", "collect", "ping"]


def collect(services: Services) -> Metrics:
    """Count campaigns, chunks, messages and events."""
    with lend(services.pool) as connection:
        return metrics.metrics(connection, services.clock())


def ping(services: Services, wait_seconds_max: float) -> None:
    """Return when the database answers. Raises `LedgerUnavailable` after so many seconds."""
    with lend(services.pool, wait_seconds_max) as connection:
        metrics.ping(connection)

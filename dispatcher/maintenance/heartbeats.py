"""Heartbeats: beat puts a task on each lane every few seconds, and the worker that runs it says so in the ledger.

So the whole way is proven: beat, broker, worker, database. While a worker works on a long task, a thread of its process
sends the heartbeat: a frozen process has no running thread.
"""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime

from dispatcher.ledger.connection import lend
from dispatcher.ledger.maintenance.heartbeats import Heartbeat, record_heartbeats
from dispatcher.runtime.services import Services

__all__ = ["BEAT", "HEARTBEAT_SECONDS", "SILENT_SECONDS", "Heartbeat", "record"]

BEAT = "beat"
HEARTBEAT_SECONDS = 5.0  # between two heartbeats, as in `celeryconfig`
SILENT_SECONDS = 20.0  # four heartbeats: shorter than the half minute in which a standstill must show


def record(services: Services, lane: str, published_at: float | None = None) -> None:
    """Say that a worker of this lane works, and that beat published the task for it at this Unix time.

    Raises `LedgerUnavailable`.
    """
    seen = {lane: services.clock()}
    if published_at is not None:
        seen[BEAT] = datetime.fromtimestamp(published_at, UTC)
    with lend(services.pool) as connection:
        record_heartbeats(connection, seen, f"{socket.gethostname()}:{os.getpid()}")

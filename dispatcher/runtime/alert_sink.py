"""Adapters' alerts on their way to where people look: into the ledger, each code once a minute and process."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from channels.alerts import Listener
from dispatcher.domain.errors import LedgerUnavailable
from dispatcher.ledger.connection import Pool, lend
from dispatcher.ledger.maintenance import alerts

QUIET = timedelta(minutes=1)
WAIT_SECONDS_MAX = 1.0  # messages are in flight meanwhile


def alert_sink(pool: Pool, clock: Callable[[], datetime]) -> Listener:
    """Who writes alerts down. One that can't be written is in the log, at least."""
    told: dict[tuple[str, str], datetime] = {}

    def hear(provider: str, code: str, known: bool) -> None:
        now, last = clock(), told.get((provider, code))
        if last is not None and now - last < QUIET:
            return
        told[provider, code] = now
        try:
            with lend(pool, WAIT_SECONDS_MAX) as connection:
                alerts.note(connection, provider, code, known, now)
        except LedgerUnavailable:
            told.pop((provider, code))

    return hear

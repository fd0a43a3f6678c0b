"""Store the adapters' alerts in the ledger, each code once a minute and process."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from channels.alerts import AlertCallback
from dispatcher.domain.errors import LedgerUnavailable
from dispatcher.ledger.connection import Pool, lend
from dispatcher.ledger.maintenance import alerts

QUIET = timedelta(minutes=1)
WAIT_SECONDS_MAX = 1.0  # messages are being sent meanwhile


def alert_sink(pool: Pool, clock: Callable[[], datetime]) -> AlertCallback:
    """A listener that stores alerts. One that cannot be stored is in the log only."""
    stored_at: dict[tuple[str, str], datetime] = {}

    def store(provider: str, code: str, known: bool) -> None:
        now, last = clock(), stored_at.get((provider, code))
        if last is not None and now - last < QUIET:
            return
        stored_at[provider, code] = now
        try:
            with lend(pool, WAIT_SECONDS_MAX) as connection:
                alerts.note(connection, provider, code, known, now)
        except LedgerUnavailable:
            stored_at.pop((provider, code))

    return store

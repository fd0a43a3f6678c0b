"""One partition a month for everything that grows; made ahead of time, dropped by retention."""

from __future__ import annotations

from datetime import datetime

from dispatcher.ledger.pool import Connection


def period_of(moment: datetime) -> int:
    """The month of a moment, as 202611 (UTC)."""
    return moment.year * 100 + moment.month


def ensure_period(connection: Connection, period: int) -> None:
    """Make a month's partitions where they are missing; safe to call from many processes at once."""
    if _exists(connection, period):
        return
    connection.execute("SELECT make_partitions(%s)", (period,))


def _exists(connection: Connection, period: int) -> bool:
    row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (f"provider_events_{period}",)).fetchone()
    return bool(row and row[0])

"""Monthly partitions of the tables that grow: created before they are needed, dropped by retention."""

from __future__ import annotations

from datetime import datetime
from weakref import WeakKeyDictionary

from psycopg.pq import TransactionStatus

from dispatcher.ledger.connection import Connection


def period_of(moment: datetime) -> int:
    """The month of a moment, as 202611 (UTC)."""
    return moment.year * 100 + moment.month


_ensured: WeakKeyDictionary[Connection, int] = WeakKeyDictionary()  # the month that a connection ensured last


def ensure_period(connection: Connection, period: int) -> None:
    """Create a month's partitions where they are missing. Many processes may call this at once."""
    if _ensured.get(connection) == period:
        return
    if not _exists(connection, period):
        connection.execute("SELECT make_partitions(%s)", (period,))
    if connection.info.transaction_status == TransactionStatus.IDLE:  # else a rollback may undo it
        _ensured[connection] = period


def ended_before(before: datetime, period: int) -> bool:
    """Whether a month had ended before the month of that moment."""
    return period < period_of(before)


def periods(connection: Connection) -> list[int]:
    """The months that have partitions, oldest first."""
    rows = connection.execute(
        "SELECT substring(c.relname FROM '[0-9]+$')::int FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
        " WHERE i.inhparent = 'chunks'::regclass ORDER BY 1"
    )
    return [period for (period,) in rows]


def _exists(connection: Connection, period: int) -> bool:
    row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (f"provider_events_{period}",)).fetchone()
    return bool(row and row[0])

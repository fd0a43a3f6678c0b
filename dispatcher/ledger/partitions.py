"""Monthly partitions of the tables that grow: created before they are needed, dropped by retention."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from weakref import WeakKeyDictionary

from psycopg.pq import TransactionStatus

from dispatcher.ledger.connection import Connection

MONTHS_AHEAD = 2


def period_of(moment: datetime) -> int:
    """The month of a moment, as 202611 (UTC)."""
    return moment.year * 100 + moment.month


_ensured: WeakKeyDictionary[Connection, int] = WeakKeyDictionary()  # the month that a connection ensured last


def ensure_period(connection: Connection, period: int) -> None:
    """Create a month's partitions where they are missing. Many processes may call this at once.

    Call it before a long transaction, not in it: until the transaction ends, others who need the month wait.
    """
    if _ensured.get(connection) == period:
        return
    for missing in _missing(connection, [period]):
        connection.execute("SELECT make_partitions(%s)", (missing,))
    if connection.info.transaction_status == TransactionStatus.IDLE:  # else a rollback may undo it
        _ensured[connection] = period


def create_ahead(connection: Connection, now: datetime) -> int:
    """Create the partitions of this month and the next ones where they are missing; returns the last of these months.

    A month then starts without anybody having to create it. Call it outside a transaction.
    """
    first = now.year * 12 + now.month - 1
    months = [count // 12 * 100 + count % 12 + 1 for count in range(first, first + MONTHS_AHEAD + 1)]
    for missing in _missing(connection, months):
        connection.execute("SELECT make_partitions(%s)", (missing,))
    return months[-1]


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


def _missing(connection: Connection, months: Sequence[int]) -> list[int]:
    """Those of these months that have no partitions."""
    rows = connection.execute(
        "SELECT period FROM unnest(%s::int[]) period WHERE to_regclass('provider_events_' || period) IS NULL ORDER BY 1",
        (list(months),),
    )
    return [period for (period,) in rows]

"""One partition a month for everything that grows; made ahead of time, dropped by retention."""

from __future__ import annotations

from datetime import datetime

from psycopg import sql

from dispatcher.ledger.pool import Connection

PARTITIONED = ("chunks", "jobs", "messages", "provider_events")


def period_of(moment: datetime) -> int:
    """The month of a moment, as 202611 (UTC)."""
    return moment.year * 100 + moment.month


def ensure_period(connection: Connection, period: int) -> None:
    """Make a month's partitions where they are missing; safe to call from many processes at once."""
    if _exists(connection, period):
        return
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('partitions'))")
        for table in PARTITIONED:
            connection.execute(
                sql.SQL("CREATE TABLE IF NOT EXISTS {} PARTITION OF {} FOR VALUES IN ({})").format(
                    sql.Identifier(f"{table}_{period}"), sql.Identifier(table), sql.Literal(period)
                )
            )


def _exists(connection: Connection, period: int) -> bool:
    row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (f"provider_events_{period}",)).fetchone()
    return bool(row and row[0])

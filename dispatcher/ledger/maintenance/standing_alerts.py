"""Alerts about what stands still: one open row for each, closed when it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg.rows import class_row

from dispatcher.ledger.connection import Connection

_LOCK = 7_306_318  # of the one process that sends notifications
_COLUMNS = "no, kind, subject, text, began_at, notified_at, acknowledged_at, acknowledged_by, ended_at"


@dataclass(frozen=True, slots=True)
class StandingAlert:
    """An alert. `notified_at`: when the last notification about it was sent; None while nobody was told."""

    no: int
    kind: str
    subject: str
    text: str
    began_at: datetime
    notified_at: datetime | None
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    ended_at: datetime | None


def take_lock(connection: Connection) -> bool:
    """Whether this transaction is the only one that sends notifications now."""
    row = connection.execute("SELECT pg_try_advisory_xact_lock(%s)", (_LOCK,)).fetchone()
    return row is not None and bool(row[0])


def update(connection: Connection, texts: Mapping[tuple[str, str], str], now: datetime) -> None:
    """Open an alert for each kind and subject that has none, and end those that are not among them."""
    keys = {"kinds": [kind for kind, _ in texts], "subjects": [subject for _, subject in texts], "texts": list(texts.values())}
    connection.execute(
        """
        WITH present AS (SELECT * FROM unnest(%(kinds)s::text[], %(subjects)s::text[], %(texts)s::text[]) AS e (kind, subject, text)
        ), ended AS (
            UPDATE standing_alerts a SET ended_at = %(now)s
            WHERE a.ended_at IS NULL AND NOT EXISTS (SELECT FROM present p WHERE p.kind = a.kind AND p.subject = a.subject)
        )
        INSERT INTO standing_alerts (kind, subject, text, began_at) SELECT kind, subject, text, %(now)s FROM present
        ON CONFLICT (kind, subject) WHERE ended_at IS NULL DO UPDATE SET text = excluded.text
        """,
        {**keys, "now": now},
    )


def to_notify(connection: Connection, now: datetime, hold: timedelta, repeat: timedelta) -> list[StandingAlert]:
    """Alerts to send a notification about, the oldest first.

    Open ones that have lasted for `hold`: those that nobody was told of, and, every `repeat`, those that nobody acknowledged. Ended
    ones that somebody was told of before their end.
    """
    with connection.cursor(row_factory=class_row(StandingAlert)) as cursor:
        return cursor.execute(
            f"""
            SELECT {_COLUMNS} FROM standing_alerts
            WHERE (ended_at IS NULL AND began_at <= %(now)s - %(hold)s
                   AND (notified_at IS NULL OR (acknowledged_at IS NULL AND notified_at <= %(now)s - %(repeat)s)))
               OR (ended_at IS NOT NULL AND notified_at < ended_at)
            ORDER BY no
            """,
            {"now": now, "hold": hold, "repeat": repeat},
        ).fetchall()


def mark_notified(connection: Connection, numbers: Sequence[int], now: datetime) -> None:
    """Record that a notification about these was sent now."""
    connection.execute("UPDATE standing_alerts SET notified_at = %s WHERE no = ANY(%s)", (now, list(numbers)))


def acknowledge(connection: Connection, number: int, by: str, now: datetime) -> bool:
    """Record who takes care of an open alert; False where there is none with this number, or somebody does already."""
    return bool(
        connection.execute(
            "UPDATE standing_alerts SET acknowledged_at = %s, acknowledged_by = %s"
            " WHERE no = %s AND ended_at IS NULL AND acknowledged_at IS NULL",
            (now, by, number),
        ).rowcount
    )


def newest(connection: Connection, limit: int) -> list[StandingAlert]:
    """Open alerts, then ended ones, each the newest first."""
    with connection.cursor(row_factory=class_row(StandingAlert)) as cursor:
        return cursor.execute(
            f"SELECT {_COLUMNS} FROM standing_alerts ORDER BY ended_at IS NOT NULL, no DESC LIMIT %s", (limit,)
        ).fetchall()


def prune(connection: Connection, before: datetime) -> int:
    """Delete alerts that ended before then; returns their number."""
    return connection.execute("DELETE FROM standing_alerts WHERE ended_at < %s", (before,)).rowcount

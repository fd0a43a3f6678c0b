"""Canary recipients, their rounds and their jobs. A round is one opt-out, from the switch-on to the measurement.

All times of a round are those of the database's clock, as the time of a claim is: they can be compared exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from channels.base import Channel
from dispatcher.domain.canaries import PREFIX, OptOutWay, RoundOutcome
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.message_key import same_chunk

_LOCK = 7_306_341  # of the one transaction that replaces canaries


@dataclass(frozen=True, slots=True)
class Canary:
    """The canary recipient of a way, with its time zone."""

    recipient_id: str
    way: str
    made_at: datetime
    timezone: str | None


def lock(connection: Connection) -> None:
    """Let only one transaction at a time replace canaries."""
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))


def in_use(connection: Connection) -> dict[OptOutWay, Canary]:
    """The canary of each way."""
    rows = connection.execute(
        "SELECT c.recipient_id, c.way, c.made_at, r.timezone FROM canaries c JOIN recipients r ON r.id = c.recipient_id"
        " WHERE c.retired_at IS NULL"
    )
    return {OptOutWay(canary.way): canary for canary in (Canary(*row) for row in rows)}


def replace(connection: Connection, way: OptOutWay, person: Mapping[str, Any], now: datetime) -> None:
    """Retire the canary of a way, if there is one, and make another. `person` has columns of `recipients`, without choices."""
    with connection.transaction():
        connection.execute("SELECT retire_canary(%s, %s)", (way, now))
        connection.execute("SELECT make_canary(%s, %s, %s)", (way, Jsonb(dict(person)), now))


def owners_elsewhere(connection: Connection, keys: Sequence[bytes], device: str) -> list[str]:
    """The recipients other than canaries that have one of these addresses, or this device."""
    rows = connection.execute(
        """
        SELECT id FROM recipients WHERE email_key = ANY(%(keys)s) AND NOT starts_with(id, %(prefix)s)
        UNION SELECT id FROM recipients WHERE phone_key = ANY(%(keys)s) AND NOT starts_with(id, %(prefix)s)
        UNION SELECT id FROM recipients WHERE whatsapp_key = ANY(%(keys)s) AND NOT starts_with(id, %(prefix)s)
        UNION SELECT id FROM recipients WHERE devices @> %(device)s AND NOT starts_with(id, %(prefix)s)
        """,
        {"keys": list(keys), "prefix": PREFIX, "device": Jsonb([{"token": device}])},
    )
    return sorted(row[0] for row in rows)


def uncount(connection: Connection, recipient_id: str) -> None:
    """Let the frequency caps forget what a canary got: it gets some messages a minute, and no other person's cap counts them."""
    connection.execute("DELETE FROM cap_reservations WHERE recipient_id = %s", (recipient_id,))


def overdue(connection: Connection, before: datetime) -> int:
    """The number of canaries that were retired before then."""
    row = connection.execute("SELECT count(*) FROM canaries WHERE retired_at < %s", (before,)).fetchone()
    return int(row[0]) if row else 0


def forget(connection: Connection, before: datetime, most: int) -> int:
    """Delete some of them with all that is about them, except the measurements."""
    row = connection.execute("SELECT forget_canaries(%s, %s)", (before, most)).fetchone()
    return int(row[0]) if row else 0


# -- rounds ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CanaryRound:
    """A round. `age` is the time since its start, `waited` since its last step, `answered` since the answer, by the database."""

    no: int
    way: str
    recipient_id: str
    step: int
    bound_seconds: float
    age: timedelta
    waited: timedelta
    answered: timedelta | None


_OPEN = """
    SELECT no, way, recipient_id, step, bound_seconds, clock_timestamp() - started_at AS age,
           clock_timestamp() - stepped_at AS waited, clock_timestamp() - answered_at AS answered
    FROM canary_rounds WHERE closed_at IS NULL
"""


def open_rounds(connection: Connection) -> dict[OptOutWay, CanaryRound]:
    """The open round of each way."""
    with connection.cursor(row_factory=class_row(CanaryRound)) as cursor:
        return {OptOutWay(each.way): each for each in cursor.execute(_OPEN)}


def start(connection: Connection, way: OptOutWay, recipient_id: str, bound_seconds: float, pause: timedelta) -> CanaryRound | None:
    """Start a round; None while one is open, or the last one began less than `pause` ago. Of several processes, one gets it."""
    with connection.cursor(row_factory=class_row(CanaryRound)) as cursor:
        return cursor.execute(
            """
            INSERT INTO canary_rounds (way, recipient_id, bound_seconds, started_at, stepped_at)
            SELECT %(way)s, %(id)s, %(bound)s, clock_timestamp(), clock_timestamp()
            WHERE NOT EXISTS (SELECT FROM canary_rounds WHERE way = %(way)s AND started_at > clock_timestamp() - %(pause)s)
            ON CONFLICT (way) WHERE closed_at IS NULL DO NOTHING
            RETURNING no, way, recipient_id, step, bound_seconds, interval '0' AS age, interval '0' AS waited,
                      NULL::interval AS answered
            """,
            {"way": way, "id": recipient_id, "bound": bound_seconds, "pause": pause},
        ).fetchone()


def take_step(connection: Connection, no: int, step: int) -> bool:
    """Begin a step of an open round. False where another process has begun it."""
    row = connection.execute(
        "UPDATE canary_rounds SET step = %(step)s, stepped_at = clock_timestamp()"
        " WHERE no = %(no)s AND step = %(step)s - 1 AND closed_at IS NULL RETURNING no",
        {"no": no, "step": step},
    )
    return row.fetchone() is not None


def record_answer(connection: Connection, no: int) -> None:
    """Record that the way out has answered."""
    connection.execute("UPDATE canary_rounds SET answered_at = clock_timestamp() WHERE no = %s", (no,))


def close(connection: Connection, no: int, outcome: RoundOutcome, reason: str | None) -> bool:
    """End a round. False where it has ended."""
    row = connection.execute(
        "UPDATE canary_rounds SET closed_at = clock_timestamp(), outcome = %s, reason = %s WHERE no = %s AND closed_at IS NULL"
        " RETURNING no",
        (outcome, reason, no),
    )
    return row.fetchone() is not None


def add_jobs(connection: Connection, no: int, step: int, places: Sequence[tuple[int, int, Channel]]) -> None:
    """Record the triggers of a round: (period, chunk, channel)."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO canary_jobs (round_no, period, chunk, channel, step) VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [(no, period, chunk, channel, step) for period, chunk, channel in places],
        )


@dataclass(frozen=True, slots=True)
class CanaryJob:
    """A job of a round, and the state of its message; `pending` while there is none."""

    period: int
    chunk: int
    channel: str
    step: int
    state: str
    reason: str | None


def jobs(connection: Connection, no: int) -> list[CanaryJob]:
    """The jobs of a round, oldest first."""
    with connection.cursor(row_factory=class_row(CanaryJob)) as cursor:
        return cursor.execute(
            f"""
            SELECT j.period, j.chunk, j.channel, j.step, coalesce(m.state, 'pending') AS state, m.reason
            FROM canary_jobs j LEFT JOIN messages m ON {same_chunk("m", "j")} AND (m.row, m.leg) = (0, 0)
            WHERE j.round_no = %s ORDER BY j.chunk
            """.encode(),
            (no,),
        ).fetchall()

"""Console sessions, and failed sign-ins, which all web processes count together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg

from dispatcher.ledger.connection import Connection

FREE_FAILURES = 5  # a person mistypes
WAIT_SECONDS_MAX = 60  # between two attempts, however many failed
REMEMBERED = timedelta(minutes=15)  # after this time without a failure the count begins again


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session. Only hashes of its id and of its key are stored."""

    id_hash: bytes
    key_hash: bytes
    actor: str
    ends_at: datetime


def start(connection: Connection, session: SessionRow, now: datetime) -> None:
    """Store a session, and delete those that have ended."""
    with connection.transaction():
        connection.execute("DELETE FROM console_sessions WHERE ends_at <= %s", (now,))
        connection.execute(
            "INSERT INTO console_sessions (id_hash, key_hash, actor, started_at, ends_at) VALUES (%s, %s, %s, %s, %s)",
            (session.id_hash, session.key_hash, session.actor, now, session.ends_at),
        )


def key_hash_of(connection: Connection, id_hash: bytes, now: datetime) -> bytes | None:
    """The hash of the key that started this session; None where it has ended."""
    row = connection.execute("SELECT key_hash FROM console_sessions WHERE id_hash = %s AND ends_at > %s", (id_hash, now)).fetchone()
    return row[0] if row else None


def end(connection: Connection, id_hash: bytes) -> None:
    """End a session."""
    connection.execute("DELETE FROM console_sessions WHERE id_hash = %s", (id_hash,))


# An attempt counts as failed before its key is checked, so that attempts at the same moment cannot pass together. One that comes
# too early is refused and does not count: who keeps trying does not make the wait longer.
_COUNT_ATTEMPT = """
    INSERT INTO sign_in_failures AS f (subject, failures, last_at) VALUES (%(subject)s, 1, %(now)s)
    ON CONFLICT (subject) DO UPDATE
        SET failures = CASE WHEN f.last_at < %(forgotten)s THEN 1 ELSE f.failures + 1 END, last_at = %(now)s
        WHERE f.failures < %(free)s
           OR f.last_at <= %(now)s - make_interval(secs => least(%(most)s, 2 ^ least(f.failures - %(free)s, 10)))
    RETURNING failures
"""


def count_attempt(connection: Connection, subjects: Sequence[bytes], now: datetime) -> int | None:
    """Count an attempt to sign in. Returns the largest count of failures; None where one of the subjects has to wait."""
    connection.execute("DELETE FROM sign_in_failures WHERE last_at < %s", (now - REMEMBERED,))
    counts: list[int] = []
    with connection.transaction():
        for subject in sorted(subjects):
            parameters = {
                "subject": subject,
                "now": now,
                "forgotten": now - REMEMBERED,
                "free": FREE_FAILURES,
                "most": WAIT_SECONDS_MAX,
            }
            row = connection.execute(_COUNT_ATTEMPT, parameters).fetchone()
            if row is None:
                counts.clear()
                raise psycopg.Rollback
            counts.append(int(row[0]))
    return max(counts, default=None)


def take_back_attempt(connection: Connection, subjects: Sequence[bytes]) -> None:
    """The attempt was counted, and succeeded."""
    connection.execute(
        "UPDATE sign_in_failures SET failures = greatest(0, failures - 1) WHERE subject = ANY (%s)", (list(subjects),)
    )

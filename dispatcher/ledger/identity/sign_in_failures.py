"""Failed sign-ins, which all processes count together."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import psycopg

from dispatcher.ledger.connection import Connection

FREE_FAILURES = 5  # a person mistypes
WAIT_SECONDS_MAX = 60  # between two attempts, however many failed
REMEMBERED = timedelta(minutes=15)  # after this time without a failure the count begins again


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

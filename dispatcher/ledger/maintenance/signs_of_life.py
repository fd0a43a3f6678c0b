"""When beat and the workers of each lane were last known to work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from dispatcher.ledger.connection import Connection


@dataclass(frozen=True, slots=True)
class SignOfLife:
    """The first and the newest sign of one part since the last start. `process`: the host and number of the one that gave it."""

    first_at: datetime
    seen_at: datetime
    process: str


def note(connection: Connection, seen: Mapping[str, datetime], process: str) -> None:
    """Store when these parts were seen; a later sign stays."""
    connection.execute(
        """
        INSERT INTO signs_of_life AS s (part, first_at, seen_at, process)
        SELECT e.part, e.seen_at, e.seen_at, %(process)s
        FROM unnest(%(parts)s::text[], %(times)s::timestamptz[]) AS e (part, seen_at) ORDER BY 1
        ON CONFLICT (part) DO UPDATE SET seen_at = excluded.seen_at, process = excluded.process WHERE s.seen_at < excluded.seen_at
        """,
        {"parts": list(seen), "times": list(seen.values()), "process": process},
    )


def all_signs(connection: Connection) -> Mapping[str, SignOfLife]:
    """The newest sign of each part that ever gave one."""
    rows = connection.execute("SELECT part, first_at, seen_at, process FROM signs_of_life")
    return {part: SignOfLife(*values) for part, *values in rows}


def forget(connection: Connection, parts: Sequence[str]) -> None:
    """Forget the signs of these parts."""
    connection.execute("DELETE FROM signs_of_life WHERE part = ANY(%s)", (list(parts),))

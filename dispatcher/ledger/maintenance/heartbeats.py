"""When beat and the workers of each lane were last known to work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from dispatcher.ledger.connection import Connection


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The first and the newest heartbeat of one component since its last start. `process`: host and number of the sender."""

    first_at: datetime
    seen_at: datetime
    process: str


def record_heartbeats(connection: Connection, seen: Mapping[str, datetime], process: str) -> None:
    """Store when these components were seen; a later heartbeat stays."""
    connection.execute(
        """
        INSERT INTO heartbeats AS s (component, first_at, seen_at, process)
        SELECT e.component, e.seen_at, e.seen_at, %(process)s
        FROM unnest(%(components)s::text[], %(times)s::timestamptz[]) AS e (component, seen_at) ORDER BY 1
        ON CONFLICT (component) DO UPDATE SET seen_at = excluded.seen_at, process = excluded.process
        WHERE s.seen_at < excluded.seen_at
        """,
        {"components": list(seen), "times": list(seen.values()), "process": process},
    )


def newest_heartbeats(connection: Connection) -> Mapping[str, Heartbeat]:
    """The newest heartbeat of each component that ever sent one."""
    rows = connection.execute("SELECT component, first_at, seen_at, process FROM heartbeats")
    return {component: Heartbeat(*values) for component, *values in rows}


def forget_heartbeats(connection: Connection, components: Sequence[str]) -> None:
    """Forget the heartbeats of these components."""
    connection.execute("DELETE FROM heartbeats WHERE component = ANY(%s)", (list(components),))

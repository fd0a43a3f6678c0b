"""The event endpoints: where events are delivered, which of them, and the version of the secret that signs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from psycopg.errors import UniqueViolation

from dispatcher.ledger.connection import Connection, fetch_all, fetch_one


class EndpointState(StrEnum):
    """Whether events are delivered to an endpoint."""

    ACTIVE = "active"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class EndpointTarget:
    """What an operator chooses: the URL, which events (empty: all), and how many in one call at most."""

    url: str
    types: tuple[str, ...] = ()
    entities: tuple[str, ...] = ()
    campaigns: tuple[str, ...] = ()
    batch_max: int = 1


@dataclass(frozen=True, slots=True)
class EventEndpoint:
    """An endpoint as the ledger has it."""

    no: int
    id: str
    target: EndpointTarget
    revision: int
    state: EndpointState
    disabled_reason: str | None
    secret_version: int
    old_secret_until: datetime | None
    lease: int
    delivered_at: datetime | None
    created_by: str
    created_at: datetime

    def secret_versions(self, now: datetime) -> tuple[int, ...]:
        """The versions of the secret that sign at this time, the newest first."""
        has_old = self.old_secret_until is not None and now < self.old_secret_until
        return (self.secret_version, self.secret_version - 1) if has_old else (self.secret_version,)


COLUMNS = """
    e.no, e.id, e.url, e.types, e.entities, e.campaigns, e.batch_max, e.revision, e.state, e.disabled_reason, e.secret_version,
    e.old_secret_until, e.lease, e.delivered_at, e.created_by, e.created_at
"""


def from_row(row: dict[str, Any]) -> EventEndpoint:
    """The endpoint of a row with `COLUMNS`."""
    lists = {name: tuple(row.pop(name)) for name in ("types", "entities", "campaigns")}
    target = EndpointTarget(row.pop("url"), **lists, batch_max=row.pop("batch_max"))
    return EventEndpoint(target=target, **row | {"state": EndpointState(row["state"])})


def endpoints(connection: Connection) -> list[EventEndpoint]:
    """All endpoints, by id."""
    return [from_row(row) for row in fetch_all(connection, f"SELECT {COLUMNS} FROM event_endpoints e ORDER BY id", {})]


def find(connection: Connection, endpoint_id: str, lock: bool = False) -> EventEndpoint | None:
    """The endpoint with this id; locked until the transaction ends, where wanted."""
    statement = f"SELECT {COLUMNS} FROM event_endpoints e WHERE id = %(id)s{' FOR UPDATE' if lock else ''}"
    row = fetch_one(connection, statement, {"id": endpoint_id})
    return from_row(row) if row else None


def add(connection: Connection, endpoint_id: str, target: EndpointTarget, actor: str, now: datetime) -> int | None:
    """Add an endpoint; returns its number, None where the id is taken."""
    try:
        row = connection.execute(
            """
            INSERT INTO event_endpoints (id, url, types, entities, campaigns, batch_max, created_by, created_at)
            VALUES (%(id)s, %(url)s, %(types)s, %(entities)s, %(campaigns)s, %(batch_max)s, %(actor)s, %(now)s) RETURNING no
            """,
            {"id": endpoint_id, "actor": actor, "now": now, **_lists(target)},
        ).fetchone()
    except UniqueViolation:
        return None
    return int(row[0]) if row else None


def change(connection: Connection, endpoint_id: str, target: EndpointTarget) -> None:
    """Replace what the operator chose. The batch in flight is formed again, under another webhook id."""
    connection.execute(
        """
        WITH changed AS (
            UPDATE event_endpoints SET url = %(url)s, types = %(types)s, entities = %(entities)s, campaigns = %(campaigns)s,
                   batch_max = %(batch_max)s, revision = revision + 1
            WHERE id = %(id)s RETURNING no
        )
        UPDATE endpoint_cursors SET in_flight = NULL FROM changed WHERE endpoint_no = changed.no AND state <> 'dead'
        """,
        {"id": endpoint_id, **_lists(target)},
    )


def _lists(target: EndpointTarget) -> dict[str, Any]:
    """The fields as parameters; PostgreSQL arrays are made from lists."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(target).items()}


def remove(connection: Connection, endpoint_id: str) -> bool:
    """Delete an endpoint and its cursors; returns whether there was one."""
    return bool(connection.execute("DELETE FROM event_endpoints WHERE id = %s", (endpoint_id,)).rowcount)


def disable(connection: Connection, endpoint_id: str, reason: str) -> None:
    """Stop deliveries. The cursors stay where they are."""
    connection.execute(
        "UPDATE event_endpoints SET state = 'disabled', disabled_reason = %s WHERE id = %s AND state = 'active'",
        (reason, endpoint_id),
    )


def enable(connection: Connection, endpoint_id: str, now: datetime) -> None:
    """Start deliveries again where they stopped, at once. A batch gets the whole time for its retries from now on."""
    connection.execute(
        """
        WITH enabled AS (UPDATE event_endpoints SET state = 'active', disabled_reason = NULL WHERE id = %(id)s RETURNING no)
        UPDATE endpoint_cursors SET next_try_at = %(now)s, since = %(now)s, attempts = 0 FROM enabled
        WHERE endpoint_no = enabled.no AND endpoint_cursors.state <> 'dead'
        """,
        {"id": endpoint_id, "now": now},
    )


def rotate(connection: Connection, endpoint_id: str, old_until: datetime | None) -> None:
    """Make the next version of the secret the newest; the one before signs until then."""
    connection.execute(
        "UPDATE event_endpoints SET secret_version = secret_version + 1, old_secret_until = %s WHERE id = %s",
        (old_until, endpoint_id),
    )

"""Who changed an event endpoint, when and how. Entries stay when the endpoint is removed; nobody changes or deletes one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from dispatcher.ledger.connection import Connection, fetch_all


@dataclass(frozen=True, slots=True)
class EndpointAct:
    """What somebody does with an endpoint. `reason` is in the actor's words; `detail` has names of fields and numbers of events."""

    actor: str
    action: str
    reason: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RecordedAct:
    """What somebody did with an endpoint."""

    endpoint_id: str
    at: datetime
    act: EndpointAct


def note(connection: Connection, endpoint_no: int, endpoint_id: str, act: EndpointAct, now: datetime) -> None:
    """Record an act, in the transaction that does it."""
    connection.execute(
        "INSERT INTO endpoint_changes (endpoint_no, endpoint_id, at, actor, action, reason, detail)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s)",
        (endpoint_no, endpoint_id, now, act.actor, act.action, act.reason, Jsonb(dict(act.detail))),
    )


def newest(connection: Connection, limit: int, endpoint_no: int | None = None) -> list[RecordedAct]:
    """The latest acts, newest first: of one endpoint, or of all that are or were there."""
    rows = fetch_all(
        connection,
        "SELECT endpoint_id, at, actor, action, reason, detail FROM endpoint_changes"
        " WHERE %(no)s::bigint IS NULL OR endpoint_no = %(no)s ORDER BY no DESC LIMIT %(limit)s",
        {"no": endpoint_no, "limit": limit},
    )
    return [
        RecordedAct(row["endpoint_id"], row["at"], EndpointAct(row["actor"], row["action"], row["reason"], row["detail"]))
        for row in rows
    ]

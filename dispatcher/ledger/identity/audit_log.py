"""The audit log, in one hash chain, as the consent events of a person are."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from psycopg.types.json import Jsonb
from pydantic_core import to_json

from dispatcher.domain.audit import AuditNote
from dispatcher.domain.derived_keys import KeyRing, derive
from dispatcher.domain.principal import Entities, Principal
from dispatcher.ledger.connection import Connection, fetch_all
from dispatcher.ledger.entity_scope import entity_parameter, has_entity, has_recipient

START = bytes(32)  # the previous hash of the first row
ROWS_PER_STEP = 5_000


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One row: who did what, when, from where, on whom and why."""

    no: int
    at: datetime
    principal_id: str
    principal_name: str
    kind: str
    place: str
    address: str
    action: str
    outcome: str
    object_type: str
    object_id: str
    recipient: str | None
    entity: str | None
    reason: str
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """What a list is limited to; None excludes nothing."""

    principal: str | None = None
    action: str | None = None
    object_type: str | None = None
    object_id: str | None = None
    recipient: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    entities: Entities = None


_COLUMNS = ", ".join(AuditRow.__slots__)


def append(connection: Connection, secret: KeyRing, row: AuditRow) -> int:
    """Append a row, whose number is set here; returns the number."""
    with connection.transaction():
        last, head = connection.execute("SELECT no, head FROM audit_log_end FOR UPDATE").fetchone() or (0, None)
        no, previous = last + 1, bytes(head) if head is not None else START
        values = {name: getattr(row, name) for name in AuditRow.__slots__} | {"no": no}
        hashed = _hash(secret.newest, AuditRow(**values), previous)
        names = ", ".join(f"%({name})s" for name in values)
        connection.execute(
            f"INSERT INTO audit_log ({_COLUMNS}, previous_hash, hash) VALUES ({names}, %(previous)s, %(hash)s)",
            {**values, "detail": Jsonb(row.detail), "previous": previous, "hash": hashed},
        )
        connection.execute("UPDATE audit_log_end SET no = %s, head = %s, seal = %s", (no, hashed, _seal(secret.newest, no, hashed)))
    return int(no)


def row_of(note: AuditNote, principal: Principal, origin: tuple[str, str], now: datetime) -> AuditRow:
    """A row for a note; `origin` is the place and the address."""
    return AuditRow(
        no=0,
        at=now,
        principal_id=principal.id,
        principal_name=principal.name,
        kind=principal.kind.value,
        place=origin[0],
        address=origin[1],
        action=note.action.value,
        outcome=note.outcome.value,
        object_type=note.object_type,
        object_id=note.object_id,
        recipient=note.recipient,
        entity=note.entity,
        reason=note.reason,
        detail=dict(note.detail),
    )


def _hash(key: bytes, row: AuditRow, previous: bytes) -> bytes:
    values = [getattr(row, name) for name in AuditRow.__slots__]
    values[1] = row.at.astimezone(UTC).isoformat()
    values[-1] = sorted(row.detail.items())
    return hmac.digest(derive(key, "audit"), previous + to_json(values), "sha256")


def _seal(key: bytes, no: int, head: bytes) -> bytes:
    """The keyed hash over the end of the log: nobody can cut it short, not even by changing `audit_log_end` too."""
    return hmac.digest(derive(key, "audit end"), to_json([no, head.hex()]), "sha256")


# A row that names no entity belongs to that of its customer or campaign; one without either is for all entities only.
_IS_VISIBLE = f"""
    CASE WHEN entity IS NOT NULL THEN {has_entity("entity")}
         WHEN recipient IS NOT NULL THEN {has_recipient("ARRAY[recipient]")}
         WHEN object_type = 'campaign' THEN EXISTS (
             SELECT FROM campaigns c WHERE c.id = object_id AND {has_entity("c.spec->>'entity'")}) OR %(entities)s::text[] IS NULL
         ELSE %(entities)s::text[] IS NULL END
"""
_WHERE = f"""
    WHERE (%(principal)s::text IS NULL OR principal_id = %(principal)s) AND (%(action)s::text IS NULL OR action = %(action)s)
      AND (%(object_type)s::text IS NULL OR object_type = %(object_type)s)
      AND (%(object_id)s::text IS NULL OR object_id = %(object_id)s)
      AND (%(recipient)s::text IS NULL OR recipient = %(recipient)s)
      AND (%(since)s::timestamptz IS NULL OR at >= %(since)s) AND (%(until)s::timestamptz IS NULL OR at < %(until)s)
      AND {_IS_VISIBLE}
"""


def newest(connection: Connection, wanted: AuditFilter, before: int | None, limit: int) -> list[AuditRow]:
    """The rows that match, newest first, only those before a number where one is given."""
    parameters = {name: getattr(wanted, name) for name in AuditFilter.__slots__} | {"before": before, "limit": limit}
    parameters |= entity_parameter(wanted.entities)
    statement = f"SELECT {_COLUMNS} FROM audit_log {_WHERE} AND (%(before)s::bigint IS NULL OR no < %(before)s) ORDER BY no DESC"
    return [AuditRow(**row) for row in fetch_all(connection, f"{statement} LIMIT %(limit)s", parameters)]


def of_recipient(connection: Connection, recipient_id: str) -> list[AuditRow]:
    """All rows about a person, oldest first."""
    statement = f"SELECT {_COLUMNS} FROM audit_log WHERE recipient = %(id)s ORDER BY no"
    return [AuditRow(**row) for row in fetch_all(connection, statement, {"id": recipient_id})]


def verify(connection: Connection, secret: KeyRing) -> Iterator[str]:
    """Every fault of the chain: changed, missing and added rows, and an end that was cut off.

    As with consent events, two changes need no key and are not found: the owner of the database restores the whole log to an
    earlier copy, or deletes its beginning and says that retention did.
    """
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        end = connection.execute("SELECT first_no, no, head, seal FROM audit_log_end").fetchone()
        if end is None:
            yield "audit log: its end is missing"
            return
        first, last, head, sealed = end
        due, running = first, None
        while rows := fetch_all(
            connection,
            f"SELECT {_COLUMNS}, previous_hash, hash FROM audit_log WHERE no >= %(due)s ORDER BY no LIMIT %(limit)s",
            {"due": due, "limit": ROWS_PER_STEP},
        ):
            for values in rows:
                previous, written = bytes(values.pop("previous_hash")), bytes(values.pop("hash"))
                row = AuditRow(**values)
                if row.no != due:
                    yield f"audit log, row {due}: missing"
                elif running is not None and previous != running:
                    yield f"audit log, row {row.no}: does not follow the row before it"
                if not any(hmac.compare_digest(_hash(key, row, previous), written) for key in secret):
                    yield f"audit log, row {row.no}: changed"
                due, running = row.no + 1, written
        if due - 1 != last or (running is not None and running != bytes(head or b"")):
            yield "audit log: it does not end where it should"
        if head is not None and not any(_seal(key, last, bytes(head)) == bytes(sealed or b"") for key in secret):
            yield "audit log: its end was moved"


_OVERDUE = "SELECT count(*) FROM audit_log WHERE at < %s AND no > 0"


def overdue(connection: Connection, before: datetime) -> int:
    """The number of rows older than that."""
    row = connection.execute(_OVERDUE, (before,)).fetchone()
    return int(row[0]) if row else 0


def forget(connection: Connection, before: datetime, _: datetime) -> int:
    """Delete some of the oldest of them."""
    row = connection.execute("SELECT forget_audit(%s, %s)", (before, ROWS_PER_STEP)).fetchone()
    return int(row[0]) if row else 0

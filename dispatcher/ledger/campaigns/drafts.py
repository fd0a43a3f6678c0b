"""Campaigns that people write in the console, before they are submitted, and remembered assignments of columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from dispatcher.ledger.connection import Connection, fetch_all, fetch_one


@dataclass(frozen=True, slots=True)
class Draft:
    """A campaign that is not submitted yet. `form` is the campaign form without its audience."""

    no: int
    owner: str
    form: Mapping[str, Any]
    upload: str | None = None
    file_name: str = ""
    file_check: Mapping[str, Any] | None = None
    dry_run: Mapping[str, Any] | None = field(default=None, repr=False)
    updated_at: datetime | None = None


_FIELDS = "no, owner, form, upload, file_name, file_check, dry_run, updated_at"


def add(connection: Connection, owner: str, form: Mapping[str, Any], now: datetime) -> int:
    """Store a new draft; returns its number."""
    row = connection.execute(
        "INSERT INTO campaign_drafts (owner, form, updated_at) VALUES (%s, %s, %s) RETURNING no", (owner, Jsonb(dict(form)), now)
    ).fetchone()
    assert row is not None  # noqa: S101  RETURNING has a row
    return int(row[0])


def find(connection: Connection, no: int, owner: str) -> Draft | None:
    """The draft of this number, where it is this person's."""
    row = fetch_one(
        connection,
        f"SELECT {_FIELDS} FROM campaign_drafts WHERE no = %(no)s AND owner = %(owner)s",
        {"no": no, "owner": owner},
    )
    return Draft(**row) if row else None


def of_owner(connection: Connection, owner: str) -> list[Draft]:
    """A person's drafts, newest first."""
    rows = fetch_all(
        connection, f"SELECT {_FIELDS} FROM campaign_drafts WHERE owner = %(owner)s ORDER BY updated_at DESC", {"owner": owner}
    )
    return [Draft(**row) for row in rows]


def save(connection: Connection, draft: Draft, now: datetime) -> bool:
    """Store a changed draft; False where another call stored or deleted it since it was read."""
    cursor = connection.execute(
        "UPDATE campaign_drafts SET form = %s, upload = %s, file_name = %s, file_check = %s, dry_run = %s, updated_at = %s"
        " WHERE no = %s AND updated_at = %s",
        (
            Jsonb(dict(draft.form)),
            draft.upload,
            draft.file_name,
            Jsonb(draft.file_check) if draft.file_check is not None else None,
            Jsonb(draft.dry_run) if draft.dry_run is not None else None,
            now,
            draft.no,
            draft.updated_at,
        ),
    )
    return cursor.rowcount == 1


def delete(connection: Connection, no: int) -> None:
    """Delete a draft, also one that was submitted."""
    connection.execute("DELETE FROM campaign_drafts WHERE no = %s", (no,))


def overdue(connection: Connection, before: datetime) -> int:
    """How many drafts nobody has changed since then."""
    row = connection.execute("SELECT count(*) FROM campaign_drafts WHERE updated_at < %s", (before,)).fetchone()
    return int(row[0]) if row else 0


def delete_overdue(connection: Connection, before: datetime, _: datetime) -> int:
    """Delete drafts that nobody has changed since then; returns their number. Mappings, which hold no personal data of customers,
    stay for a year longer."""
    connection.execute("DELETE FROM column_mappings WHERE used_at < %s::timestamptz - interval '1 year'", (before,))
    return connection.execute("DELETE FROM campaign_drafts WHERE updated_at < %s", (before,)).rowcount


def remembered_columns(connection: Connection, owner: str, template: str, header: bytes) -> list[str] | None:
    """How a person assigned the columns of a file with this header to this template."""
    row = connection.execute(
        "SELECT columns FROM column_mappings WHERE owner = %s AND template = %s AND header = %s", (owner, template, header)
    ).fetchone()
    return list(row[0]) if row else None


def remember_columns(connection: Connection, key: tuple[str, str, bytes], columns: Sequence[str], now: datetime) -> None:
    """Remember columns by owner, template and header."""
    connection.execute(
        "INSERT INTO column_mappings (owner, template, header, columns, used_at) VALUES (%s, %s, %s, %s, %s)"
        " ON CONFLICT (owner, template, header) DO UPDATE SET columns = excluded.columns, used_at = excluded.used_at",
        (*key, list(columns), now),
    )

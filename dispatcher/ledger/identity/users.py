"""People who may sign in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from dispatcher.ledger.connection import Connection, fetch_all


@dataclass(frozen=True, slots=True)
class UserRow:
    """A person. `totp_secret` is encrypted; `entities` None stands for all."""

    id: str
    name: str
    email: str
    password_hash: str | None = field(repr=False)
    must_change: bool
    totp_secret: str | None = field(repr=False)
    recovery_hashes: list[bytes] = field(repr=False)
    roles: list[str]
    entities: list[str] | None
    created_at: datetime
    created_by: str
    disabled_at: datetime | None
    subject: str | None = None  # at the identity provider: issuer and id
    language: str | None = None  # of the console
    zone: str | None = None  # of the console's times


_COLUMNS = ", ".join(UserRow.__slots__)
_ID = re.compile(r"user:[a-z0-9][a-z0-9._@-]{0,63}")


def is_id(text: str) -> bool:
    """Whether a text can be the id of a person."""
    return _ID.fullmatch(text) is not None


def find_subject(connection: Connection, subject: str) -> UserRow | None:
    """The person with this subject at the identity provider, locked."""
    rows = fetch_all(connection, f"SELECT {_COLUMNS} FROM users WHERE subject = %(subject)s FOR UPDATE", {"subject": subject})
    return UserRow(**rows[0]) if rows else None


def find(connection: Connection, user_id: str, lock: bool = False) -> UserRow | None:
    """The person with this id; locked until the transaction ends, where wanted."""
    statement = f"SELECT {_COLUMNS} FROM users WHERE id = %(id)s{' FOR UPDATE' if lock else ''}"
    rows = fetch_all(connection, statement, {"id": user_id})
    return UserRow(**rows[0]) if rows else None


def names_of(connection: Connection, principal_id: str) -> list[str]:
    """The names by which texts may name a principal: of a person also the name and the e-mail address."""
    _, _, bare = principal_id.rpartition(":")
    user = find(connection, principal_id)
    return [bare, *([user.name, user.email] if user else [])]


def every(connection: Connection) -> list[UserRow]:
    """All people, by id."""
    return [UserRow(**row) for row in fetch_all(connection, f"SELECT {_COLUMNS} FROM users ORDER BY id", {})]


def add(connection: Connection, user: UserRow) -> bool:
    """Add a person; False where the id is taken."""
    values = {name: getattr(user, name) for name in UserRow.__slots__}
    names = ", ".join(f"%({name})s" for name in values)
    statement = f"INSERT INTO users ({_COLUMNS}) VALUES ({names}) ON CONFLICT (id) DO NOTHING"
    return bool(connection.execute(statement, values).rowcount)


def change(connection: Connection, user_id: str, **values: Any) -> bool:
    """Set columns of a person; False where nobody has the id."""
    unknown = values.keys() - set(UserRow.__slots__)
    if unknown:
        raise ValueError(f"users has no column {sorted(unknown)}")
    names = ", ".join(f"{name} = %({name})s" for name in values)
    return bool(connection.execute(f"UPDATE users SET {names} WHERE id = %(id)s", {**values, "id": user_id}).rowcount)


def take_totp_step(connection: Connection, user_id: str, step: int) -> bool:
    """Use up the one-time code of this time step; False where it, or a later one, was used before."""
    statement = "UPDATE users SET totp_step = %s WHERE id = %s AND totp_step < %s"
    return bool(connection.execute(statement, (step, user_id, step)).rowcount)


def take_recovery_code(connection: Connection, user_id: str, code_hash: bytes) -> bool:
    """Use up a recovery code; False where it is none of this person."""
    statement = "UPDATE users SET recovery_hashes = array_remove(recovery_hashes, %s) WHERE id = %s AND %s = ANY (recovery_hashes)"
    return bool(connection.execute(statement, (code_hash, user_id, code_hash)).rowcount)


def count_enabled(connection: Connection, role: str | None = None, without: Sequence[str] = ()) -> int:
    """How many people may sign in, those with a role where one is given."""
    row = connection.execute(
        "SELECT count(*) FROM users WHERE disabled_at IS NULL AND (%s::text IS NULL OR %s = ANY (roles)) AND id <> ALL (%s)",
        (role, role, list(without)),
    ).fetchone()
    return int(row[0]) if row else 0

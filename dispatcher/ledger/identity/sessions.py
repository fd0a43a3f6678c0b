"""Sessions of people, of the console and of the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from dispatcher.ledger.connection import Connection, fetch_all

SEEN_AFTER = timedelta(minutes=1)  # a session in use is noted once a minute, not with every page


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session. Only the hash of its id is stored."""

    id_hash: bytes = field(repr=False)
    user_id: str
    place: str
    address: str
    started_at: datetime
    seen_at: datetime
    confirmed_at: datetime
    ends_at: datetime


_COLUMNS = ", ".join(SessionRow.__slots__)


def start(connection: Connection, session: SessionRow) -> None:
    """Store a session, and delete those that have ended."""
    with connection.transaction():
        connection.execute("DELETE FROM sessions WHERE ends_at <= %s", (session.started_at,))
        values = {name: getattr(session, name) for name in SessionRow.__slots__}
        names = ", ".join(f"%({name})s" for name in values)
        connection.execute(f"INSERT INTO sessions ({_COLUMNS}) VALUES ({names})", values)


def find(connection: Connection, id_hash: bytes, now: datetime, idle: timedelta, is_use: bool = True) -> SessionRow | None:
    """The session with this id; None where it has ended, was idle for too long, or its person is disabled. Notes a use of it."""
    rows = fetch_all(
        connection,
        f"""
        SELECT {_COLUMNS} FROM sessions s
        WHERE id_hash = %(id)s AND ends_at > %(now)s AND seen_at > %(idle_since)s
          AND EXISTS (SELECT FROM users u WHERE u.id = s.user_id AND u.disabled_at IS NULL)
        """,
        {"id": id_hash, "now": now, "idle_since": now - idle},
    )
    if not rows:
        return None
    if is_use and now - rows[0]["seen_at"] >= SEEN_AFTER:
        connection.execute("UPDATE sessions SET seen_at = %s WHERE id_hash = %s", (now, id_hash))
    return SessionRow(**{**rows[0], "id_hash": bytes(rows[0]["id_hash"])})


def confirm(connection: Connection, id_hash: bytes, now: datetime) -> None:
    """Note that the person gave password and code again."""
    connection.execute("UPDATE sessions SET confirmed_at = %s WHERE id_hash = %s", (now, id_hash))


def of_user(connection: Connection, user_id: str | None, now: datetime) -> list[SessionRow]:
    """The sessions of a person, or all, newest first."""
    rows = fetch_all(
        connection,
        f"SELECT {_COLUMNS} FROM sessions WHERE (%(user)s::text IS NULL OR user_id = %(user)s) AND ends_at > %(now)s"
        " ORDER BY started_at DESC, id_hash",
        {"user": user_id, "now": now},
    )
    return [SessionRow(**{**row, "id_hash": bytes(row["id_hash"])}) for row in rows]


def end(connection: Connection, id_hash: bytes) -> bool:
    """End a session; False where there is none."""
    return bool(connection.execute("DELETE FROM sessions WHERE id_hash = %s", (id_hash,)).rowcount)


def end_all(connection: Connection, user_id: str, but: bytes = b"") -> int:
    """End a person's sessions, all but one where that is given; returns their number."""
    return connection.execute("DELETE FROM sessions WHERE user_id = %s AND id_hash <> %s", (user_id, but)).rowcount

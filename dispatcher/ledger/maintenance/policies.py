"""The texts of all policies that were ever in use."""

from __future__ import annotations

from dispatcher.ledger.connection import Connection


def store_policy(connection: Connection, digest: str, body: str) -> None:
    """Store the text of a policy in use, so that decisions under it can be explained later."""
    connection.execute("INSERT INTO policies (digest, body) VALUES (%s, %s) ON CONFLICT DO NOTHING", (digest, body))


def find_policy(connection: Connection, digest: str) -> str | None:
    """The text of a policy that was in use; None where it was not."""
    row = connection.execute("SELECT body FROM policies WHERE digest = %s", (digest,)).fetchone()
    return str(row[0]) if row else None

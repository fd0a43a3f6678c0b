"""Channels whose keys or settings are wrong: stopped until a check passes. And the policies ever used."""

from __future__ import annotations

from dispatcher.ledger.connection import Connection


def keep_policy(connection: Connection, digest: str, body: str) -> None:
    """Keep the text of a policy in use, so that decisions made under it stay explainable."""
    connection.execute("INSERT INTO policies (digest, body) VALUES (%s, %s) ON CONFLICT DO NOTHING", (digest, body))


def kept_policy(connection: Connection, digest: str) -> str | None:
    """The text of a policy used before."""
    row = connection.execute("SELECT body FROM policies WHERE digest = %s", (digest,)).fetchone()
    return str(row[0]) if row else None

"""The texts of all policies that were ever in use, and which one is in force."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from dispatcher.domain.errors import PolicyNotInForce
from dispatcher.ledger.connection import Connection

FIRST_START = "first start"  # who put the first policy in force


@dataclass(frozen=True, slots=True)
class PolicyInForce:
    """The policy in force, who put it in force, and when."""

    digest: str
    actor: str
    at: datetime


def store_policy(connection: Connection, digest: str, body: str) -> None:
    """Store the text of a policy in use, so that decisions under it can be explained later."""
    connection.execute("INSERT INTO policies (digest, body) VALUES (%s, %s) ON CONFLICT DO NOTHING", (digest, body))


def find_policy(connection: Connection, digest: str) -> str | None:
    """The text of a policy that was in use; None where it was not."""
    row = connection.execute("SELECT body FROM policies WHERE digest = %s", (digest,)).fetchone()
    return str(row[0]) if row else None


def in_force(connection: Connection) -> PolicyInForce | None:
    """The policy in force; None before the first start."""
    row = connection.execute("SELECT digest, actor, at FROM policies_in_force ORDER BY no DESC LIMIT 1").fetchone()
    return PolicyInForce(*row) if row else None


def adopt(connection: Connection, digest: str, actor: str, now: datetime, *, only_first: bool = False) -> PolicyInForce | None:
    """Put a stored policy in force, or only where none is yet; returns the one that was in force before."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('policy in force'))")
        before = in_force(connection)
        if before is None or (before.digest != digest and not only_first):
            connection.execute("INSERT INTO policies_in_force (digest, actor, at) VALUES (%s, %s, %s)", (digest, actor, now))
    return before


def is_in_force(connection: Connection, digest: str) -> bool:
    """Whether this policy is in force, or none is yet."""
    current = in_force(connection)
    return current is None or current.digest == digest


def require_in_force(connection: Connection, digest: str) -> None:
    """Raise `PolicyNotInForce` where another policy than this one is in force."""
    current = in_force(connection)
    if current is not None and current.digest != digest:
        raise PolicyNotInForce(
            f"this process has the policy {digest[:12]}, but {current.digest[:12]} is in force"
            f" (since {current.at:%Y-%m-%d %H:%M} UTC, by {current.actor}): `dispatcher policy adopt` puts its own in force"
        )

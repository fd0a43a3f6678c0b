"""What a backup says about the ledger in it, and how far a backup is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from dispatcher.ledger.connection import Connection
from dispatcher.ledger.maintenance.policies import in_force
from dispatcher.ledger.secret_keys import known_keys


@dataclass(frozen=True, slots=True)
class LedgerFacts:
    """`major` is PostgreSQL's version. `keys` are the fingerprints of the secret keys that the ledger needs, in hexadecimal."""

    major: int
    revision: str
    keys: tuple[str, ...]
    policy: str
    events: int
    at: datetime


def facts(connection: Connection) -> LedgerFacts:
    """The facts about this ledger now."""
    row = connection.execute(
        """
        SELECT current_setting('server_version_num')::int / 10000, (SELECT version_num FROM alembic_version),
               (SELECT last FROM event_stream), clock_timestamp()
        """
    ).fetchone()
    assert row is not None  # noqa: S101  a query without a table has one row
    major, revision, events, at = row
    policy = in_force(connection)
    keys = tuple(key.fingerprint.hex() for key in known_keys(connection))
    return LedgerFacts(major, revision, keys, policy.digest if policy else "", events, at)


def progress(connection: Connection) -> tuple[int, int]:
    """The bytes that base backups have sent so far, and how many there are in all; zeros where none is running.

    Only the login's own role may see them.
    """
    connection.execute("SET ROLE NONE")
    row = connection.execute(
        "SELECT coalesce(sum(backup_streamed), 0)::bigint, coalesce(sum(backup_total), 0)::bigint FROM pg_stat_progress_basebackup"
    ).fetchone()
    return row if row else (0, 0)

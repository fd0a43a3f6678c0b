"""Database roles with fewer rights than `dispatcher_worker`: one for Celery workers, one that only reads.

`dispatcher_worker` may do all that the program does: the web application and the command line need it. A migration creates it. The
roles here are optional. Their rights are derived from those of `dispatcher_worker`, so a table that a later revision adds needs
nothing here, unless it is one for people's acts. The owner of the ledger grants them and needs no superuser rights.
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg import sql

from dispatcher.domain.errors import LedgerUnavailable

FULL = "dispatcher_worker"
TASKS = "dispatcher_tasks"
READER = "dispatcher_reader"
ROLES = {TASKS: "Celery workers and beat", READER: "people who look: reads all but personal data"}

# What a worker may read, and only people change: through the web application and the command line.
_PEOPLES_ACTS = """
REVOKE UPDATE ON suppressions FROM {tasks};
REVOKE INSERT, UPDATE, DELETE ON event_endpoints FROM {tasks};
REVOKE INSERT, UPDATE ON schedules FROM {tasks};
REVOKE INSERT ON schedule_changes, endpoint_changes FROM {tasks};
REVOKE ALL ON users, sessions, sign_in_failures, suppression_lookups, erasure_requests FROM {tasks};
REVOKE INSERT, UPDATE ON recipients, template_approvals, template_first_approvals, policies_in_force, secret_keys FROM {tasks};
REVOKE INSERT ON campaign_edits, campaign_dry_runs FROM {tasks};
GRANT SELECT (no, decided_at), DELETE ON erasure_requests TO {tasks};
GRANT UPDATE (version, updated_at, choices, consent_seq, consent_head, consent_seal, rests, devices) ON recipients TO {tasks};
REVOKE UPDATE ON ledger_generations FROM {tasks};
GRANT UPDATE (place) ON ledger_generations TO {tasks};
GRANT UPDATE (next_at) ON schedules TO {tasks};
GRANT UPDATE (state, disabled_reason, lease, leased_until, delivered_at) ON event_endpoints TO {tasks};
"""
_PERSONAL = {
    "recipients": (
        "timezone", "birth_date", "email", "phone", "whatsapp", "email_key", "phone_key", "whatsapp_key", "devices", "partner_id",
        "profile",
    ),
    "jobs": ("data",),
    "inbound_texts": ("words", "address_key"),
    "provider_events": ("extra", "address_key"),
    "messages": ("address_key",),
    "suppressions": ("address_key",),
    "misses": ("address_key",),
    "cap_reservations": ("address_key",),
    "erasure_requests": ("reason",),
    "event_endpoints": ("url",),  # its query can hold a token
}  # fmt: skip
_HIDDEN = ("users", "sessions", "sign_in_failures", "secret_keys", "address_aliases", "conversations")

_GRANTS = """
SELECT relname, privilege_type FROM pg_class, aclexplode(relacl)
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'S') AND NOT relispartition AND grantee = %s::regrole
ORDER BY 1, 2
"""
_COLUMN_GRANTS = """
SELECT relname, attname, privilege_type FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid, aclexplode(attacl)
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition AND grantee = %s::regrole
ORDER BY 1, 2, 3
"""
_FUNCTIONS = """
SELECT oid::regprocedure::text FROM pg_proc, aclexplode(proacl)
WHERE pronamespace = 'public'::regnamespace AND grantee = %s::regrole ORDER BY 1
"""


def create(database_url: str) -> None:
    """Create the roles where they are missing, and grant their rights. Idempotent. Raises `LedgerUnavailable`."""
    try:
        with psycopg.connect(database_url) as connection:
            present = _present(connection)
            for role in ROLES:
                if role not in present:
                    connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(role)))
            _grant(connection, tuple(ROLES))
    except psycopg.errors.InsufficientPrivilege as error:
        statements = "; ".join(f"CREATE ROLE {role}" for role in ROLES)
        raise LedgerUnavailable(
            f"{str(error).splitlines()[0]}: run this as the owner of the ledger; if that may not create roles, an administrator has"
            f" to run first: {statements}"
        ) from None
    except psycopg.Error as error:
        raise LedgerUnavailable(f"the database can't be reached: {str(error).splitlines()[0]}") from None


def grant_present(connection: psycopg.Connection) -> None:
    """Grant the rights again after a migration, to those of the roles that exist."""
    if present := _present(connection):
        _grant(connection, tuple(present))


def _present(connection: psycopg.Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY (%s)", (list(ROLES),))]


def _grant(connection: psycopg.Connection, roles: Sequence[str]) -> None:
    with connection.transaction():
        grants = [(str(name), str(right)) for name, right in connection.execute(_GRANTS, (FULL,))]
        functions = [str(row[0]) for row in connection.execute(_FUNCTIONS, (FULL,))]
        for role in roles:
            name = sql.Identifier(role)
            connection.execute(sql.SQL("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {}").format(name))
            connection.execute(sql.SQL("GRANT USAGE ON SCHEMA public TO {}").format(name))
            if role == TASKS:
                _grant_tasks(connection, grants, functions)
            else:
                _grant_reader(connection, grants)


def _grant_tasks(connection: psycopg.Connection, grants: Sequence[tuple[str, str]], functions: Sequence[str]) -> None:
    name = sql.Identifier(TASKS)
    for table, right in grants:
        kind = sql.SQL("GRANT {} ON {} TO {}")
        connection.execute(kind.format(sql.SQL(right), sql.Identifier(table), name))
    for table, column, right in connection.execute(_COLUMN_GRANTS, (FULL,)).fetchall():
        kind = sql.SQL("GRANT {} ({}) ON {} TO {}")
        connection.execute(kind.format(sql.SQL(right), sql.Identifier(column), sql.Identifier(table), name))
    for function in functions:
        connection.execute(f'GRANT EXECUTE ON FUNCTION {function} TO "{TASKS}"'.encode())
    connection.execute(_PEOPLES_ACTS.format(tasks=TASKS).encode())


def _grant_reader(connection: psycopg.Connection, grants: Sequence[tuple[str, str]]) -> None:
    name = sql.Identifier(READER)
    for table in sorted({table for table, right in grants if right == "SELECT"}.difference(_HIDDEN)):
        personal = _PERSONAL.get(table, ())
        rows = connection.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped", (table,)
        )
        columns = sql.SQL(", ").join(sql.Identifier(row[0]) for row in rows if row[0] not in personal)
        connection.execute(sql.SQL("GRANT SELECT ({}) ON {} TO {}").format(columns, sql.Identifier(table), name))

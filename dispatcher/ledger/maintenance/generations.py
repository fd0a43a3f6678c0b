"""Generations of the ledger. A restore to an earlier moment begins a new one, and nothing is claimed until a person releases it.

Marks outside the ledger tell which claims it made. A claim that a mark names and the ledger lacks was lost by a restore, or by a
failover to a server that did not have it yet. Without a mark, the place of the rows is compared: a dump that was restored is in
another database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg.errors import InsufficientPrivilege
from psycopg.types.json import Jsonb

from dispatcher.domain.message_id import MessageId
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.message_key import is_message, key_values

KEPT = timedelta(days=30)  # messages are kept longer than that by every policy
CLAIMS_LEFT_OUT = 1_000  # numbers that are not used after a restore: those of the lost time
CHUNKS_LEFT_OUT = 1_000_000  # providers report messages of the lost time by their ids, which must not be those of other messages
IS_RELEASED = "NOT EXISTS (SELECT FROM ledger_generations WHERE released_at IS NULL)"  # in every claim: the table has few rows


@dataclass(frozen=True, slots=True)
class ClaimMark:
    """The last claim that somebody outside the ledger has seen: one of its messages, and the database's time before it (Unix, in
    microseconds). `ledger` tells one ledger from another; `generation` is the one in which the claim was made."""

    ledger: str
    generation: str
    number: int
    message: str
    at: int

    def as_json(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class LedgerIdentity:
    """Which ledger this is: `ledger` is the same after a restore, `generations` are all that it knows, oldest first."""

    ledger: str
    generations: tuple[str, ...]
    place: str
    known_place: str  # empty: never looked at
    is_held: bool
    generation_no: int

    @property
    def generation(self) -> str:
        """The present one."""
        return self.generations[-1]


@dataclass(frozen=True, slots=True)
class Generation:
    """A generation of the ledger. `released_at` None: it is held. `decisions`: what was released as what."""

    no: int
    began_at: datetime
    cause: str
    restored_to: datetime | None
    released_at: datetime | None
    released_by: str | None
    decisions: Mapping[str, str]


# The first secret key of a ledger identifies it: its row is as old as the ledger, and is in every backup.
_IDENTITY = """
SELECT (SELECT encode(fingerprint, 'hex') || extract(epoch FROM introduced_at)::text FROM secret_keys ORDER BY no LIMIT 1),
       array_agg(id::text ORDER BY no), (array_agg(place ORDER BY no DESC))[1], bool_or(released_at IS NULL), max(no),
       {place}
FROM ledger_generations
"""
_PLACE = """
concat_ws('/', (SELECT system_identifier FROM pg_control_system()),
          (SELECT oid FROM pg_database WHERE datname = current_database()),
          'messages'::regclass::oid::bigint, left(pg_walfile_name(pg_current_wal_lsn()), 8))
"""


def identity(connection: Connection) -> LedgerIdentity:
    """Which ledger this is, and where; the place is empty where the server does not tell it to this login."""
    try:
        row = connection.execute(_IDENTITY.format(place=_PLACE)).fetchone()
    except InsufficientPrivilege:
        row = connection.execute(_IDENTITY.format(place="''")).fetchone()
    assert row is not None  # noqa: S101  an aggregate has one row
    ledger, generations, known_place, is_held, no, place = row
    return LedgerIdentity(ledger or "", tuple(generations), place, known_place, is_held, no)


def has_claim(connection: Connection, mark: ClaimMark) -> bool:
    """Whether the ledger has this claim, or a later one of the same message.

    True for one that may have been deleted, by retention or with a canary recipient.
    """
    row = connection.execute(
        f"""
        SELECT to_timestamp(%(at)s / 1000000.0) < clock_timestamp() - %(kept)s::interval
            OR to_timestamp(%(at)s / 1000000.0) <= (SELECT max(forgotten_until) FROM ledger_generations) OR EXISTS (
            SELECT FROM messages m WHERE {is_message("m")} AND m.claimed_at >= to_timestamp(%(at)s / 1000000.0))
        """,
        {"at": mark.at, "kept": KEPT, **key_values(MessageId.parse(mark.message))},
    ).fetchone()
    return bool(row and row[0])


def has_claimed(connection: Connection) -> bool:
    """Whether the ledger ever made a claim."""
    row = connection.execute("SELECT is_called FROM claim_number").fetchone()
    return bool(row and row[0])


def set_place(connection: Connection, generation: str, place: str) -> None:
    """Remember where the rows are."""
    connection.execute("UPDATE ledger_generations SET place = %s WHERE id = %s", (place, UUID(generation)))


def begin(connection: Connection, cause: str, place: str, seen: ClaimMark | None, now: datetime) -> bool:
    """Begin a new generation, which is held, in the caller's transaction; False where the present one is held already.

    `seen` is the last claim that is known outside. No claim and no message gets one of those numbers again.
    """
    connection.execute("SELECT pg_advisory_xact_lock(hashtext('ledger generation'))")
    if is_held(connection):
        return False
    number, seen_chunk = (seen.number, MessageId.parse(seen.message).chunk) if seen else (0, 0)
    connection.execute(
        """
        INSERT INTO ledger_generations (began_at, cause, place, restored_to) SELECT %(now)s, %(cause)s, %(place)s, (
            SELECT max(at) FROM (
                (SELECT at FROM published_events ORDER BY last DESC LIMIT 1) UNION ALL SELECT max(at) FROM outbox) newest)
        """,
        {"now": now, "cause": cause, "place": place},
    )
    for sequence, last, left_out in (("claim_number", number, CLAIMS_LEFT_OUT), ("chunk_no", seen_chunk, CHUNKS_LEFT_OUT)):
        connection.execute(f"SELECT setval('{sequence}', greatest(last_value, %s) + %s) FROM {sequence}", (last, left_out))
    return True


def is_held(connection: Connection) -> bool:
    """Whether nothing may be claimed."""
    row = connection.execute(f"SELECT {IS_RELEASED}").fetchone()
    return not (row and row[0])


def last_restore(connection: Connection) -> Generation | None:
    """The newest generation that a restore began; None where there was no restore."""
    row = connection.execute(
        """
        SELECT no, began_at, cause, restored_to, released_at, released_by, decisions FROM ledger_generations
        WHERE cause <> 'start' ORDER BY no DESC LIMIT 1
        """
    ).fetchone()
    return Generation(*row) if row else None


def release(connection: Connection, no: int, decisions: Mapping[str, str], by: str, now: datetime) -> bool:
    """Let claims begin again; False where that has happened already."""
    return bool(
        connection.execute(
            "UPDATE ledger_generations SET released_at = %s, released_by = %s, decisions = %s"
            " WHERE no = %s AND released_at IS NULL",
            (now, by, Jsonb(dict(decisions)), no),
        ).rowcount
    )

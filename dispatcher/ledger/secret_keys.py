"""The fingerprints of the secret keys that the ledger was written with. A process without them would find nobody who says STOP.

A lock keeps the order of the keys still: who works by it takes the lock in share mode, who introduces a key takes it exclusively.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from dispatcher.domain.derived_keys import KeyRing, fingerprint
from dispatcher.domain.errors import KeyMismatch
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.consent.hash_chain import seal

PROCESS = "dispatcher"  # the first word of the name that each of our connections has on the server
SHOWN_BYTES = 4  # of a fingerprint, in messages and in the names of connections
NEEDED = "; without it, an opt-out under that key finds nobody"

_LOCK_SHARED = "SELECT pg_advisory_xact_lock_shared(hashtext('secret keys'))"
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('secret keys'))"


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key that the ledger was written with, and how far its addresses were re-keyed to it."""

    no: int
    fingerprint: bytes
    introduced_at: datetime
    rekeyed: int
    rekeyed_at: datetime | None

    @property
    def name(self) -> str:
        """How messages name it."""
        return short(self.fingerprint)


def short(fingerprint_: bytes) -> str:
    """The beginning of a fingerprint, in hexadecimal."""
    return fingerprint_[:SHOWN_BYTES].hex()


def connection_name(secret: KeyRing, program: str = "") -> str:
    """The name of a process's connections on the server. It tells which keys the process has, and which program it is; PostgreSQL
    keeps 63 characters."""
    words = [PROCESS, *(short(fingerprint(key)) for key in secret), program]
    return " ".join(filter(None, words))


def known_keys(connection: Connection) -> list[KnownKey]:
    """All keys that the ledger was written with, newest first."""
    rows = connection.execute(
        "SELECT no, fingerprint, introduced_at, rekeyed, rekeyed_at FROM secret_keys ORDER BY no DESC"
    ).fetchall()
    return [KnownKey(no, bytes(print_), *rest) for no, print_, *rest in rows]


def check_keys(connection: Connection, secret: KeyRing) -> None:
    """Check that a process with these keys may work on this ledger; the first one leaves its fingerprint.

    Raises `KeyMismatch` where a key is missing that the ledger was written with, or where the newest one was not introduced.
    """
    with connection.transaction():
        connection.execute(_LOCK_SHARED)
        known = known_keys(connection)
    if not known:
        with connection.transaction():
            connection.execute(_LOCK)
            known = known_keys(connection) or _first_start(connection, secret)
    _require_all(secret, known)
    newest = fingerprint(secret.newest)
    if _is_new(newest, known):
        raise KeyMismatch(
            f"the newest key of DISPATCHER_SECRET_KEY, {short(newest)}, was not introduced to this ledger:"
            " `dispatcher keys rotate` does that"
        )


def _is_new(newest: bytes, known: Sequence[KnownKey]) -> bool:
    return newest not in {key.fingerprint for key in known}


def _require_nothing_new(secret: KeyRing, known: Sequence[KnownKey]) -> None:
    """While no rotation is under way, an unknown key behind the newest one is one that was meant to be the newest."""
    unknown = [print_ for print_ in map(fingerprint, secret) if _is_new(print_, known)]
    if unknown and known[0].rekeyed_at is not None:
        raise KeyMismatch(
            f"nothing was rotated: the newest key of DISPATCHER_SECRET_KEY, {short(fingerprint(secret.newest))}, is in use already;"
            f" to rotate to {' or '.join(map(short, unknown))}, write it first"
        )


def _require_all(secret: KeyRing, known: Sequence[KnownKey]) -> None:
    ours = {fingerprint(key) for key in secret}
    missing = [key for key in known if key.fingerprint not in ours]
    if missing:
        names = " and ".join(key.name for key in missing)
        raise KeyMismatch(
            f"DISPATCHER_SECRET_KEY lacks the key {names} that this ledger was written with"
            f" (it has {' and '.join(map(short, sorted(ours)))}): add it after the newest key{NEEDED}"
        )


def _first_start(connection: Connection, secret: KeyRing) -> list[KnownKey]:
    """Store the fingerprint of the newest key or, where people are in the ledger already, of the key that sealed their chains."""
    row = connection.execute("SELECT id, consent_seq, consent_head, consent_seal FROM recipients LIMIT 1").fetchone()
    writer = secret.newest
    if row is not None:
        recipient_id, seq, head, sealed = row
        fitting = [key for key in secret if seal(key, recipient_id, seq, head) == bytes(sealed)]
        if not fitting:
            raise KeyMismatch(f"this ledger was written with another key than DISPATCHER_SECRET_KEY{NEEDED}")
        writer = fitting[0]
    _insert(connection, writer, is_rekeyed=True)
    return known_keys(connection)


def _insert(connection: Connection, key: bytes, *, is_rekeyed: bool) -> None:
    now = datetime.now(UTC)
    connection.execute(
        "INSERT INTO secret_keys (fingerprint, introduced_at, rekeyed_at) VALUES (%s, %s, %s)",
        (fingerprint(key), now, now if is_rekeyed else None),
    )


# A process that does not have the new key must not go on: it would write addresses under a key that no look-up uses any more.
_CUT_OFF = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND split_part(application_name, ' ', 1) = %(process)s
  AND NOT string_to_array(application_name, ' ') @> ARRAY[%(key)s]
"""


def introduce(connection: Connection, secret: KeyRing) -> int:
    """Make the newest key of the ring the one that writes, and cut off all connections of processes that do not have it: they are
    refused when they connect again. Returns the number of these connections.

    The connection needs the login's own role: that of workers may end no session. Raises `KeyMismatch`.
    """
    with connection.transaction():
        connection.execute(_LOCK)
        known = known_keys(connection) or _first_start(connection, secret)
        _require_all(secret, known)
        newest = fingerprint(secret.newest)
        if not _is_new(newest, known):
            _require_nothing_new(secret, known)
            return 0
        _insert(connection, secret.newest, is_rekeyed=False)
        ended = [row[0] for row in connection.execute(_CUT_OFF, {"process": PROCESS, "key": short(newest)})]
        if not all(ended):
            raise KeyMismatch("a process without the new key could not be cut off: stop all of them, then try again")
    return len(ended)


def in_order(connection: Connection, secret: KeyRing) -> KeyRing:
    """The keys that the ledger was written with, the one that writes first, whatever the order in this process's ring. They stay so
    until the caller's transaction ends.
    """
    connection.execute(_LOCK_SHARED)
    by_fingerprint = {fingerprint(key): key for key in secret}
    known = [by_fingerprint[key.fingerprint] for key in known_keys(connection) if key.fingerprint in by_fingerprint]
    return KeyRing(tuple(known)) if known else KeyRing.of(secret.newest)

"""Sessions of the console in the ledger, and the pause between attempts to sign in."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from datetime import datetime
from ipaddress import IPv6Address, ip_address

import structlog

from dispatcher.domain.derived_keys import derive
from dispatcher.ledger.connection import lend
from dispatcher.ledger.maintenance import alerts, console_sessions
from dispatcher.ledger.maintenance.console_sessions import FREE_FAILURES, WAIT_SECONDS_MAX, SessionRow
from dispatcher.runtime.services import Services

__all__ = ["WAIT_SECONDS_MAX", "attempt", "end", "key_hash_of", "start"]

log = structlog.get_logger()


def start(services: Services, session_id: bytes, key_hash: bytes, actor: str, ends_at: datetime) -> None:
    """Store a session of this key."""
    row = SessionRow(_hash(session_id), key_hash, actor, ends_at)
    with lend(services.pool) as connection:
        console_sessions.start(connection, row, services.clock())


def key_hash_of(services: Services, session_id: bytes) -> bytes | None:
    """The hash of the key that started this session; None where it has ended. The ledger is asked for the hash of the id, so the
    time that this takes says nothing about the ids of other sessions.
    """
    with lend(services.pool) as connection:
        return console_sessions.key_hash_of(connection, _hash(session_id), services.clock())


def end(services: Services, session_id: bytes) -> None:
    """End a session: its cookie, and each copy of it, is not valid any more."""
    with lend(services.pool) as connection:
        console_sessions.end(connection, _hash(session_id))


def attempt(services: Services, address: str, key: bytes, check: Callable[[], bool]) -> bool | None:
    """Whether the check of a key passes; None where it was not made, because too many before it failed.

    Failures are counted by the client's address and by the key that was tried. The ledger has keyed hashes of both.
    """
    subjects = [_subject(services, "address", _network(address)), _subject(services, "key", key)]
    with lend(services.pool) as connection:
        failures = console_sessions.count_attempt(connection, subjects, services.clock())
        if failures == FREE_FAILURES and not check():
            alerts.note(connection, "console", "sign_in_failures", True, services.clock())
        if failures is None:
            return None
        if check():
            console_sessions.take_back_attempt(connection, subjects)
            return True
    log.warning("a sign-in to the console failed", failures=failures)
    return False


def _network(address: str) -> bytes:
    """What counts as one client: of IPv6 the network of 64 bits that one customer of a provider has."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address.encode()
    return parsed.packed[:8] if isinstance(parsed, IPv6Address) else parsed.packed


def _subject(services: Services, kind: str, value: bytes) -> bytes:
    return hmac.digest(derive(services.secret.newest, "sign-in"), kind.encode() + b"\0" + value, "sha256")


def _hash(session_id: bytes) -> bytes:
    return hashlib.sha256(session_id).digest()

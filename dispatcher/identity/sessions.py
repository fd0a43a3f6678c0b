"""Signing in: passwords with one-time codes, the pause after failures, and sessions of the console and the command line."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address

import structlog

from dispatcher.consent.link_tokens import BadToken, unseal
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.derived_keys import derive
from dispatcher.domain.errors import NotAllowed, SignInNeeded
from dispatcher.domain.principal import Principal, Right, require
from dispatcher.identity.passwords import is_password, recovery_hashes, totp_step
from dispatcher.identity.users import LOCAL_ID, TOTP_PURPOSE, principal_of, user_id
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.identity import audit_log, sessions, sign_in_failures, users
from dispatcher.ledger.identity.sessions import SessionRow
from dispatcher.ledger.identity.sign_in_failures import FREE_FAILURES, WAIT_SECONDS_MAX
from dispatcher.ledger.maintenance import alerts
from dispatcher.runtime.services import Services

__all__ = ["WAIT_SECONDS_MAX", "SessionRow"]

SESSION_SECONDS = 12 * 3600
IDLE_SECONDS = 30 * 60
RECENT_SECONDS = 10 * 60
ID_BYTES = 32
CONSOLE, COMMAND_LINE = "console", "command line"
_IDLE = {CONSOLE: timedelta(seconds=IDLE_SECONDS), COMMAND_LINE: timedelta(seconds=SESSION_SECONDS)}

log = structlog.get_logger()


class TooManyFailures(Exception):
    """Nobody signs in from here, or under this name, for a moment."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a person gives to sign in. `code` is a one-time or recovery code, where the person has a second factor."""

    name: str
    password: str = field(repr=False)
    code: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where somebody acts: the console or the command line, and the client's address or the host's name.

    `is_known` is for a browser in which this person has signed in before: the failures of others do not hold it up.
    """

    place: str
    address: str
    is_known: bool = False


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A session: who it is of, and when password and code were last given."""

    principal: Principal
    must_change: bool
    has_password: bool  # or else signs in with the identity provider
    confirmed_at: datetime
    id: bytes = field(repr=False)
    has_second_factor: bool = False
    needs_second_factor: bool = False  # by the policy, and has none: can do nothing else before
    language: str | None = None  # of the console, if the person chose one
    zone: str | None = None


def sign_in(services: Services, given: Credentials, origin: Origin) -> bytes | None:
    """The id of a new session; None for a wrong name, password or code. Raises `TooManyFailures`."""
    if not _passes(services, given, origin):
        return None
    return start(services, user_id(given.name), origin)


def start(services: Services, user: str, origin: Origin, confirmed_at: datetime | None = None) -> bytes:
    """The id of a new session of this person, which the audit log records. `confirmed_at`: when the person proved who it is, if not
    now.
    """
    session_id, now = secrets.token_bytes(ID_BYTES), services.clock()
    ends_at = now + timedelta(seconds=SESSION_SECONDS)
    row = SessionRow(hash_of(session_id), user, origin.place, origin.address, now, now, confirmed_at or now, ends_at)
    with lend(services.pool) as connection, connection.transaction():  # no session without its row, and no row without it
        found = users.find(connection, user)
        if found is not None:
            note = AuditNote(AuditAction.SIGN_IN, "session")
            entry = audit_log.row_of(note, principal_of(found), (origin.place, origin.address), now)
            audit_log.append(connection, services.secret, entry)
        sessions.start(connection, row)
    return session_id


def confirm(services: Services, session: SignedIn, given: Credentials, origin: Origin) -> bool:
    """Whether password and code, given again in a session, are right; then the session counts as confirmed.

    Raises `TooManyFailures`.
    """
    if user_id(given.name) != session.principal.id or not _passes(services, given, origin):
        return False
    with lend(services.pool) as connection:
        sessions.confirm(connection, hash_of(session.id), services.clock())
    return True


def resume(services: Services, session_id: bytes, place: str, is_automatic: bool = False) -> SignedIn | None:
    """The session with this id; None where it has ended. The ledger is asked for the hash of the id, so the time that this takes
    says nothing about the ids of other sessions. Roles are read each time: a change counts at once. An automatic request is no use.
    """
    with lend(services.pool) as connection:
        row = sessions.find(connection, hash_of(session_id), services.clock(), _IDLE[place], is_use=not is_automatic)
        user = users.find(connection, row.user_id) if row is not None and row.place == place else None
    if row is None or user is None:
        return None
    has_password, has_second_factor = user.password_hash is not None, user.totp_secret is not None
    is_needed = user.id != LOCAL_ID and not services.policy.second_factor_roles.isdisjoint(user.roles)
    return SignedIn(
        principal_of(user),
        user.must_change,
        has_password,
        row.confirmed_at,
        session_id,
        has_second_factor,
        needs_second_factor=is_needed and has_password and not has_second_factor,
        language=user.language,
        zone=user.zone,
    )


def is_recent(services: Services, session: SignedIn) -> bool:
    """Whether password and code were given in the last minutes."""
    return services.clock() - session.confirmed_at <= timedelta(seconds=RECENT_SECONDS)


def require_recent(services: Services, session: SignedIn) -> None:
    """For acts that cannot be undone. Raises `SignInNeeded`."""
    if not is_recent(services, session):
        raise SignInNeeded("this needs a sign-in of the last 10 minutes: `dispatcher login`")


def end(services: Services, session_id: bytes) -> None:
    """End a session: its cookie, and each copy of it, is not valid any more."""
    with lend(services.pool) as connection:
        sessions.end(connection, hash_of(session_id))


def listed(services: Services, principal: Principal, of_all: bool) -> list[SessionRow]:
    """One's own sessions, or those of all people, which needs the right `users`."""
    if of_all:
        require(principal, Right.USERS)
    with lend(services.pool) as connection:
        return sessions.of_user(connection, None if of_all else principal.id, services.clock())


def revoke(services: Services, principal: Principal, id_hash: bytes) -> bool:
    """End a session by the hash of its id: one's own, or any with the right `users`. Raises `NotAllowed`."""
    with lend(services.pool) as connection:
        found = [row for row in sessions.of_user(connection, None, services.clock()) if row.id_hash == id_hash]
        if found and found[0].user_id != principal.id and not principal.may(Right.USERS):
            raise NotAllowed("this is a session of somebody else")
        return sessions.end(connection, id_hash)


# -- the check, and the pause after failures ---------------------------------------------------------------------------


def _passes(services: Services, given: Credentials, origin: Origin) -> bool:
    if origin.is_known and _check(services, given):
        return True
    named = user_id(given.name).encode("utf-8", "surrogatepass")
    subjects = [_subject(services, "address", _network(origin.address)), _subject(services, "name", named)]
    passed = _attempt(services, subjects, (lambda: False) if origin.is_known else lambda: _check(services, given))
    if passed is None:
        raise TooManyFailures
    return passed


def _check(services: Services, given: Credentials) -> bool:
    """Whether name, password and code belong together. A code that passes is used up."""
    with lend(services.pool) as connection:
        user = users.find(connection, user_id(given.name)) if "\0" not in given.name else None
    is_right = is_password(user.password_hash if user else None, given.password)  # slow on purpose: no connection is held
    if user is None or user.disabled_at is not None or not is_right:
        return False
    with lend(services.pool) as connection:
        return user.totp_secret is None or _take_code(connection, services, user.id, user.totp_secret, given.code)


def _take_code(connection: Connection, services: Services, user: str, sealed: str, code: str) -> bool:
    try:
        secret = unseal(services.secret, f"{TOTP_PURPOSE}:{user}", sealed).decode()
    except BadToken:
        log.error("the second factor of a person cannot be read: the secret key it was sealed with is missing", user=user)
        return False
    step = totp_step(secret, code.replace(" ", ""), services.clock())
    if step is not None:
        return users.take_totp_step(connection, user, step)
    return any(users.take_recovery_code(connection, user, each) for each in recovery_hashes(services.secret, code))


def attempt_in_session(services: Services, session: SignedIn, check: Callable[[], bool]) -> bool | None:
    """Whether a check of somebody who is signed in passes; None where it was not made, because too many before it failed.

    Failures are counted by the session: those of others, at the address that an office shares or with this name, do not hold it up.
    """
    return _attempt(services, [_subject(services, "session", session.id)], check)


def _attempt(services: Services, subjects: Sequence[bytes], check: Callable[[], bool]) -> bool | None:
    """Whether a check passes; None where it was not made, because too many before it failed. The ledger has keyed hashes of the
    subjects by which failures are counted."""
    with lend(services.pool) as connection:
        failures = sign_in_failures.count_attempt(connection, subjects, services.clock())
    if failures is None:
        return None
    passed = check()
    with lend(services.pool) as connection:
        if passed:
            sign_in_failures.take_back_attempt(connection, subjects)
            return True
        if failures == FREE_FAILURES:
            alerts.note(connection, "console", "sign_in_failures", True, services.clock())
    log.warning("a sign-in failed", failures=failures)
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


def hash_of(session_id: bytes) -> bytes:
    """The hash under which a session is stored."""
    return hashlib.sha256(session_id).digest()

"""People: add them, change their roles, passwords and second factors."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime

from dispatcher.consent.link_tokens import seal
from dispatcher.domain.derived_keys import KeyRing, derive
from dispatcher.domain.errors import NotAllowed, SignInNeeded
from dispatcher.domain.local_times import zone_names
from dispatcher.domain.principal import USER_PREFIX, Principal, Right, Role, account_principal, person, require
from dispatcher.domain.recipient import LANGUAGES
from dispatcher.identity.passwords import (
    hash_password,
    is_password,
    new_password,
    new_totp_secret,
    password_fault,
    readable,
    recovery_codes,
    recovery_hash,
    totp_uri,
)
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.ledger.connection import Connection, connect_once, lend
from dispatcher.ledger.identity import sessions, users
from dispatcher.ledger.identity.users import UserRow
from dispatcher.runtime.services import Services

__all__ = ["UserRow"]

TOTP_PURPOSE = "totp"
LOCAL_ID = f"{USER_PREFIX}local"  # of `dispatcher up` and `demo` on one machine
SIGN_IN = "sign in with `dispatcher login`, or set DISPATCHER_API_KEY to the key of a service account"


@dataclass(frozen=True, slots=True)
class NewUser:
    """A person to add. `entities` None stands for all."""

    id: str
    name: str
    email: str
    roles: frozenset[Role]
    entities: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A new second factor: it is shown once."""

    uri: str = field(repr=False)
    secret: str = field(repr=False)
    recovery_codes: tuple[str, ...] = field(repr=False)


def user_id(name: str) -> str:
    """The id of the person who signs in with this name."""
    text = name.strip().lower()
    return text if text.startswith(USER_PREFIX) else f"{USER_PREFIX}{text}"


def principal_of(user: UserRow) -> Principal:
    """The principal of a person."""
    roles = (Role(role) for role in user.roles if role in set(Role))
    return person(user.id, user.name, roles, None if user.entities is None else frozenset(user.entities))


def shell_principal(services: Services, os_account: str) -> Principal:
    """Who acts at the command line without signing in: while nobody else can sign in, the person `local` of `dispatcher up`, or the
    account of the operating system. As soon as a person was added, everybody signs in; else one could be two for four eyes.

    Raises `SignInNeeded`.
    """
    with lend(services.pool) as connection:
        local = users.find(connection, LOCAL_ID)
        if users.count_enabled(connection, without=[LOCAL_ID]):
            raise SignInNeeded(f"nobody is signed in: {SIGN_IN}")
    return principal_of(local) if local is not None and local.disabled_at is None else account_principal(os_account)


def require_manager(services: Services, principal: Principal | None, os_account: str) -> Principal:
    """Who may manage people: the right `users`; where no administrator can sign in, anybody who reaches the database by the command
    line. Raises `NotAllowed`, `SignInNeeded`."""
    if principal is None:
        with lend(services.pool) as connection:
            if users.count_enabled(connection, Role.ADMIN.value, without=[LOCAL_ID]):
                raise SignInNeeded(f"an administrator manages people: {SIGN_IN}")
        return account_principal(os_account)
    require(principal, Right.USERS)
    return principal


def add(services: Services, new: NewUser, by: Principal) -> str:
    """Add a person; returns the password for the first sign-in, which has to be changed then. `local` signs in no more.

    Raises `BadInput`.
    """
    _check(services, new)
    password = new_password()
    row = UserRow(
        id=user_id(new.id),
        name=new.name.strip(),
        email=new.email.strip(),
        password_hash=hash_password(password),
        must_change=True,
        totp_secret=None,
        recovery_hashes=[],
        roles=sorted(new.roles),
        entities=None if new.entities is None else sorted(new.entities),
        created_at=services.clock(),
        created_by=by.id,
        disabled_at=None,
    )
    with lend(services.pool) as connection, connection.transaction():
        if Role.ADMIN not in new.roles and not users.count_enabled(connection, Role.ADMIN.value, without=[LOCAL_ID]):
            raise BadInput(InputError("user", 0, "role", "should include admin: nobody else can add people yet"))
        if not users.add(connection, row):
            raise BadInput(InputError("user", 0, "id", f"{new.id} is taken"))
        users.change(connection, LOCAL_ID, disabled_at=services.clock())  # whoever is `local` has an own account now
        sessions.end_all(connection, LOCAL_ID)
    return password


def _check(services: Services, new: NewUser) -> None:
    errors = []
    if not users.is_id(user_id(new.id)) or user_id(new.id) == LOCAL_ID:
        errors.append(InputError("user", 0, "id", 'should be up to 64 small letters, digits, dots, dashes, _ and @; not "local"'))
    if not new.name.strip():
        errors.append(InputError("user", 0, "name", "should say who it is"))
    if not new.roles:
        errors.append(InputError("user", 0, "role", f"should be one or more of {', '.join(Role)}"))
    errors += _entity_errors(services, new.entities)
    if errors:
        raise BadInput(*errors)


def _entity_errors(services: Services, entities: Collection[str] | None) -> list[InputError]:
    known = services.policy.entities
    unknown = [each for each in entities or () if each not in known]
    return [InputError("user", 0, "entity", f"{each!r} is no entity of the policy: {', '.join(sorted(known))}") for each in unknown]


def every(services: Services) -> list[UserRow]:
    """All people."""
    with lend(services.pool) as connection:
        return users.every(connection)


def find(services: Services, name: str) -> UserRow:
    """The person of this name or id. Raises `BadInput`."""
    with lend(services.pool) as connection:
        return _known(connection, name)


def _known(connection: Connection, name: str) -> UserRow:
    found = users.find(connection, user_id(name))
    if found is None:
        raise BadInput(InputError("user", 0, "id", f"nobody has the id {name!r}"))
    return found


def set_roles(services: Services, name: str, roles: frozenset[Role], entities: frozenset[str] | None, by: Principal) -> UserRow:
    """Give a person these roles and entities; they count from the next page on. Nobody changes their own. Raises `BadInput`."""
    _check_other(name, by)
    if errors := _entity_errors(services, entities):
        raise BadInput(*errors)
    with lend(services.pool) as connection:
        found = _known(connection, name)
        users.change(connection, found.id, roles=sorted(roles), entities=None if entities is None else sorted(entities))
        return _known(connection, name)


def set_disabled(services: Services, name: str, disabled: bool, by: Principal) -> UserRow:
    """Let a person sign in no more, which ends their sessions; or again. Raises `BadInput`."""
    _check_other(name, by)
    with lend(services.pool) as connection, connection.transaction():
        found = _known(connection, name)
        users.change(connection, found.id, disabled_at=services.clock() if disabled else None)
        sessions.end_all(connection, found.id)
        return _known(connection, name)


def _check_other(name: str, by: Principal) -> None:
    if user_id(name) == by.id:
        raise NotAllowed("nobody changes their own roles, or disables themselves: another administrator has to")


def reset_password(services: Services, name: str) -> str:
    """A new password for the next sign-in, which has to be changed then. Ends the person's sessions. Raises `BadInput`."""
    password = new_password()
    hashed = hash_password(password)
    with lend(services.pool) as connection, connection.transaction():
        found = _known(connection, name)
        users.change(connection, found.id, password_hash=hashed, must_change=True)
        sessions.end_all(connection, found.id)
    return password


def set_reading(services: Services, user: str, language: str, zone: str) -> None:
    """Choose the language of the console and the time zone of its times; "" for that of the browser, and of the bank.

    Raises `BadInput`.
    """
    if language and language not in LANGUAGES:
        raise BadInput(InputError("user", 0, "language", f"should be one of {', '.join(LANGUAGES)}"))
    if zone and zone not in zone_names():
        raise BadInput(InputError("user", 0, "zone", "should be a time zone such as Europe/Brussels"))
    with lend(services.pool) as connection:
        users.change(connection, user, language=language or None, zone=zone or None)


def has_password(services: Services, user: str, password: str) -> bool:
    """Whether this is the person's password. Raises `BadInput` for an unknown person."""
    return is_password(find(services, user).password_hash, password)


def change_password(services: Services, user: str, old: str, new: str, session_hash: bytes = b"") -> None:
    """Change one's own password; other sessions end. Raises `BadInput`.

    Hashing is slow on purpose, so it happens while no connection is held.
    """
    found = find(services, user)
    if not is_password(found.password_hash, old):
        raise BadInput(InputError("password", 0, "old", "is not your password"))
    if fault := password_fault(new, (found.name, found.id.removeprefix(USER_PREFIX))):
        raise BadInput(InputError("password", 0, "new", fault))
    if old == new:
        raise BadInput(InputError("password", 0, "new", "should differ from the old one"))
    hashed = hash_password(new)
    with lend(services.pool) as connection, connection.transaction():
        users.change(connection, found.id, password_hash=hashed, must_change=False)
        sessions.end_all(connection, found.id, session_hash)


def enrol_totp(services: Services, name: str) -> Enrolment:
    """Give a person a new second factor; the former one, and its recovery codes, end. Raises `BadInput`."""
    secret, codes = new_totp_secret(), recovery_codes()
    hashes = [recovery_hash(services.secret.newest, code) for code in codes]
    with lend(services.pool) as connection:
        found = _known(connection, name)
        users.change(
            connection,
            found.id,
            totp_secret=seal(services.secret, f"{TOTP_PURPOSE}:{found.id}", secret.encode()),
            recovery_hashes=hashes,
        )
    return Enrolment(totp_uri(secret, found.id.removeprefix(USER_PREFIX)), secret, tuple(codes))


def remove_totp(services: Services, name: str) -> None:
    """Take a person's second factor away. Raises `BadInput`."""
    with lend(services.pool) as connection:
        users.change(connection, _known(connection, name).id, totp_secret=None, recovery_hashes=[])


def ensure_local(database_url: str, secret: KeyRing, now: datetime) -> str | None:
    """The person `local`, for a program that runs on one machine only; returns the password, None where others sign in.

    It is derived from the secret, so it is the same at each start; whoever can read the secret can make it.
    """
    password = readable(derive(secret.newest, "local-password")[:10])
    row = UserRow(
        id=LOCAL_ID,
        name="local",
        email="",
        password_hash=hash_password(password),
        must_change=False,
        totp_secret=None,
        recovery_hashes=[],
        roles=sorted(Role),
        entities=None,
        created_at=now,
        created_by="dispatcher up",
        disabled_at=None,
    )
    with connect_once(database_url) as connection:
        if users.count_enabled(connection, without=[LOCAL_ID]):
            return None
        if not users.add(connection, row):
            users.change(connection, LOCAL_ID, password_hash=row.password_hash)
    return password

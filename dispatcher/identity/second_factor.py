"""Second factors that a role needs (`[sign_in] second_factor` of the policy): people set theirs up at the next sign-in.

The secret of a set-up travels in a sealed form field and is stored once the person has given a code of it: a set-up that is left
half-way locks nobody out. Somebody who signs in with an identity provider has the provider's second factor.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dispatcher.consent.link_tokens import BadToken, seal, unseal
from dispatcher.domain.errors import NotAllowed
from dispatcher.domain.principal import USER_PREFIX
from dispatcher.identity.passwords import new_totp_secret, recovery_codes, recovery_hash, totp_step, totp_uri
from dispatcher.identity.sessions import SignedIn, hash_of
from dispatcher.identity.users import TOTP_PURPOSE
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.ledger.connection import lend
from dispatcher.ledger.identity import sessions, users
from dispatcher.runtime.services import Services


@dataclass(frozen=True, slots=True)
class SetUp:
    """A second factor that is not in force yet. `sealed` goes back with the first code."""

    uri: str = field(repr=False)
    secret: str = field(repr=False)
    sealed: str = field(repr=False)


def begin(services: Services, session: SignedIn) -> SetUp:
    """A new secret for an app with one-time codes.

    Raises `NotAllowed` for somebody who has a second factor: an administrator has to remove that first, or whoever finds an open
    session could replace it.
    """
    if session.has_second_factor or not session.has_password:
        raise NotAllowed("you have a second factor: an administrator has to remove it first")
    secret = new_totp_secret()
    return _set_up(services, session, secret)


def again(services: Services, session: SignedIn, sealed: str) -> SetUp:
    """The same secret once more, after a wrong code. Raises `NotAllowed` for a field of another session."""
    return _set_up(services, session, _secret(services, session, sealed))


def _set_up(services: Services, session: SignedIn, secret: str) -> SetUp:
    uri = totp_uri(secret, session.principal.id.removeprefix(USER_PREFIX))
    return SetUp(uri, secret, seal(services.secret, _purpose(session), secret.encode()))


def complete(services: Services, session: SignedIn, sealed: str, code: str) -> tuple[str, ...]:
    """Put the second factor in force, where the code is one of it; returns the recovery codes. Other sessions end.

    Raises `BadInput` for a wrong code, and `NotAllowed`.
    """
    secret = _secret(services, session, sealed)
    step = totp_step(secret, code.replace(" ", ""), services.clock())
    if step is None:
        raise BadInput(InputError("form", 0, "code", "is not the code that the app shows now"))
    codes, user = recovery_codes(), session.principal.id
    with lend(services.pool) as connection, connection.transaction():
        found = users.find(connection, user, lock=True)
        if found is None or found.totp_secret is not None:
            raise NotAllowed("you have a second factor already")
        users.change(
            connection,
            user,
            totp_secret=seal(services.secret, f"{TOTP_PURPOSE}:{user}", secret.encode()),
            recovery_hashes=[recovery_hash(services.secret.newest, each) for each in codes],
        )
        users.take_totp_step(connection, user, step)
        sessions.end_all(connection, user, hash_of(session.id))
    return tuple(codes)


def _secret(services: Services, session: SignedIn, sealed: str) -> str:
    try:
        return unseal(services.secret, _purpose(session), sealed).decode()
    except BadToken:
        raise NotAllowed("this form is not from a page of this session") from None


def _purpose(session: SignedIn) -> str:
    return f"{TOTP_PURPOSE} set-up:{session.principal.id}:{hash_of(session.id).hex()}"

"""Who acts at the command line: the service account of `DISPATCHER_API_KEY`, or the person who signed in by `dispatcher login`."""

from __future__ import annotations

import getpass
import os
import socket
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

from dispatcher.cli import open_acts
from dispatcher.cli.output import account, show_left_out
from dispatcher.domain.audit import LOOKS, AuditNote, AuditOutcome
from dispatcher.domain.derived_keys import KeyRing, fingerprint
from dispatcher.domain.errors import SignInNeeded
from dispatcher.domain.principal import Entities, Principal, Right, account_principal, require, require_unlimited
from dispatcher.identity import audit, sessions
from dispatcher.identity.sessions import COMMAND_LINE, Credentials, Origin, SignedIn, TooManyFailures
from dispatcher.identity.users import shell_principal
from dispatcher.runtime import bootstrap
from dispatcher.runtime.services import Services
from dispatcher.web.api_keys import read_keys


def open_for(*rights: Right, act: AuditNote | None = None) -> tuple[Services, str]:
    """The services, and the id of who acts, who needs one of these rights; the audit log gets `act`.

    Raises `SignInNeeded`, `NotAllowed`.
    """
    services = bootstrap.services(on_faults=show_left_out)
    principal = current(services)
    if not any(principal.may(right) for right in rights):
        require(principal, rights[0])
    if act is not None:
        begun(services, principal, act)
    return services, principal.id


def begun(services: Services, principal: Principal, act: AuditNote) -> None:
    """Record an act before it happens; its outcome follows from how the command ends."""
    number = audit.note(services, principal, origin(), act)
    if act.action not in LOOKS and act.outcome is AuditOutcome.BEGUN:
        open_acts.add(partial(_conclude, services, principal, (number, act)))


def _conclude(services: Services, principal: Principal, act: tuple[int, AuditNote], is_done: bool) -> None:
    audit.conclude(services, principal, origin(), act, AuditOutcome.DONE if is_done else AuditOutcome.REFUSED)


def origin() -> Origin:
    """Where the command line is."""
    return Origin(COMMAND_LINE, socket.gethostname())


def noted(services: Services, act: AuditNote) -> None:
    """Record an act in the audit log, before it happens. A look without signing in is recorded as the account's."""
    begun(services, viewer(services), act)


def viewer(services: Services) -> Principal:
    """Who looks, where nobody has to sign in: else the account of the operating system."""
    try:
        return current(services)
    except SignInNeeded:
        return account_principal(account())


def limit(services: Services) -> Entities:
    """The entities that whoever looks is limited to."""
    return viewer(services).entities


def unlimited_for(right: Right, act: AuditNote) -> tuple[Services, str]:
    """As `open_for`, for what concerns all entities at once. Raises `NotAllowed` for somebody who is limited to some."""
    services, who = open_for(right)
    require_unlimited(current(services))
    noted(services, act)
    return services, who


def services_for_all() -> Services:
    """The services, for a look at what concerns all entities at once. Raises `NotAllowed` for somebody who is limited to some."""
    services = bootstrap.services(on_faults=show_left_out)
    require_unlimited(viewer(services))
    return services


def acting(services: Services, right: Right, entity: str | None = None) -> str:
    """The id of who acts, who needs this right. Raises `SignInNeeded`, `NotAllowed`."""
    principal = current(services)
    require(principal, right, entity)
    return principal.id


def current(services: Services) -> Principal:
    """Who acts. Raises `SignInNeeded`."""
    return signed_in_principal(services) or shell_principal(services, account())


def signed_in_principal(services: Services) -> Principal | None:
    """The service account of the environment, or the person who is signed in; None without either. Raises `SignInNeeded`."""
    key = bootstrap.settings().api_key
    if key:
        found = read_keys(bootstrap.settings().api_keys).find(key)
        if found is None:
            raise SignInNeeded("DISPATCHER_API_KEY: this key is not in the file that DISPATCHER_API_KEYS names")
        return found.principal
    session = resume(services)
    if session is None:
        return None
    if session.must_change:
        raise SignInNeeded("your password was given by somebody else: `dispatcher login` lets you choose your own")
    if session.needs_second_factor:
        raise SignInNeeded("your role needs a second factor: `dispatcher login` lets you set it up")
    return session.principal


def confirm_person(services: Services) -> None:
    """For acts that cannot be undone: ask for the password again where it was not given in the last minutes. A service account has
    none. Raises `SignInNeeded`.
    """
    session = resume(services) if not bootstrap.settings().api_key else None
    if session is None or sessions.is_recent(services, session):
        return
    if not session.has_password or not sys.stdin.isatty():
        sessions.require_recent(services, session)
    given = Credentials(session.principal.id, ask("password: "), ask("one-time code (empty: none): "))
    try:
        if sessions.confirm(services, session, given, origin()):
            return
    except TooManyFailures:
        raise SignInNeeded("too many attempts failed; try again in a minute") from None
    raise SignInNeeded("password or code is wrong")


def ask(prompt: str) -> str:
    """A secret: without an echo at a terminal, else a line of standard input."""
    if sys.stdin.isatty():
        return getpass.getpass(prompt)
    return sys.stdin.readline().rstrip("\n")


def resume(services: Services) -> SignedIn | None:
    """The session of the command line, if it has not ended."""
    session_id = read_session(services.secret)
    return sessions.resume(services, session_id, COMMAND_LINE) if session_id is not None else None


# -- the file of the session -------------------------------------------------------------------------------------------


def session_file(secret: KeyRing) -> Path:
    """Where the session with this ledger is kept: each ledger has its own file."""
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "dispatcher"
    return folder / f"session-{fingerprint(secret.newest)[:8].hex()}"


def read_session(secret: KeyRing) -> bytes | None:
    """The id of the session; None where there is none. A file that others can read is not used."""
    file = session_file(secret)
    try:
        if file.stat().st_mode & 0o077:
            raise SignInNeeded(f"{file} can be read by others: `dispatcher logout`, then `dispatcher login`")
        return bytes.fromhex(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def write_session(secret: KeyRing, session_id: bytes) -> None:
    """Keep the id of a session, for this account of the operating system only."""
    file = session_file(secret)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as out:
        out.write(session_id.hex())
    draft.replace(file)


def delete_session(secret: KeyRing) -> None:
    """Forget the session."""
    with suppress(OSError):
        session_file(secret).unlink()

"""`dispatcher login`, `logout` and `whoami`."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Annotated

import typer

from dispatcher.cli.identity import ask, begun, current, delete_session, origin, read_session, resume, write_session
from dispatcher.cli.output import BAD_INPUT, REFUSED, Json, account, err, fail, out, pairs, print_json, show_left_out
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.errors import SignInNeeded
from dispatcher.domain.principal import USER_PREFIX, Principal
from dispatcher.identity import oidc_device, second_factor, sessions, users
from dispatcher.identity.oidc import SignInFailed
from dispatcher.identity.sessions import COMMAND_LINE, Credentials, SignedIn, TooManyFailures
from dispatcher.runtime import bootstrap
from dispatcher.runtime.services import Services


def add_to(root: typer.Typer) -> None:
    """Add these commands to the root command."""
    for command in (login, logout, whoami):
        root.command()(command)


def login(
    name: Annotated[str | None, typer.Argument(help="Your name. Default: asked for.")] = None,
    provider: Annotated[
        bool, typer.Option("--provider", help="Sign in with the identity provider, in a browser on any device.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Sign in: further commands act as you, until `logout` or for 12 hours. Asks for your password and one-time code.

    Where standard input is no terminal, it reads a line for each: password, code (may be empty), a new password where the old one
    was given by somebody else, and the first code of a new second factor where your role needs one.

    With --provider it shows a URL and a code, and waits until you have entered the code there.
    """
    services = bootstrap.services(on_faults=show_left_out)
    former = None
    with suppress(SignInNeeded):  # of a file that others can read: that is why somebody signs in again
        former = read_session(services.secret)
    session_id = _by_provider(services) if provider else _by_password(services, name)
    session = sessions.resume(services, session_id, COMMAND_LINE)
    assert session is not None  # noqa: S101  it has just begun
    write_session(services.secret, session_id)
    if former is not None:
        sessions.end(services, former)  # nobody would end it any more
    if session.needs_second_factor:
        _set_up_second_factor(services, session)
    _show(session.principal, as_json)


def _by_password(services: Services, name: str | None) -> bytes:
    """The id of a session that begins with name, password and code."""
    who = name or (input("name: ") if sys.stdin.isatty() else account())
    given = Credentials(who, ask("password: "), ask("one-time code (empty: none): "))
    try:
        session_id = sessions.sign_in(services, given, origin())
    except TooManyFailures:
        fail("too many attempts failed; try again in a minute", REFUSED)
    if session_id is None:
        fail("name, password or code is wrong", REFUSED)
    session = sessions.resume(services, session_id, COMMAND_LINE)
    if session is not None and session.must_change:
        users.change_password(services, session.principal.id, given.password, _new_password(), sessions.hash_of(session_id))
    return session_id


def _by_provider(services: Services) -> bytes:
    """The id of a session that begins at the identity provider. URL and code go to stderr: stdout is for the result."""
    if services.oidc is None:
        fail("no identity provider is configured: set DISPATCHER_OIDC_ISSUER, or sign in with a password", BAD_INPUT)
    try:
        grant = oidc_device.begin(services, services.oidc)
        err.print(f"open {grant.url} and enter the code {grant.code}", markup=False, soft_wrap=True)
        if grant.url_with_code:
            err.print(f"or open {grant.url_with_code}", markup=False, soft_wrap=True)
        user, proved_at = oidc_device.wait(services, services.oidc, grant)
    except SignInFailed as error:
        fail(str(error), REFUSED)
    return sessions.start(services, user, origin(), proved_at)


def _set_up_second_factor(services: Services, session: SignedIn) -> None:
    """Show a new secret, ask for its first code, and print the recovery codes once."""
    shown = second_factor.begin(services, session)
    err.print("your role needs a second factor: add this to an app with one-time codes", markup=False)
    err.print(shown.uri, markup=False, soft_wrap=True)
    begun(services, session.principal, AuditNote(AuditAction.SECOND_FACTOR, "user", session.principal.id))
    codes = second_factor.complete(services, session, shown.sealed, ask("the code that it shows: "))
    err.print("recovery codes, which are not shown again; each signs you in once:", markup=False)
    for code in codes:
        err.print(code, markup=False)


def _new_password() -> str:
    if not sys.stdin.isatty():
        return ask("")
    new = ask("new password: ")
    if new != ask("new password again: "):
        fail("the two new passwords differ; nothing was changed", BAD_INPUT)
    return new


def logout(as_json: Json = False) -> None:
    """Sign out: the session ends, also for a copy of its file."""
    services = bootstrap.services(on_faults=show_left_out)
    session_id = read_session(services.secret)
    if session_id is not None and (session := resume(services)) is not None:
        begun(services, session.principal, AuditNote(AuditAction.SIGN_OUT, "session"))
        sessions.end(services, session_id)
    delete_session(services.secret)
    if as_json:
        print_json({"signed_in": False})
    else:
        out.print("signed out")


def whoami(as_json: Json = False) -> None:
    """Show as whom commands act, with roles, entities and rights."""
    _show(current(bootstrap.services(on_faults=show_left_out)), as_json)


def _show(principal: Principal, as_json: bool) -> None:
    document = {
        "id": principal.id,
        "name": principal.name,
        "kind": principal.kind.value,
        "roles": sorted(principal.roles),
        "entities": None if principal.entities is None else sorted(principal.entities),
        "rights": sorted(principal.rights),
    }
    if as_json:
        print_json(document)
    else:
        pairs("", {**document, "id": principal.id.removeprefix(USER_PREFIX), "entities": document["entities"] or "all"})

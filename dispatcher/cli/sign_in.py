"""`dispatcher login`, `logout` and `whoami`."""

from __future__ import annotations

import getpass
import sys
from typing import Annotated

import typer

from dispatcher.cli.identity import current, delete_session, origin, read_session, resume, write_session
from dispatcher.cli.output import BAD_INPUT, REFUSED, Json, account, fail, out, pairs, print_json, show_left_out
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.principal import USER_PREFIX, Principal
from dispatcher.identity import audit, sessions, users
from dispatcher.identity.sessions import COMMAND_LINE, Credentials, TooManyFailures
from dispatcher.runtime import bootstrap


def add_to(root: typer.Typer) -> None:
    """Add these commands to the root command."""
    for command in (login, logout, whoami):
        root.command()(command)


def login(
    name: Annotated[str | None, typer.Argument(help="Your name. Default: asked for.")] = None,
    as_json: Json = False,
) -> None:
    """Sign in: further commands act as you, until `logout` or for 12 hours. Asks for your password and one-time code.

    Where standard input is no terminal, it reads a line for each: password, code (may be empty), and a new password where the old
    one was given by somebody else.
    """
    services = bootstrap.services(on_faults=show_left_out)
    who = name or (input("name: ") if sys.stdin.isatty() else account())
    given = Credentials(who, _ask("password: "), _ask("one-time code (empty: none): "))
    try:
        session_id = sessions.sign_in(services, given, origin())
    except TooManyFailures:
        fail("too many attempts failed; try again in a minute", REFUSED)
    if session_id is None:
        fail("name, password or code is wrong", REFUSED)
    session = sessions.resume(services, session_id, COMMAND_LINE)
    assert session is not None  # noqa: S101  it has just begun
    if session.must_change:
        users.change_password(services, session.principal.id, given.password, _new_password(), sessions.hash_of(session_id))
    write_session(services.secret, session_id)
    _show(session.principal, as_json)


def _ask(prompt: str) -> str:
    """A secret: without an echo at a terminal, else a line of standard input."""
    if sys.stdin.isatty():
        return getpass.getpass(prompt)
    return sys.stdin.readline().rstrip("\n")


def _new_password() -> str:
    if not sys.stdin.isatty():
        return _ask("")
    new = _ask("new password: ")
    if new != _ask("new password again: "):
        fail("the two new passwords differ; nothing was changed", BAD_INPUT)
    return new


def logout(as_json: Json = False) -> None:
    """Sign out: the session ends, also for a copy of its file."""
    services = bootstrap.services(on_faults=show_left_out)
    session_id = read_session(services.secret)
    if session_id is not None and (session := resume(services)) is not None:
        audit.note(services, session.principal, origin(), AuditNote(AuditAction.SIGN_OUT, "session"))
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

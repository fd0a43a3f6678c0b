"""`dispatcher users …`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dispatcher.cli.identity import begun, confirm_person, signed_in_principal
from dispatcher.cli.output import Json, account, err, out, pairs, print_json, rows, show_left_out
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.principal import ROLE_RIGHTS, USER_PREFIX, Principal, Role
from dispatcher.identity import users
from dispatcher.identity.users import NewUser, UserRow
from dispatcher.runtime import bootstrap
from dispatcher.runtime.services import Services

app = typer.Typer(help="People who sign in: add them, give them roles, reset passwords and second factors.", no_args_is_help=True)

User = Annotated[str, typer.Argument(metavar="ID", help="The name that the person signs in with.")]
Roles = Annotated[list[Role], typer.Option("--role", help="May be repeated.")]
Entities = Annotated[
    list[str] | None, typer.Option("--entity", help="Only customers and campaigns of this entity; may be repeated. Default: all.")
]


def _manager(services: Services, action: AuditAction, user: str = "", **detail: Any) -> Principal:
    """Who manages people; the audit log gets what is done."""
    manager = users.require_manager(services, signed_in_principal(services), account())
    if action is not AuditAction.LOOK:
        confirm_person(services)
    begun(services, manager, AuditNote(action, "user", users.user_id(user) if user else "", detail=detail))
    return manager


def _given(role: list[Role], entity: list[str] | None) -> dict[str, Any]:
    return {"roles": sorted(role), "entities": sorted(entity or [])}


@app.command()
def add(
    user: User,
    name: Annotated[str, typer.Option(help="The person's full name.")],
    role: Roles,
    entity: Entities = None,
    email: Annotated[str, typer.Option(help="The person's address at work.")] = "",
    as_json: Json = False,
) -> None:
    """Add a person. Prints a password for the first sign-in, where it has to be changed.

    The first administrator is added by whoever reaches the database; all others by an administrator who is signed in.
    """
    services = bootstrap.services(on_faults=show_left_out)
    new = NewUser(user, name, email, frozenset(role), frozenset(entity) if entity else None)
    password = users.add(services, new, _manager(services, AuditAction.ADD, user, **_given(role, entity)))
    _print_password(user, password, as_json)


def _print_password(user: str, password: str, as_json: bool) -> None:
    if as_json:
        print_json({"id": user, "password": password})
        return
    err.print(f"{user} signs in with this password, and chooses another one then:", markup=False)
    out.print(password, markup=False)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the people with their roles and entities."""
    services = bootstrap.services(on_faults=show_left_out)
    _manager(services, AuditAction.LOOK)
    documents = [_view(each) for each in users.every(services)]
    if as_json:
        print_json(documents)
    elif documents:
        rows("", tuple(documents[0]), [tuple(each.values()) for each in documents])
    else:
        out.print("nobody can sign in yet: `dispatcher users add`")


def _view(user: UserRow) -> dict[str, Any]:
    return {
        "id": user.id.removeprefix(USER_PREFIX),
        "name": user.name,
        "email": user.email,
        "roles": user.roles,
        "entities": user.entities,
        "second_factor": user.totp_secret is not None,
        "password_changed": not user.must_change,
        "disabled_at": user.disabled_at.isoformat() if user.disabled_at else None,
    }


def _print(user: UserRow, as_json: bool) -> None:
    if as_json:
        print_json(_view(user))
    else:
        pairs("", _view(user))


@app.command()
def roles(user: User, role: Roles, entity: Entities = None, as_json: Json = False) -> None:
    """Replace a person's roles and entities. They count at once, also in sessions that are open."""
    services = bootstrap.services(on_faults=show_left_out)
    manager = _manager(services, AuditAction.ROLES, user, **_given(role, entity))
    _print(users.set_roles(services, user, frozenset(role), frozenset(entity) if entity else None, manager), as_json)


@app.command()
def disable(user: User, as_json: Json = False) -> None:
    """Let a person sign in no more, and end their sessions."""
    services = bootstrap.services(on_faults=show_left_out)
    _print(users.set_disabled(services, user, True, _manager(services, AuditAction.DISABLE, user)), as_json)


@app.command()
def enable(user: User, as_json: Json = False) -> None:
    """Let a disabled person sign in again."""
    services = bootstrap.services(on_faults=show_left_out)
    _print(users.set_disabled(services, user, False, _manager(services, AuditAction.ENABLE, user)), as_json)


@app.command()
def password(user: User, as_json: Json = False) -> None:
    """Give a person a new password for the next sign-in, where it has to be changed. Ends their sessions."""
    services = bootstrap.services(on_faults=show_left_out)
    _manager(services, AuditAction.PASSWORD, user)
    _print_password(user, users.reset_password(services, user), as_json)


@app.command()
def totp(
    user: User,
    remove: Annotated[bool, typer.Option("--remove", help="Take the second factor away.")] = False,
    as_json: Json = False,
) -> None:
    """Give a person a second factor: a link for an app with one-time codes, and recovery codes. Both are shown once."""
    services = bootstrap.services(on_faults=show_left_out)
    _manager(services, AuditAction.SECOND_FACTOR, user)
    if remove:
        users.remove_totp(services, user)
        _print(users.find(services, user), as_json)
        return
    made = users.enrol_totp(services, user)
    if as_json:
        print_json({"id": user, "uri": made.uri, "secret": made.secret, "recovery_codes": list(made.recovery_codes)})
        return
    out.print(made.uri, markup=False)
    for code in made.recovery_codes:
        out.print(code, markup=False)


@app.command("rights")
def rights(as_json: Json = False) -> None:
    """Show which role has which rights."""
    table = {role.value: sorted(held) for role, held in ROLE_RIGHTS.items()}
    if as_json:
        print_json(table)
    else:
        rows("", ("role", "rights"), list(table.items()))

"""People who are signed in: their sessions are started without the check of a password, which takes 0.1 s."""

from __future__ import annotations

import re
from collections.abc import Iterable

from starlette.testclient import TestClient

from dispatcher.domain.principal import Role
from dispatcher.identity import sessions
from dispatcher.identity.passwords import hash_password
from dispatcher.identity.sessions import CONSOLE, Origin
from dispatcher.identity.users import UserRow, user_id
from dispatcher.ledger.connection import lend
from dispatcher.ledger.identity import users
from dispatcher.runtime.services import Services
from dispatcher.web.console.session import COOKIE, cookies

ALL_ROLES = tuple(Role)


def add_user(
    services: Services,
    name: str,
    roles: Iterable[Role] = ALL_ROLES,
    entities: list[str] | None = None,
    password: str | None = None,
) -> str:
    """Add a person; returns the id. Without a password, only `sign_in` lets them in."""
    row = UserRow(
        id=user_id(name),
        name=name,
        email=f"{name.lower()}@bank.example",
        password_hash=hash_password(password) if password else None,
        must_change=False,
        totp_secret=None,
        recovery_hashes=[],
        roles=[role.value for role in roles],
        entities=entities,
        created_at=services.clock(),
        created_by="os:test",
        disabled_at=None,
    )
    with lend(services.pool) as connection:
        users.add(connection, row)
    return row.id


def sign_in(
    client: TestClient, services: Services, name: str = "ops", roles: Iterable[Role] = ALL_ROLES, entities: list[str] | None = None
) -> str:
    """Sign a person in, who is added first where nobody has the name; returns the form token of the session."""
    user = add_user(services, name, roles, entities)
    session_id = sessions.start(services, user, Origin(CONSOLE, "testclient"))
    client.cookies.set(COOKIE, cookies(services, session_id, user)[0], path="/console")
    found = re.search(r'name="form_token" value="([0-9a-f]{64})"', client.get("/console").text)
    assert found, "the console let nobody in"
    return found[1]

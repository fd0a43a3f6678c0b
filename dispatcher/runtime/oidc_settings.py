"""Settings of the sign-in with an identity provider."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from dispatcher.domain.principal import Role
from dispatcher.runtime.environment import EnvironmentReader


@dataclass(frozen=True, slots=True)
class GroupGrant:
    """What a group of the provider gives. `entities` None stands for all."""

    group: str
    roles: frozenset[Role]
    entities: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """An OpenID Connect provider and this program's account there."""

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    groups_claim: str
    groups: tuple[GroupGrant, ...]


def read_oidc(read: EnvironmentReader) -> OidcSettings | None:
    """None where no issuer is set."""
    issuer = read.text(
        "DISPATCHER_OIDC_ISSUER",
        about="the identity provider that people sign in with (OpenID Connect): its issuer",
    )
    client_id = read.text("DISPATCHER_OIDC_CLIENT_ID", about="this program's client id at the identity provider")
    client_secret = read.secret("DISPATCHER_OIDC_CLIENT_SECRET", about="the client's secret")
    groups_claim = read.text("DISPATCHER_OIDC_GROUPS_CLAIM", "groups", about="the claim that lists a person's groups")
    text = read.text(
        "DISPATCHER_OIDC_GROUPS",
        about="what groups give; who is in none of them gets no access",
        values="`group=role,role@entity,entity`, separated by semicolons; without `@` for all entities",
    )
    if not issuer:
        return None
    if not re.match(r"https://[^/?#@]+(/[^?#]*)?$|http://(127\.0\.0\.1|localhost)(:[0-9]+)?(/[^?#]*)?$", issuer):
        read.fault(f"DISPATCHER_OIDC_ISSUER is {issuer!r}: it must be an https address.")
    groups = tuple(_grant(read, part.strip()) for part in text.split(";") if part.strip())
    for name, value in {"CLIENT_ID": client_id, "CLIENT_SECRET": client_secret, "GROUPS": text}.items():
        if not value:
            read.fault(f"DISPATCHER_OIDC_{name} is missing: DISPATCHER_OIDC_ISSUER needs it.")
    return OidcSettings(issuer, client_id, client_secret, groups_claim, tuple(each for each in groups if each))


def _grant(read: EnvironmentReader, text: str) -> GroupGrant | None:
    group, equals, given = text.rpartition("=")
    roles, at, entities = given.partition("@")
    names = [each.strip() for each in roles.split(",") if each.strip()]
    if not equals or not group.strip() or not names or not set(names) <= set(Role) or (at and not entities.strip()):
        read.fault(f"DISPATCHER_OIDC_GROUPS has {text!r}: it must be group=role or group=role@entity; roles: {', '.join(Role)}.")
        return None
    limited = frozenset(each.strip() for each in entities.split(",") if each.strip()) if at else None
    return GroupGrant(group.strip(), frozenset(Role(each) for each in names), limited)

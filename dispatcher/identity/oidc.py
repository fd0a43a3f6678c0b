"""Sign-in with an identity provider: OpenID Connect, code flow with PKCE (RFC 7636), state and nonce.

The provider's groups give roles and entities, at each sign-in. Who is in no known group gets no access.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import structlog
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.httpx_client import OAuth2Client
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from dispatcher.consent.link_tokens import BadToken, seal, unseal
from dispatcher.domain.errors import NotAllowed
from dispatcher.domain.principal import USER_PREFIX, Role
from dispatcher.identity.users import LOCAL_ID, UserRow
from dispatcher.ledger.connection import lend
from dispatcher.ledger.identity import users
from dispatcher.runtime.oidc_settings import GroupGrant, OidcSettings
from dispatcher.runtime.services import Services

ALGORITHMS = ("RS256", "PS256", "ES256")
FLOW_SECONDS = 10 * 60  # how long a person may take at the provider
LEEWAY_SECONDS = 60  # for clocks that differ
TIMEOUT_SECONDS = 5.0
_PURPOSE = "oidc"

log = structlog.get_logger()


class SignInFailed(Exception):
    """The provider's answer cannot be used; the message says why, in words for the person."""


@dataclass(frozen=True, slots=True)
class SignInFlow:
    """What has to be the same when the person comes back. It travels in a sealed cookie."""

    state: str
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)
    to: str
    begun_at: datetime
    is_again: bool  # the person has to give the password again


def begin(services: Services, config: OidcSettings, to: str, is_again: bool) -> tuple[str, str]:
    """The URL of the provider's sign-in page, and the sealed flow. Raises `SignInFailed`."""
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    flow = SignInFlow(state, nonce, verifier, to, services.clock(), is_again)
    with open_client(services, config) as client:
        metadata = provider_metadata(client, config)
        again = {"prompt": "login", "max_age": "0"} if is_again else {}
        url, _ = client.create_authorization_url(
            metadata["authorization_endpoint"], state=flow.state, code_verifier=flow.verifier, nonce=flow.nonce, **again
        )
    payload = [flow.state, flow.nonce, flow.verifier, flow.to, flow.begun_at.isoformat(), flow.is_again]
    return str(url), seal(services.secret, _PURPOSE, json.dumps(payload).encode())


def read_flow(services: Services, sealed: str, state: str) -> SignInFlow:
    """The flow of a cookie. Raises `SignInFailed` where it is none, too old, or another one than the provider answered."""
    try:
        first, nonce, verifier, to, begun_at, is_again = json.loads(unseal(services.secret, _PURPOSE, sealed))
    except (BadToken, ValueError):
        raise SignInFailed("this sign-in did not begin in this browser") from None
    flow = SignInFlow(first, nonce, verifier, to, datetime.fromisoformat(begun_at), is_again)
    if not secrets.compare_digest(flow.state.encode(), state.encode("utf-8", "surrogatepass")):
        raise SignInFailed("this sign-in did not begin in this browser")
    if services.clock() - flow.begun_at > timedelta(seconds=FLOW_SECONDS):
        raise SignInFailed("the sign-in took too long")
    return flow


def complete(services: Services, config: OidcSettings, flow: SignInFlow, code: str) -> tuple[str, datetime]:
    """The id of the person who signed in, added or with the present roles, and when the person proved at the provider who it is.

    Raises `SignInFailed`, and `NotAllowed` without a group.
    """
    with open_client(services, config) as client:
        metadata = provider_metadata(client, config)
        try:
            token = client.fetch_token(metadata["token_endpoint"], code=code, code_verifier=flow.verifier)
        except (OAuthError, httpx2.HTTPError, ValueError, KeyError) as error:
            raise _unusable(error) from None
        claims, proved_at = check_token(services, config, client, str(token.get("id_token", "")), flow)
    return store_person(services, config, claims), proved_at


def check_token(
    services: Services, config: OidcSettings, client: OAuth2Client, token: str, flow: SignInFlow | None = None
) -> tuple[Mapping[str, Any], datetime]:
    """The claims of an ID token, and when the person proved at the provider who it is. Raises `SignInFailed`."""
    try:
        url = provider_metadata(client, config)["jwks_uri"]
        keys = KeySet.import_key_set(client.request("GET", url, withhold_token=True).raise_for_status().json())
        claims = _claims(services, config, flow, keys, token)
        proved_at = datetime.fromtimestamp(float(claims.get("auth_time") or 0), UTC)
    except (OAuthError, JoseError, httpx2.HTTPError, ValueError, KeyError) as error:
        raise _unusable(error) from None
    return claims, min(proved_at, services.clock())


def _unusable(error: Exception) -> SignInFailed:
    log.warning("a sign-in by the identity provider failed", fault=type(error).__name__)
    return SignInFailed("the identity provider's answer cannot be used")


def open_client(services: Services, config: OidcSettings) -> OAuth2Client:
    """A client of the provider, to be closed."""
    return OAuth2Client(
        config.client_id,
        config.client_secret,
        scope="openid profile email",
        redirect_uri=f"{services.public_url}/console/oidc/callback",
        code_challenge_method="S256",
        timeout=TIMEOUT_SECONDS,
    )


def provider_metadata(client: OAuth2Client, config: OidcSettings) -> Mapping[str, Any]:
    """The provider's metadata (OpenID Connect Discovery 1.0). Its issuer has to be the configured one. Raises `SignInFailed`."""
    url = f"{config.issuer.rstrip('/')}/.well-known/openid-configuration"
    try:
        metadata: Mapping[str, Any] = client.request("GET", url, withhold_token=True).raise_for_status().json()
    except (httpx2.HTTPError, ValueError):
        raise SignInFailed("the identity provider does not answer") from None
    if metadata.get("issuer") != config.issuer:
        raise SignInFailed("the identity provider names another issuer than the one that is configured")
    return metadata


def _claims(services: Services, config: OidcSettings, flow: SignInFlow | None, keys: KeySet, token: str) -> Mapping[str, Any]:
    """The claims of a checked ID token (OpenID Connect Core 1.0, 3.1.3.7). Without a flow, it is of a device, and has no nonce.

    Raises `JoseError` or an `OAuthError`.
    """
    parsed = jwt.decode(token, keys, algorithms=ALGORITHMS)
    options: dict[str, dict[str, Any]] = {
        "iss": {"essential": True, "value": config.issuer},
        "aud": {"essential": True, "value": config.client_id},
        "sub": {"essential": True},
    }
    parameters = {"client_id": config.client_id}
    if flow is not None:
        options["nonce"] = {"essential": True, "value": flow.nonce}
        parameters["nonce"] = flow.nonce
    claims = CodeIDToken(parsed.claims, parsed.header, options, parameters)
    now = services.clock()
    claims.validate(now=int(now.timestamp()), leeway=LEEWAY_SECONDS)
    if flow is not None and flow.is_again and int(claims.get("auth_time") or 0) < flow.begun_at.timestamp() - LEEWAY_SECONDS:
        raise ValueError("the person did not sign in again")
    checked: Mapping[str, Any] = parsed.claims
    return checked


def store_person(services: Services, config: OidcSettings, claims: Mapping[str, Any]) -> str:
    """Add the person, or give the present roles."""
    subject = f"{claims['iss']}|{claims['sub']}"
    roles, entities = granted(config.groups, claims.get(config.groups_claim))
    if not roles:
        raise NotAllowed("you are signed in at the identity provider, but in no group that gives a role here")
    name = str(claims.get("preferred_username") or claims.get("email") or claims["sub"]).strip().lower()
    row = UserRow(
        id=f"{USER_PREFIX}{name}",
        name=str(claims.get("name") or name),
        email=str(claims.get("email") or ""),
        password_hash=None,
        must_change=False,
        totp_secret=None,
        recovery_hashes=[],
        roles=sorted(roles),
        entities=None if entities is None else sorted(entities),
        created_at=services.clock(),
        created_by=config.issuer,
        disabled_at=None,
        subject=subject,
    )
    with lend(services.pool) as connection, connection.transaction():
        found = users.find_subject(connection, subject)
        if found is None:
            if not users.is_id(row.id) or row.id == LOCAL_ID or not users.add(connection, row):
                raise NotAllowed(f"the name {name!r} belongs to somebody else here, or has characters that names must not have")
            users.change(connection, LOCAL_ID, disabled_at=services.clock())
            return row.id
        if found.disabled_at is not None:
            raise NotAllowed("an administrator has disabled you")
        users.change(connection, found.id, name=row.name, email=row.email, roles=row.roles, entities=row.entities)
        return found.id


def granted(grants: Sequence[GroupGrant], groups: Any) -> tuple[frozenset[Role], frozenset[str] | None]:
    """The roles and entities that groups give; entities are None for all, where one of the groups has no limit."""
    held = [each for each in grants if isinstance(groups, list) and each.group in groups]
    entities = None if any(each.entities is None for each in held) else frozenset(e for each in held for e in each.entities or ())
    return frozenset(role for each in held for role in each.roles), entities

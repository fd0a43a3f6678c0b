"""Who may call the API: a caller whose key has the right for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from dispatcher.domain.principal import Entities, Principal, require_unlimited
from dispatcher.web import auditing
from dispatcher.web.api.query_parameters import known_query_parameters
from dispatcher.web.api_keys import ApiKey, ApiKeyRing, Right
from dispatcher.web.middleware import KEY_NEEDED

_bearer = HTTPBearer(auto_error=False, scheme_name="ApiKey", description="An API key with the right that the call needs.")


def needs(right: Right) -> Callable[..., AsyncIterator[ApiKey]]:
    """A dependency that gives the caller's key: 401 without a valid key, 403 where the key lacks the right.

    The call is recorded in the audit log, and again where it is refused later.
    """

    async def check(
        request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
    ) -> AsyncIterator[ApiKey]:
        keys: ApiKeyRing = request.app.state.keys
        caller = keys.find(credentials.credentials) if credentials else None
        if caller is None:
            raise HTTPException(HTTPStatus.UNAUTHORIZED, KEY_NEEDED, {"WWW-Authenticate": "Bearer"})
        if right not in caller.rights:
            raise HTTPException(HTTPStatus.FORBIDDEN, f"this key lacks the right {right.value!r}")
        await known_query_parameters(request)  # after the key: who has none learns nothing about a call
        await run_in_threadpool(auditing.begin, request, caller.principal)
        try:
            yield caller
        except Exception as error:
            await run_in_threadpool(auditing.failed, request, error)
            raise
        await run_in_threadpool(auditing.done, request)

    return check


def _entities(request: Request) -> Entities:
    principal: Principal = request.state.principal  # set by `needs`, which the router or an earlier parameter asks for
    return principal.entities


CallerEntities = Annotated[Entities, Depends(_entities)]


def no_limit(request: Request) -> None:
    """A dependency for what concerns all entities at once: 403 for a key that is limited to some."""
    require_unlimited(request.state.principal)


def actor(caller: ApiKey) -> str:
    """The name of a caller in the ledger."""
    return f"api:{caller.name}"

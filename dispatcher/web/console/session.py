"""Console sessions: an API key with the right `console` starts one. The ledger stores it, and a sealed cookie carries its id.

A session ends when somebody signs out, after `SESSION_SECONDS`, or when its key is removed from the file or loses the right. A
second cookie marks a browser in which a key has signed in before: with that key it is not held up by the failures of others at the
same address, who could else lock its owner out.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field
from datetime import timedelta

from dispatcher.consent.link_tokens import BadToken, seal, unseal
from dispatcher.domain.derived_keys import KeyRing, derive
from dispatcher.maintenance import console_sessions
from dispatcher.runtime.services import Services
from dispatcher.web.api_keys import ApiKey, ApiKeyRing, Right

COOKIE = "dispatcher_console"
BROWSER_COOKIE = "dispatcher_browser"
SESSION_SECONDS = 12 * 3600
BROWSER_SECONDS = 180 * 86_400
ID_BYTES = 32
_PURPOSE = "console"
_BROWSER_PURPOSE = "console-browser"


@dataclass(frozen=True, slots=True)
class ConsoleSession:
    """A signed-in operator. `form_token` proves that a form came from a page of this session."""

    key: ApiKey
    form_token: str = field(repr=False)
    id: bytes = field(default=b"", repr=False)


class TooManyFailures(Exception):
    """Nobody signs in from here for a moment."""


def begin(services: Services, keys: ApiKeyRing, key: str, address: str, browser: str) -> tuple[str, str] | None:
    """The cookies of a new session and of its browser; None for a key without the right `console`. Raises `TooManyFailures`.

    `address` is the client's, `browser` its second cookie, if any.
    """
    found = keys.find(key)
    valid = found is not None and Right.CONSOLE in found.rights
    if not (valid and found is not None and _is_known(services.secret, browser, found)):
        passed = console_sessions.attempt(services, address, key.encode("utf-8", "surrogatepass"), lambda: valid)
        if passed is None:
            raise TooManyFailures
    if not valid or found is None:
        return None
    session_id = secrets.token_bytes(ID_BYTES)
    ends_at = services.clock() + timedelta(seconds=SESSION_SECONDS)
    console_sessions.start(services, session_id, found.digest, found.name, ends_at)
    return seal(services.secret, _PURPOSE, session_id), seal(services.secret, _BROWSER_PURPOSE, found.digest)


def _is_known(secret: KeyRing, browser: str, key: ApiKey) -> bool:
    try:
        return hmac.compare_digest(unseal(secret, _BROWSER_PURPOSE, browser), key.digest)
    except BadToken:
        return False


def resume(services: Services, keys: ApiKeyRing, cookie: str) -> ConsoleSession | None:
    """The session of a cookie; None where it is not ours, is over, or its key has lost the right `console`."""
    try:
        session_id = unseal(services.secret, _PURPOSE, cookie)
    except BadToken:
        return None
    digest = console_sessions.key_hash_of(services, session_id)
    key = keys.of_digest(digest) if digest is not None else None
    if key is None or Right.CONSOLE not in key.rights:
        return None
    form_token = hmac.digest(derive(services.secret.newest, "console-form"), cookie.encode(), "sha256").hex()
    return ConsoleSession(key, form_token, session_id)


def same(one: str, other: str) -> bool:
    """Whether two tokens are equal, in constant time."""
    return hmac.compare_digest(one.encode(), other.encode("utf-8", "surrogatepass"))

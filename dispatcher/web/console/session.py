"""Console sessions: an API key with the right `console` starts one, and a sealed cookie carries it. Pure.

Nothing is stored on the server. The cookie holds the hash of the key and the time of its own end; once the key is removed from the
file, the cookie is not valid any more.
"""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass, field
from datetime import datetime

from dispatcher.consent.link_tokens import BadToken, seal, unseal
from dispatcher.domain.derived_keys import KeyRing, derive
from dispatcher.web.api_keys import ApiKey, ApiKeyRing, Right

COOKIE = "dispatcher_console"
SESSION_SECONDS = 12 * 3600
_PURPOSE = "console"
_PAYLOAD = struct.Struct(">Q32s")  # when it ends, in seconds since 1970; SHA-256 of the key


@dataclass(frozen=True, slots=True)
class ConsoleSession:
    """A signed-in operator. `form_token` proves that a form came from a page of this session."""

    key: ApiKey
    form_token: str = field(repr=False)


def begin(secret: KeyRing, keys: ApiKeyRing, key: str, now: datetime) -> str | None:
    """The cookie of a new session; None for a key without the right `console`."""
    found = keys.find(key)
    if found is None or Right.CONSOLE not in found.rights:
        return None
    return seal(secret, _PURPOSE, _PAYLOAD.pack(int(now.timestamp()) + SESSION_SECONDS, found.digest))


def resume(secret: KeyRing, keys: ApiKeyRing, cookie: str, now: datetime) -> ConsoleSession | None:
    """The session of a cookie; None where it is not ours, is over, or its key has lost the right `console`."""
    try:
        ends_at, digest = _PAYLOAD.unpack(unseal(secret, _PURPOSE, cookie))
    except (BadToken, struct.error):
        return None
    key = keys.of_digest(digest)
    if key is None or Right.CONSOLE not in key.rights or now.timestamp() >= ends_at:
        return None
    return ConsoleSession(key, hmac.digest(derive(secret.newest, "console-form"), cookie.encode(), "sha256").hex())


def same(one: str, other: str) -> bool:
    """Whether two tokens are equal, in constant time."""
    return hmac.compare_digest(one.encode(), other.encode("utf-8", "surrogatepass"))

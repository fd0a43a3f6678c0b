"""Keys derived from the one secret. Pure: standard library only.

Every use has a key of its own, so that a hash made for one purpose says nothing in another.
"""

from __future__ import annotations

import hmac
from functools import lru_cache


@lru_cache(maxsize=64)
def derive(secret: bytes, purpose: str) -> bytes:
    """The 32-byte key for one purpose. Raises `ValueError` for an empty secret: such a key would protect nothing."""
    if not secret:
        raise ValueError("the secret is empty")
    return hmac.digest(secret, b"dispatcher/" + purpose.encode(), "sha256")

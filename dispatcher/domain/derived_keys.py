"""The secret keys, and keys derived from them. Pure: standard library only.

Every use has a key of its own, so that a hash made for one purpose says nothing in another.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

FINGERPRINT_BYTES = 16


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The secret keys, newest first: the newest writes, all of them read. Raises `ValueError` for none, and for an empty one."""

    keys: tuple[bytes, ...] = field(repr=False)

    def __post_init__(self) -> None:
        """Check the keys: an empty one would protect nothing."""
        if not self.keys or not all(self.keys):
            raise ValueError("the secret is empty")

    @classmethod
    def of(cls, *keys: bytes) -> KeyRing:
        """The ring of these keys, newest first."""
        return cls(keys)

    @classmethod
    def parse(cls, text: str) -> KeyRing:
        """The ring of a text with one key, or several with commas between them."""
        return cls(tuple(part.strip().encode() for part in text.split(",")))

    @property
    def newest(self) -> bytes:
        """The key that writes."""
        return self.keys[0]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


@lru_cache(maxsize=64)
def derive(secret: bytes, purpose: str) -> bytes:
    """The 32-byte key for one purpose. Raises `ValueError` for an empty secret: such a key would protect nothing."""
    if not secret:
        raise ValueError("the secret is empty")
    return hmac.digest(secret, b"dispatcher/" + purpose.encode(), "sha256")


def fingerprint(secret: bytes) -> bytes:
    """What identifies a key and reveals nothing of it: the keyed hash of a constant."""
    return derive(secret, "fingerprint")[:FINGERPRINT_BYTES]

"""Keyed hashes, by which the ledger recognises an address without storing it, and seals the chain. Standard library only.

Every purpose has its own key, derived from the one secret, so that hashes made for one purpose cannot be compared with another's.
"""

from __future__ import annotations

import hmac

from dispatcher.domain.derived_keys import KeyRing, derive

KEY_BYTES = 16

# SMS and WhatsApp reach the same number, so its hash is the same; a suppression's row has the channel beside it.
_KIND_OF = {"email": "email", "phone": "phone", "sms": "phone", "whatsapp": "phone", "push": "push"}


def pseudonym(secret: KeyRing, recipient_id: str) -> str:
    """A person's name in documents for outsiders: always the same, and not traceable to the id without the secret."""
    return hmac.digest(derive(secret.newest, "pseudonym"), recipient_id.encode(), "sha256")[:KEY_BYTES].hex()


def address_key(secret: KeyRing, kind: str, address: str) -> bytes:
    """16 bytes that stand for an address, under the newest key. `kind` is a channel, or "phone".

    `address` is in normal form (see `domain.addresses`). Letter case does not count in e-mail: hardly any mailbox distinguishes
    "Jan@" from "jan@", and a capital letter must not defeat a ban. Raises `KeyError` for an unknown kind.
    """
    return address_hash(secret.newest, kind, address)


def address_hash(key: bytes, kind: str, address: str) -> bytes:
    """The same under a given secret key."""
    address_kind = _KIND_OF[kind]
    text = address.lower() if address_kind == "email" else address
    return hmac.digest(derive(key, "address"), f"{address_kind}\0{text}".encode(), "sha256")[:KEY_BYTES]

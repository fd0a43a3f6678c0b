"""Keyed hashes: how the ledger knows an address, or a chain's link, without keeping it. Standard library only.

Every use has a key of its own, derived from the one secret, so that hashes made for one purpose say nothing in another.
"""

from __future__ import annotations

import hmac

from dispatcher.domain.derived_keys import derive

KEY_BYTES = 16

# SMS and WhatsApp reach the same number, so its key is the same; the channel stands beside it in a suppression's row.
_KIND = {"email": "email", "phone": "phone", "sms": "phone", "whatsapp": "phone", "push": "push"}


def pseudonym(secret: bytes, recipient_id: str) -> str:
    """A person's name in documents that leave the house: the same each time, and no way back to the id without the secret."""
    return hmac.digest(derive(secret, "pseudonym"), recipient_id.encode(), "sha256")[:KEY_BYTES].hex()


def address_key(secret: bytes, kind: str, address: str) -> bytes:
    """16 bytes that stand for an address. `kind` is a channel, or "phone".

    `address` is in the door's normal form. Letter case does not count in e-mail: hardly a mailbox in the world tells
    "Jan@" from "jan@", and a ban that hangs on a capital letter is none. Raises `KeyError` for an unknown kind.
    """
    word = _KIND[kind]
    text = address.lower() if word == "email" else address
    return hmac.digest(derive(secret, "address"), f"{word}\0{text}".encode(), "sha256")[:KEY_BYTES]

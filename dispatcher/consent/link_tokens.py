"""Opaque signed tokens for links, such as `/u/{token}`: nobody can read, alter or make one without a secret key. Pure.

AES-SIV (RFC 5297) encrypts and signs in one step and needs no nonce, so a token costs 16 bytes beyond its payload. The same payload
always gives the same token, which reveals nothing here: a link in a mail that is sent again is the same link. Tokens carry no date;
a caller whose token must expire puts a date into the payload. The newest key of the ring seals; all keys open, so that links in old
mails go on working after a rotation.
"""

from __future__ import annotations

import hmac
import re
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import suppress
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.message_id import MessageId

# The purposes of tokens that name a message. A link that unsubscribes must not open the preference centre, because mail programs
# and their scanners see it, for years.
UNSUBSCRIBE = "unsubscribe"
PREFERENCES = "preferences"

_REF = struct.Struct(">HQIH")  # months since the year 2000, chunk, row, leg: 16 bytes, so 43 characters of token
# The first 43 characters that can be a token. Around them stands what mail programs and people add to a link: a full stop,
# a bracket, a quotation mark, a tag, a blank, a quoted-printable "=3D". A list of those is never complete, and "-" and "_" are also
# characters of tokens; the length is certain.
_MESSAGE_TOKEN = re.compile(r"(?:=3D|[^A-Za-z0-9_-])*([A-Za-z0-9_-]{43})")


class BadToken(ValueError):
    """Not a token for this purpose: invented, cut, altered, or sealed with another secret."""

    def __init__(self) -> None:
        super().__init__("not a valid token")


@lru_cache(maxsize=64)
def _cipher(secret: bytes) -> AESSIV:
    if not secret:
        raise ValueError("the secret is empty")
    return AESSIV(hmac.digest(secret, b"dispatcher/tokens", "sha512"))


def seal(secret: KeyRing, purpose: str, payload: bytes) -> str:
    """A URL-safe token for a payload of at least one byte; the same `purpose` is needed to open it."""
    return _seal(secret.newest, purpose, payload)


def _seal(key: bytes, purpose: str, payload: bytes) -> str:
    return urlsafe_b64encode(_cipher(key).encrypt(payload, [purpose.encode()])).rstrip(b"=").decode()


def unseal(secret: KeyRing, purpose: str, token: str) -> bytes:
    """The payload of a token that `seal` made with any of these keys for this purpose. Raises `BadToken` for anything else."""
    try:
        sealed = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except ValueError:
        raise BadToken from None
    for key in secret:
        with suppress(ValueError, InvalidTag):
            payload = _cipher(key).decrypt(sealed, [purpose.encode()])
            if _seal(key, purpose, payload) == token:  # base64 has several spellings of the same bytes; a token has one
                return payload
    raise BadToken


def message_token(secret: KeyRing, purpose: str, message_id: str) -> str:
    """The token that stands for a message, 43 characters. Raises `BadMessageId` where `message_id` is none."""
    return message_id_token(secret, purpose, MessageId.parse(message_id))


def message_id_token(secret: KeyRing, purpose: str, ref: MessageId) -> str:
    """The same for a parsed message id."""
    year, month = divmod(ref.period, 100)
    return seal(secret, purpose, _REF.pack((year - 2000) * 12 + month - 1, ref.chunk, ref.row, ref.leg))


def read_message_token(secret: KeyRing, purpose: str, token: str) -> str:
    """The id of the message that a token stands for. Raises `BadToken`, also for a token made for another purpose.

    Characters that mail programs add to a link count for nothing: a way out must work.
    """
    match = _MESSAGE_TOKEN.match(token)
    if match is None:
        raise BadToken
    payload = unseal(secret, purpose, match[1])
    if len(payload) != _REF.size:
        raise BadToken
    months, chunk, row, leg = _REF.unpack(payload)
    year, month = divmod(months, 12)
    return str(MessageId((2000 + year) * 100 + month + 1, chunk, row, leg))

"""Sealed jobs: the arguments of the public tasks, encrypted for the workers. Pure.

The cipher is HPKE (RFC 9180) in base mode with X25519, HKDF-SHA256 and ChaCha20-Poly1305: a standard with libraries in most
languages. Whoever has the public key can seal; only who has the secret key can open. It does not prove who sealed: whoever can
write to the broker can put jobs on it, sealed or not.

A sealed job is the text `1.KEY.BOX`: the version, the id of the public key, and the base64url, without padding, of HPKE's
encapsulated key (32 bytes) and ciphertext. HPKE's `info` names version and task, so that a job opens only as the task that it was
sealed for.
"""

from __future__ import annotations

import hashlib
import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from dispatcher.domain.derived_keys import KeyRing, derive

VERSION = "1"
FIELD = "sealed"  # of the argument: {"sealed": "1.…"}
KEY_ID_BYTES = 6
KEY_BYTES = 32
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")
SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


class CannotUnseal(ValueError):
    """A sealed job cannot be opened. The message holds nothing of it."""


def public_key(secret: bytes) -> str:
    """The public key that belongs to a secret key, as text."""
    return _to_text(_private_key(secret).public_key().public_bytes_raw())


def key_id(public: str) -> str:
    """The id of a public key: the first 6 bytes of its SHA-256, as text."""
    return _to_text(hashlib.sha256(_from_text(public)).digest()[:KEY_ID_BYTES])


def check_public_key(text: str) -> str:
    """The text of a public key without blanks around it. Raises `ValueError` where it is none."""
    public = text.strip()
    try:
        is_key = len(_from_text(public)) == KEY_BYTES
    except ValueError:
        is_key = False
    if not is_key:
        raise ValueError("should be a public key of 43 characters, as `dispatcher keys public` prints it")
    return public


def seal(task: str, job: Mapping[str, Any], public: str) -> str:
    """The job, sealed as the argument of this task. Raises `ValueError` for what is no JSON and for a bad key."""
    text = json.dumps(job, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    to = X25519PublicKey.from_public_bytes(_from_text(check_public_key(public)))
    box: bytes = SUITE.encrypt(text.encode(), to, info=_info(task))
    return f"{VERSION}.{key_id(public.strip())}.{_to_text(box)}"


def unseal(task: str, sealed: str, ring: KeyRing) -> Any:
    """What was sealed for this task. Raises `CannotUnseal`."""
    version, _, rest = sealed.partition(".")
    wanted, _, box = rest.partition(".")
    if version != VERSION or not box:
        raise CannotUnseal(f"should be a text of the form {VERSION}.KEY.BOX")
    secret = next((each for each in ring if _key_id_of(each) == wanted), None)
    if secret is None:
        raise CannotUnseal("was sealed with a key that the workers do not have; `dispatcher keys public` prints the present one")
    try:
        return json.loads(SUITE.decrypt(_from_text(box), _private_key(secret), info=_info(task)))
    except InvalidTag:
        raise CannotUnseal("was damaged, or sealed for another task") from None
    except (ValueError, RecursionError):
        raise CannotUnseal("does not hold JSON in UTF-8, or its base64url is damaged") from None


def _info(task: str) -> bytes:
    return f"dispatcher job {VERSION} {task}".encode()


@lru_cache(maxsize=16)
def _private_key(secret: bytes) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(derive(secret, "sealed-jobs"))


@lru_cache(maxsize=16)
def _key_id_of(secret: bytes) -> str:
    return key_id(public_key(secret))


def _to_text(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()


def _from_text(text: str) -> bytes:
    """The bytes of base64url without padding. Raises `ValueError`."""
    if not _BASE64URL.fullmatch(text):  # Python's decoder would leave out what does not belong there
        raise ValueError("is not base64url without padding")
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))

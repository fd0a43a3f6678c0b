"""Passwords and one-time codes."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b32encode
from datetime import datetime

import pyotp
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from dispatcher.domain.derived_keys import KeyRing, derive

LENGTH_MIN, LENGTH_MAX = 12, 200
STEP_SECONDS = 30
RECOVERY_CODES = 8
_hasher = PasswordHasher()  # argon2id with the library's parameters, which follow RFC 9106
_NOBODY = _hasher.hash("of nobody")  # so that an unknown name takes as long as a known one


def hash_password(password: str) -> str:
    """The argon2id hash of a password."""
    return _hasher.hash(_bytes(password))


def is_password(password_hash: str | None, password: str) -> bool:
    """Whether this is the password. Takes the same time where there is none."""
    try:
        _hasher.verify(password_hash or _NOBODY, _bytes(password))
    except (VerificationError, InvalidHashError):
        return False
    return password_hash is not None


def password_fault(password: str, names: tuple[str, ...] = ()) -> str | None:
    """Why this is no good password, by NIST SP 800-63B: length counts, kinds of characters do not."""
    if not LENGTH_MIN <= len(password) <= LENGTH_MAX:
        return f"should have {LENGTH_MIN} to {LENGTH_MAX} characters"
    if len(set(password)) < 5:
        return "should not repeat a few characters"
    if any(name and name.casefold() in password.casefold() for name in names if len(name) > 3):
        return "should not contain your name"
    return None


def new_password() -> str:
    """A random password that a person can type: 80 bits."""
    return readable(secrets.token_bytes(10))


def readable(random: bytes) -> str:
    """Bytes as groups of four letters and digits."""
    text = b32encode(random).decode().rstrip("=").lower()
    return "-".join(text[at : at + 4] for at in range(0, len(text), 4))


def _bytes(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")


# -- the second factor: RFC 6238 ---------------------------------------------------------------------------------------


def new_totp_secret() -> str:
    """A secret for an app that shows one-time codes."""
    return pyotp.random_base32()


def totp_uri(secret: str, name: str) -> str:
    """The link that such an app reads, also as a QR code."""
    return pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name="dispatcher")


def totp_step(secret: str, code: str, now: datetime) -> int | None:
    """The time step that this code belongs to: the current one, or one beside it for clocks that differ; None for a wrong code."""
    totp, current = pyotp.TOTP(secret), int(now.timestamp()) // STEP_SECONDS
    steps = [step for step in (current - 1, current, current + 1) if hmac.compare_digest(_code(totp, step), code.encode())]
    return steps[0] if steps else None


def _code(totp: pyotp.TOTP, step: int) -> bytes:
    return totp.generate_otp(step).encode()


def recovery_codes() -> list[str]:
    """Codes for a person whose device is lost. Each works once."""
    return [readable(secrets.token_bytes(10)) for _ in range(RECOVERY_CODES)]


def recovery_hash(key: bytes, code: str) -> bytes:
    """The keyed hash under which a recovery code is stored. It has 80 random bits, so a fast hash is enough."""
    return hmac.digest(derive(key, "recovery-code"), code.strip().lower().encode("utf-8", "surrogatepass"), hashlib.sha256)


def recovery_hashes(ring: KeyRing, code: str) -> list[bytes]:
    """The same under each key of the ring."""
    return [recovery_hash(key, code) for key in ring]

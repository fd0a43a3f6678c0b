"""Signatures by the Standard Webhooks specification (https://www.standardwebhooks.com), and the secrets that make them.

No secret is stored: each is derived from a secret key of the program, the endpoint's number and a version.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from datetime import UTC, datetime

from standardwebhooks import Webhook

from dispatcher.domain.derived_keys import KeyRing, derive

PREFIX = "whsec_"


def secret_text(key: bytes, endpoint_no: int, version: int) -> str:
    """A secret as a receiver gets it. `key` is one of the program's secret keys."""
    return PREFIX + b64encode(derive(key, f"webhook/{endpoint_no}/{version}")).decode()


def signed_headers(secrets: Iterable[str], webhook_id: str, now: datetime, body: bytes) -> dict[str, str]:
    """The three headers of a call. Every secret signs: a receiver needs one signature that fits the secret that it has."""
    at = now.astimezone(UTC)
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(webhook_id, at, body.decode()) for secret in secrets),
    }


def all_secrets(ring: KeyRing, endpoint_no: int, versions: Iterable[int]) -> list[str]:
    """What signs: each of the versions, under each key of the program, those of the newest key first."""
    versions = tuple(versions)
    return [secret_text(key, endpoint_no, version) for key in ring for version in versions]

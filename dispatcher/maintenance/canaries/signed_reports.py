"""The monthly report of the opt-out latency, signed with Ed25519 so that nobody can change it afterwards, and its check.

The key is derived from the secret key of the installation. Whoever has the public key can check a report without this program: the
signature is over the canonical JSON of the document without `signature` (sorted keys, no spaces, UTF-8).
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dispatcher.domain.derived_keys import KeyRing, derive
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.ledger.connection import lend
from dispatcher.ledger.maintenance import canary_lags
from dispatcher.ledger.maintenance.canary_lags import Measured
from dispatcher.maintenance.canaries.service_level import late_view, summary_view
from dispatcher.runtime.services import Services

FORMAT = "dispatcher.opt-out-latency/1"
PURPOSE = "canary report"
MEANING = (
    "Canary recipients opted out in each way, under the rules that hold for customers. Times are seconds from the answer of the "
    "way out to the last claim, hand-off and arrival of a message after it; 0 where there was none. A hand-off is measured at the "
    "settlement of the provider's answer, so it is an upper limit. An opt-out is late if anything arrives after the bound, or is "
    "claimed after an answer that follows the commit."
)
_MONTH = re.compile(r"(20\d\d)-(0[1-9]|1[0-2])")


@dataclass(frozen=True, slots=True)
class ReportCheck:
    """The result of a check. `is_ours`: the key is that of this installation; None where it was not compared."""

    is_unchanged: bool
    is_ours: bool | None
    public_key: str
    month: str


def monthly_report(services: Services, month: str) -> dict[str, Any]:
    """The signed report of a month such as 2026-11, as far as it has passed. Raises `BadInput`."""
    since, until = _limits(month)
    now = services.clock().astimezone(UTC)
    if since > now:
        raise BadInput(InputError("report", 0, "month", f"lies in the future: {month}"))
    wanted = Measured(since, until)
    with lend(services.pool) as connection:
        by_way, by_day = canary_lags.by_way(connection, wanted), canary_lags.by_day(connection, wanted)
        late, reasons = canary_lags.late(connection, since, until), canary_lags.reasons(connection, since, until)
    document: dict[str, Any] = {
        "format": FORMAT,
        "month": month,
        "complete": now >= until,
        "installation": services.public_url,
        "made_at": now.isoformat(),
        "meaning": MEANING,
        "opt_outs": sum(each.rounds for each in by_way),
        "measured": sum(each.measured for each in by_way),
        "late": sum(each.late for each in by_way),
        "by_way": [summary_view(each) for each in by_way],
        "by_day": [summary_view(each) for each in by_day],
        "late_opt_outs": [late_view(each) for each in late],
        "not_measured": dict(reasons),
    }
    return signed(services.secret, document)


def _limits(month: str) -> tuple[datetime, datetime]:
    match = _MONTH.fullmatch(month)
    if match is None:
        raise BadInput(InputError("report", 0, "month", f"should be a year and a month such as 2026-11, not {month!r}"))
    year, number = int(match[1]), int(match[2])
    return datetime(year, number, 1, tzinfo=UTC), datetime(year + number // 12, number % 12 + 1, 1, tzinfo=UTC)


def signed(secret: KeyRing, document: dict[str, Any]) -> dict[str, Any]:
    """The document with the public key and the signature."""
    key = _private_key(secret.newest)
    whole = {**document, "public_key": _text_of(key.public_key())}
    return {**whole, "signature": b64encode(key.sign(_canonical(whole))).decode()}


def public_key(secret: KeyRing) -> str:
    """The public key of this installation's reports, base64."""
    return _text_of(_private_key(secret.newest).public_key())


def verify(text: str, expected_key: str = "", secret: KeyRing | None = None) -> ReportCheck:
    """Check a report: unchanged since it was signed, and signed by `expected_key`, or by a key of `secret`.

    Raises `BadInput` for a text that is no report.
    """
    try:
        document = json.loads(text)
        signature = b64decode(document.pop("signature"), validate=True)
        key = document["public_key"]
        public = Ed25519PublicKey.from_public_bytes(b64decode(key, validate=True))
        month = str(document["month"])
        known_format = document["format"] == FORMAT
    except (ValueError, TypeError, KeyError, AttributeError):
        raise BadInput(InputError("report", 0, "", "is no report of opt-out latency")) from None
    if not known_format:
        raise BadInput(InputError("report", 0, "format", f"should be {FORMAT}"))
    try:
        public.verify(signature, _canonical(document))
        is_unchanged = True
    except InvalidSignature:
        is_unchanged = False
    return ReportCheck(is_unchanged, _is_ours(key, expected_key, secret), key, month)


def _is_ours(key: str, expected_key: str, secret: KeyRing | None) -> bool | None:
    if expected_key:
        return key == expected_key
    return None if secret is None else key in {_text_of(_private_key(each).public_key()) for each in secret}


def _private_key(secret: bytes) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(derive(secret, PURPOSE))


def _text_of(key: Ed25519PublicKey) -> str:
    return b64encode(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

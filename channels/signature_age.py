"""How old a signed webhook call may be, for providers that sign a timestamp. Pure: standard library only."""

from __future__ import annotations

from datetime import datetime, timedelta

from channels.base import BadSignature

# Providers repeat a call for up to 24 hours (SendGrid, Telnyx), and none documents that it signs each attempt anew. A webhook
# endpoint that was away for a day must not lose opt-outs. A replay does no harm: events and inbound messages are stored once by id.
SIGNATURE_AGE_MAX = timedelta(hours=72)
SIGNATURE_AHEAD_MAX = timedelta(minutes=5)  # clocks differ; nobody signs in the future


def check_signature_age(timestamp: str, now: datetime) -> None:
    """Raise `BadSignature` unless the text is a unix time of the last three days.

    Digits only: SendGrid signs timestamp + body without a separator, so other characters could come from the body.
    """
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise BadSignature("timestamp")
    age_seconds = now.timestamp() - int(timestamp)
    if not -SIGNATURE_AHEAD_MAX.total_seconds() <= age_seconds <= SIGNATURE_AGE_MAX.total_seconds():
        raise BadSignature("age")

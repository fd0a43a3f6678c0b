"""Checks of an outbound that every adapter makes first: the right content type, a plain address, single lines. Pure.

A refusal here is ours and not the provider's, so it is `Rejected` and the address is not suppressed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from channels.base import Channel, Email, MergedEmail, Outbound, Push, Rejected, Sms, WhatsApp, assemble

C = TypeVar("C", Email, Sms, WhatsApp, Push)

_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
_HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,76}")
_E164 = re.compile(r"\+[1-9][0-9]{5,14}")  # also keeps channel prefixes ("messenger:…") out of SMS
_MAILBOX = re.compile(r"[^\s<>(),;:\"\[\]\\@]{1,64}@[^\s<>(),;:\"\[\]\\@]{1,255}")  # exactly one, without a display name
_TOKEN = re.compile(r"[!-~]{1,4096}")

_ADDRESS_PATTERNS: Mapping[Channel, re.Pattern[str]] = {
    Channel.EMAIL: _MAILBOX,
    Channel.SMS: _E164,
    Channel.WHATSAPP: _E164,
    Channel.PUSH: _TOKEN,
}

# Headers that follow from a mail's fields or that the provider sets: SendGrid refuses a mail that sets one of them.
RESERVED_HEADERS = frozenset(
    {"x-sg-id", "x-sg-eid", "received", "dkim-signature", "content-type", "content-transfer-encoding"}
    | {"to", "from", "subject", "reply-to", "cc", "bcc"}
)


def check_content(outbound: Outbound, channel: Channel, kind: type[C]) -> C:
    """Return the content, assembled. Raises Rejected if it is not the channel's or if something in it could be misread."""
    content = assemble(outbound.content)
    if outbound.channel is not channel or not isinstance(content, kind):
        raise Rejected("wrong_content", f"this adapter sends {kind.__name__}")
    _check_envelope(outbound, channel)
    if isinstance(content, Email):
        _check_email_fields(content)
    return content


def check_mail(outbound: Outbound) -> Email | MergedEmail:
    """Like `check_content`, for adapters that can send a merged e-mail as it is."""
    content = outbound.content
    if outbound.channel is not Channel.EMAIL or not isinstance(content, (Email, MergedEmail)):
        raise Rejected("wrong_content", "this adapter sends e-mail")
    _check_envelope(outbound, Channel.EMAIL)
    _check_email_fields(content)
    return content


def _check_envelope(outbound: Outbound, channel: Channel) -> None:
    if not _ADDRESS_PATTERNS[channel].fullmatch(outbound.address):
        raise Rejected("malformed_address")
    check_one_line(outbound.id, "id")


def check_one_line(text: str, what: str) -> str:
    """Return the text. Raises Rejected if it is empty or contains a line break or another control character."""
    if not text or _CONTROL.search(text):
        raise Rejected("not_one_line", what)
    return text


def _check_email_fields(email: Email | MergedEmail) -> None:
    if not _MAILBOX.fullmatch(email.sender_address):
        raise Rejected("malformed_sender")
    if email.reply_to and not _MAILBOX.fullmatch(email.reply_to):
        raise Rejected("malformed_reply_to")
    check_one_line(email.sender_name, "sender_name")
    check_one_line(email.subject, "subject")
    for name, value in email.headers:
        if not _HEADER_NAME.fullmatch(name) or name.lower() in RESERVED_HEADERS:
            raise Rejected("reserved_header", "a header that callers may not set")
        if not check_one_line(value, "header").isascii():
            raise Rejected("unencoded_header")

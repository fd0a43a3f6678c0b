"""Twilio's checks of a message, and magic numbers that cause an error or a special case."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

WHATSAPP = "whatsapp:"
BODY_CHARACTERS_MAX = 1_600

# Twilio's own test numbers, by recipient and by sender (its page "Test Credentials").
_TEST_RECIPIENTS = {
    "+15005550001": 21211,
    "+15005550002": 21612,
    "+15005550003": 21408,
    "+15005550004": 21610,
    "+15005550009": 21614,
}
_TEST_SENDERS = {"+15005550001": 21212, "+15005550007": 21606, "+15005550008": 21611}

# The sandbox's own: after one of these prefixes, five digits are Twilio's error code, or one of the special cases below.
MAGIC_PREFIXES = ("+150056", "+324609")
SILENT, DELIVERED_ONLY, LOST = 0, 1, 2
FIRST_REFUSAL, FIRST_CALLBACK_CODE = 20_000, 30_000
_LATE_REFUSALS = (63007,)  # higher codes that also refuse at once

_NUMBER = re.compile(r"\+[1-9]\d{6,14}")
_SENDER = re.compile(r"\+[1-9]\d{6,14}|\d{3,8}|(?=.*[A-Za-z])[A-Za-z0-9 &+_-]{1,11}|whatsapp:\+[1-9]\d{6,14}")
_CONTENT_SID, _SERVICE_SID = re.compile(r"HX[0-9a-fA-F]{32}"), re.compile(r"MG[0-9a-fA-F]{32}")


class MessageRefusal(Exception):
    """Twilio would refuse this message; `code` is its error code."""

    def __init__(self, code: int) -> None:
        super().__init__(str(code))
        self.code = code


class CheckedMessage(NamedTuple):
    """A valid message: the plain number, and the number's magic code (None: no special case)."""

    number: str
    whatsapp: bool
    magic: int | None


def check_message(form: Mapping[str, str], stopped: Collection[str]) -> CheckedMessage:
    """Check the fields of a message in Twilio's order. Raises MessageRefusal."""
    number, whatsapp = _check_recipient(form.get("To", ""))
    _check_sender(form, whatsapp=whatsapp)
    _check_content(form)
    code = _TEST_RECIPIENTS.get(number) or magic_code(number)
    if code is not None and (FIRST_REFUSAL <= code < FIRST_CALLBACK_CODE or code in _LATE_REFUSALS):
        raise MessageRefusal(code)
    if number in stopped:
        raise MessageRefusal(63033 if whatsapp else 21610)
    return CheckedMessage(number, whatsapp, code)


def magic_code(number: str) -> int | None:
    """Return the last five digits of a magic number, else None."""
    return int(number[-5:]) if number.startswith(MAGIC_PREFIXES) and len(number) == len(MAGIC_PREFIXES[0]) + 5 else None


def statuses_of(code: int | None, *, whatsapp: bool) -> tuple[tuple[str, ...], int | None]:
    """Return the statuses of a taken message in order, and the error code if it fails."""
    if code == SILENT:
        return ("queued",), None
    if code is not None and code >= FIRST_CALLBACK_CODE:
        return ("queued", "sent", "undelivered"), code
    if whatsapp and code != DELIVERED_ONLY:
        return ("queued", "sent", "delivered", "read"), None
    return ("queued", "sent", "delivered"), None


def _check_recipient(to: str) -> tuple[str, bool]:
    if not to:
        raise MessageRefusal(21604)
    whatsapp = to.startswith(WHATSAPP)
    number = to.removeprefix(WHATSAPP)
    if not _NUMBER.fullmatch(number):
        raise MessageRefusal(21211)
    return number, whatsapp


def _check_sender(form: Mapping[str, str], *, whatsapp: bool) -> None:
    sender, service = form.get("From", ""), form.get("MessagingServiceSid", "")
    if service and not _SERVICE_SID.fullmatch(service):
        raise MessageRefusal(21705)
    if not sender:
        if service:
            return
        raise MessageRefusal(21603)
    if not _SENDER.fullmatch(sender):
        raise MessageRefusal(21212)
    if whatsapp != sender.startswith(WHATSAPP):
        raise MessageRefusal(63007 if whatsapp else 21910)
    if sender == form["To"]:
        raise MessageRefusal(21266)
    if code := _TEST_SENDERS.get(sender):
        raise MessageRefusal(code)


def _check_content(form: Mapping[str, str]) -> None:
    if content := form.get("ContentSid"):
        if not _CONTENT_SID.fullmatch(content):
            raise MessageRefusal(21655)
        if not _is_object_of_strings(form.get("ContentVariables") or "{}"):
            raise MessageRefusal(21656)
    elif not form.get("Body") and not form.get("MediaUrl"):
        raise MessageRefusal(21602)
    if len(form.get("Body", "")) > BODY_CHARACTERS_MAX:
        raise MessageRefusal(21617)
    callback = form.get("StatusCallback")
    if callback and not callback.startswith(("http://", "https://")):
        raise MessageRefusal(21609)


# Meta, error 132018: "Param text cannot have new-line/tab characters or more than 4 consecutive spaces".
_META_REFUSES = re.compile(r"[\n\r\t]| {5}")


def _is_object_of_strings(text: str) -> bool:
    try:
        variables = json.loads(text)
    except ValueError:
        return False
    return isinstance(variables, dict) and all(
        isinstance(value, str) and not _META_REFUSES.search(value) for value in variables.values()
    )

"""Removes from log lines what should not be there in the first place: a second line of defence.

Our own lines hold ids and codes, and texts of errors are never written. But libraries log in their own words, such as the URL of a
request. Names of people have no form by which they could be recognised here.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from functools import lru_cache

from structlog.typing import EventDict

SECRET_LENGTH_MIN = 8  # a shorter value would be found in ordinary words
GONE = "[…]"

_SECRET_NAME = re.compile(r"(?:_KEY|_TOKEN|_SECRET|_PASSWORD|_HEADERS)$")
_PASSWORD_IN_URL = re.compile(r"://[^/\s:@]*:([^/\s@]+)@")
_HOST = socket.gethostname()
_PATTERNS = re.compile(
    r"""
    (?P<before>://)[^/\s"'@]+(?=@)                                    # user and password in a URL
    | (?P<query>\?)[^\s"'<>]*=[^\s"'<>]*                               # the query of a URL
    | (?P<link>/[up]/)[\w.~%-]{8,}                                     # the token of a customer's link
    | (?P<scheme>\b(?:Bearer|Basic)\s+)[\w.~+/=-]{4,}                  # an Authorization header
    | \b(?:dsp_|SG\.)[\w.-]{16,}                                       # our API keys, and SendGrid's
    | (?P<local>[\w.!#$%&'*+/=?^`{|}~-]+)@(?P<domain>[\w-]+(?:\.[\w-]+)+)  # an e-mail address, or a Celery worker
    | (?<![\w.])\+[0-9](?:[ ./-]?[0-9]){7,14}(?![\w])                  # a phone number
    """,
    re.VERBOSE,
)


def redact(_logger: object, _method: str, event: EventDict) -> EventDict:
    """The line with addresses, phone numbers, tokens and this process's secrets replaced, in all its texts."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = redacted_text(value)
        elif isinstance(value, list | tuple):
            event[name] = [redacted_text(each) if isinstance(each, str) else each for each in value]
    return event


def redacted_text(text: str) -> str:
    """The text without them."""
    for secret in _secrets():
        if secret in text:
            text = text.replace(secret, GONE)
    return _PATTERNS.sub(_replacement, text)


def _replacement(found: re.Match[str]) -> str:
    if found["domain"] == _HOST:  # the name of a worker on this machine
        return found[0]
    kept = next((found[name] for name in ("before", "query", "link", "scheme") if found[name]), "")
    return f"{kept}{GONE}"


@lru_cache(maxsize=1)
def _secrets() -> tuple[str, ...]:
    return secrets_in(os.environ)


def secrets_in(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The values of variables that hold a secret, and the passwords in URLs; the longest first."""
    found = set[str]()
    for name, value in environ.items():
        if _SECRET_NAME.search(name):
            found |= {part.strip() for part in value.split(",")}
        found |= set(_PASSWORD_IN_URL.findall(value))
    return tuple(sorted((each for each in found if len(each) >= SECRET_LENGTH_MIN), key=len, reverse=True))

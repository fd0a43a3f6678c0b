"""Calls of our own web application over HTTP, as a customer's mail program, a provider or another system makes them."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import urlsplit

from dispatcher.maintenance.canaries.errors import CannotMeasure

SECONDS_MAX = 10.0


def call(method: str, url: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> str:
    """The body of a successful answer. Raises `CannotMeasure`: a customer could not have opted out either."""
    parts = urlsplit(url)
    connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = connect(parts.netloc, timeout=SECONDS_MAX)
    try:
        connection.request(method, parts.path + (f"?{parts.query}" if parts.query else ""), body or None, dict(headers or {}))
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        raise CannotMeasure("web_unreachable") from None
    finally:
        connection.close()
    if not HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
        raise CannotMeasure(f"web_answers_{answer.status}")
    return text

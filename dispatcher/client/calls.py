"""Calls of the API as data, and what is sent of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Call:
    """One call. `options` are parameters of the query, or headers where `header_names` has their name.

    A call that is not repeatable is repeated only where the server surely did nothing.
    """

    method: str
    path: str
    body: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)
    header_names: Mapping[str, str] = field(default_factory=dict)
    is_repeatable: bool = True
    content: bytes | None = None  # instead of `body`
    content_headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def query(self) -> dict[str, str]:
        """The parameters of the query."""
        return {name: _text(value) for name, value in self._given() if name not in self.header_names}

    @property
    def headers(self) -> dict[str, str]:
        """The headers. A version goes into `If-Match` as an ETag."""
        given = {self.header_names[name]: value for name, value in self._given() if name in self.header_names}
        named = {name: f'"{value}"' if name == "If-Match" else _text(value) for name, value in given.items()}
        kind = {"Content-Type": "application/json"} if self.body is not None else {}
        return {**kind, **named, **self.content_headers}

    @property
    def payload(self) -> bytes | None:
        """The body of the request."""
        return encode(self.body) if self.body is not None else self.content

    def _given(self) -> list[tuple[str, Any]]:
        return [(name, value) for name, value in self.options.items() if value is not None]


def encode(document: object) -> bytes:
    """A document as JSON; times and dates as ISO 8601."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False, default=_iso).encode()


def encode_line(document: object) -> bytes:
    """A document as a line of a stream. The server rejects a line that is no JSON or no UTF-8; it does not end the stream."""
    return json.dumps(document, default=_iso).encode() + b"\n"


def _iso(value: object) -> str:
    if isinstance(value, date):  # a datetime is one
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not JSON")


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, datetime) else str(value)

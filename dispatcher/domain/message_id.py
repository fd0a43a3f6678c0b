"""Message ids. Pure.

A message is one leg of a job. Its id is its key in the ledger: "<period>-<chunk>-<row>-<leg>", for example
"202611-123-17-0". It says nothing about the person, so brokers, providers and logs may see it.
"""

from __future__ import annotations

import re

from msgspec import Struct

_ID = re.compile(r"(2[0-9]{3}(?:0[1-9]|1[0-2]))-([1-9][0-9]{0,18})-(0|[1-9][0-9]{0,9})-(0|[1-9][0-9]{0,4})", re.ASCII)

CHUNK_MAX = 2**63 - 1  # bigint
ROW_MAX = 2**31 - 1  # integer
LEG_MAX = 2**15 - 1  # smallint


class BadMessageId(ValueError):
    """Not a message id. The error does not repeat the text, which may contain anything."""

    def __init__(self) -> None:
        super().__init__("not a message id; one looks like 202611-123-17-0 (period, chunk, row, leg)")


class MessageId(Struct, frozen=True, order=True):
    """The key of a message in the ledger: `period` is a month such as 202611, `chunk` counts from 1, the others from 0."""

    period: int
    chunk: int
    row: int
    leg: int = 0

    @classmethod
    def parse(cls, text: str) -> MessageId:
        """Parse the output of `str`. Raises `BadMessageId` for any other text: each message has exactly one spelling."""
        match = _ID.fullmatch(text)
        if match is None:
            raise BadMessageId
        period, chunk, row, leg = (int(part) for part in match.groups())
        if chunk > CHUNK_MAX or row > ROW_MAX or leg > LEG_MAX:
            raise BadMessageId
        return cls(period, chunk, row, leg)

    def __str__(self) -> str:
        return f"{self.period}-{self.chunk}-{self.row}-{self.leg}"

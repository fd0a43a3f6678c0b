"""How far a stream of lines is that an interrupted client wants to resume."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import line_uploads
from dispatcher.ledger.consent.line_uploads import LineUpload, line_hash
from dispatcher.runtime.services import Services

__all__ = ["OTHER_CONTENT", "LineUpload", "line_hash", "lines_taken", "same_lines", "take"]

OTHER_CONTENT = "this upload had another line with this number, nothing was done with this one: send it under a new Upload-Id"


def lines_taken(services: Services, upload: LineUpload) -> int:
    """The number of the last line that was taken; 0 for none."""
    with lend(services.pool) as connection:
        return line_uploads.lines_taken(connection, upload)


def same_lines(services: Services, upload: LineUpload, lines: Mapping[int, Mapping[str, Any]]) -> frozenset[int]:
    """Which of these lines, by number, the upload took with this content."""
    with lend(services.pool) as connection:
        return line_uploads.same_lines(connection, services.secret, upload, lines)


def take(services: Services, upload: LineUpload, taken: int, hashes: Mapping[int, int]) -> None:
    """Take lines after `taken`, to which nothing was applied, by number with their hashes."""
    with lend(services.pool) as connection:
        line_uploads.advance(connection, upload, taken, hashes, services.clock())

"""How far a stream of lines is that an interrupted client wants to resume."""

from __future__ import annotations

from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import line_uploads
from dispatcher.ledger.consent.line_uploads import LineUpload
from dispatcher.runtime.services import Services

__all__ = ["LineUpload", "lines_taken", "take"]


def lines_taken(services: Services, upload: LineUpload) -> int:
    """The number of the last line that was taken; 0 for none."""
    with lend(services.pool) as connection:
        return line_uploads.lines_taken(connection, upload)


def take(services: Services, upload: LineUpload, taken: int, line: int) -> None:
    """Take the lines after `taken` up to `line`, to which nothing was applied."""
    with lend(services.pool) as connection:
        line_uploads.advance(connection, upload, taken, line, services.clock())

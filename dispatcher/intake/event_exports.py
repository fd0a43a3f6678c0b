"""Our own events, read back from what other systems or files have: JSON lines of CloudEvents, and the CSV files of `consent`."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from dispatcher.intake.errors import BadInput, InputError

SUFFIXES = (".jsonl", ".ndjson", ".csv")
CONSENT, SUPPRESSION, ERASED = "dispatcher.consent.changed", "dispatcher.suppression.set", "dispatcher.recipient.erased"
CONSENT_COLUMNS = frozenset({"recipient", "subject", "old_value", "new_value", "source", "said_at", "evidence"})


@dataclass(frozen=True, slots=True)
class ExportedEvent:
    """An event's type and data, with the place where it was read."""

    type: str
    data: Mapping[str, Any]
    file: str
    line: int


def event_files_in(path: Path) -> list[Path]:
    """The file, or all files of a folder and the folders in it that may have events. Raises `BadInput` where there is none."""
    if path.is_file():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file()) if path.is_dir() else []
    if not found:
        raise BadInput(InputError(str(path), 0, "", f"is no file and no folder with {', '.join(SUFFIXES)} files"))
    return found


def read_events(file: Path) -> Iterator[ExportedEvent]:
    """The events of a file; none of a CSV file about something else. Raises `BadInput` for a line that is no event."""
    try:
        with file.open(encoding="utf-8", newline="") as text:
            if file.suffix == ".csv":
                rows = csv.DictReader(text)
                if rows.fieldnames and CONSENT_COLUMNS.issubset(rows.fieldnames):
                    for row in rows:
                        yield ExportedEvent(CONSENT, {name: value or None for name, value in row.items()}, str(file), rows.line_num)
                return
            for number, line in enumerate(text, start=1):
                if line.strip():
                    yield _event(line, str(file), number)
    except UnicodeDecodeError:
        raise BadInput(InputError(str(file), 0, "", "is not UTF-8")) from None
    except OSError as error:
        raise BadInput(InputError(str(file), 0, "", f"can't be read: {error.strerror}")) from None


def _event(line: str, file: str, number: int) -> ExportedEvent:
    try:
        event = from_json(line)
        return ExportedEvent(str(event["type"]), dict(event["data"]), file, number)
    except (ValueError, TypeError, KeyError):
        raise BadInput(InputError(file, number, "", "is no event: a JSON object with `type` and `data`")) from None

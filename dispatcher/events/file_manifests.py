"""The manifest of a period of event files. It is written last: files without a manifest are not complete."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from dispatcher.events.file_columns import DATASETS, SCHEMA_VERSION
from dispatcher.events.file_stores import FileStore

FOLDER = "manifests"
LENGTHS = {"hour": timedelta(hours=1), "day": timedelta(days=1)}
_NAMES = {"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d"}


@dataclass(frozen=True, slots=True)
class Period:
    """An hour or a day in UTC. One begins later where the length was changed within it."""

    name: str
    start: datetime
    end: datetime

    @classmethod
    def at(cls, start: datetime, every: str) -> Period:
        """The period that begins at this time, and ends with the hour or day."""
        start = start.astimezone(UTC)
        return cls(start.strftime(_NAMES[every]), start, floor(start, every) + LENGTHS[every])


def floor(at: datetime, every: str) -> datetime:
    """The start of the hour or day that this time is in."""
    at = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return at if every == "hour" else at.replace(hour=0)


def end_of(name: str) -> datetime | None:
    """When the period of this name ended; None for a name of no period."""
    for every, pattern in _NAMES.items():
        try:
            return datetime.strptime(name, pattern).replace(tzinfo=UTC) + LENGTHS[every]
        except ValueError:
            continue
    return None


@dataclass(frozen=True, slots=True)
class EventFile:
    """A file as its manifest names it. Its events have numbers from `first_sequence` to `last_sequence`."""

    name: str
    dataset: str
    format: str
    rows: int
    bytes: int
    sha256: str
    first_sequence: int
    last_sequence: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of a period. The numbers of its events follow those of the period before; `missing` are ranges of events that
    retention deleted before they were written."""

    period: str
    start: str
    end: str
    first_sequence: int
    last_sequence: int
    files: tuple[EventFile, ...]
    missing: tuple[tuple[int, int], ...] = ()
    schema_version: int = SCHEMA_VERSION

    def rows(self, dataset: str) -> int:
        """The rows of a dataset, by its first format: each format has all rows."""
        formats = sorted({file.format for file in self.files})
        counts = [sum(each.rows for each in self.files if (each.dataset, each.format) == (dataset, one)) for one in formats]
        return max(counts, default=0)

    def view(self) -> dict[str, Any]:
        """The document, with the rows of each dataset."""
        return {**asdict(self), "rows": {dataset.name: self.rows(dataset.name) for dataset in DATASETS}}

    def content(self) -> bytes:
        """The document as it is stored."""
        return json.dumps(self.view(), indent=1).encode() + b"\n"


def parse(content: bytes) -> Manifest:
    """The manifest of a document. Raises ValueError, TypeError, KeyError for one that this program has not written."""
    document: Mapping[str, Any] = json.loads(content)
    fields = {name: value for name, value in document.items() if name != "rows"}
    files = tuple(EventFile(**each) for each in fields.pop("files"))
    missing = tuple((int(first), int(last)) for first, last in fields.pop("missing"))
    return Manifest(**fields, files=files, missing=missing)


def periods(store: FileStore) -> list[str]:
    """The names of all periods that are complete, the oldest first. Raises `StoreError`."""
    names = [name.removesuffix(".json") for name in store.names(FOLDER) if name.endswith(".json")]
    return sorted(name for name in names if end_of(name) is not None)


def manifest_name(period: str) -> str:
    """The name of a period's manifest in the store."""
    return f"{FOLDER}/{period}.json"

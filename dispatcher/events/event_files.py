"""Event files: messages, consent and campaign results of each hour or day, from the feed, in a folder or object storage.

The feed is the only source: its numbers have no gap, so a period is the events between two numbers, nothing is missing and nothing
is in two periods. The ledger would need a time of change in each table, and its rows change later.

Files are written in parts of so many events. A part is written on the local disk, stored as a whole, and then recorded with the
cursor. A worker that is lost leaves at most files that no manifest names; the next one writes them again under the same names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import structlog
from pydantic_core import from_json

from dispatcher.events import event_sinks, file_manifests
from dispatcher.events.event_sinks import SinkId, SinkLease, SinkStatus
from dispatcher.events.file_columns import BY_FAMILY, DATASETS, Dataset
from dispatcher.events.file_manifests import EventFile, Manifest, Period, floor, manifest_name
from dispatcher.events.file_stores import FileStore, StoreError, digest, open_store
from dispatcher.events.file_writers import WRITERS, FileWriter
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.events import stream
from dispatcher.ledger.maintenance import generations
from dispatcher.runtime.event_settings import EventFileSettings
from dispatcher.runtime.services import Services

RUN_SECONDS = 20.0  # of one task; the part that is open then is finished
PART_EVENTS = 250_000  # in one file: some ten seconds, some tens of megabytes of CSV
GRACE = timedelta(seconds=60)  # after a period's end: clocks of two workers can differ
OVERDUE_AFTER = timedelta(minutes=15)  # a task starts each minute, and writes some millions of events in that time

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class OpenPeriod:
    """The period that is being written, as the ledger keeps it: its first event, and its files so far."""

    period: Period
    first: int
    files: tuple[EventFile, ...] = ()
    missing: tuple[tuple[int, int], ...] = ()

    def as_progress(self) -> dict[str, Any]:
        """As JSON."""
        name, start, end = self.period.name, self.period.start.isoformat(), self.period.end.isoformat()
        files = [asdict(file) for file in self.files]
        return {"period": name, "start": start, "end": end, "first": self.first, "files": files, "missing": self.missing}


# -- write -------------------------------------------------------------------------------------------------------------


def write(services: Services, seconds_max: float = RUN_SECONDS) -> list[str]:
    """Write what is due, until nothing is, the store fails or the time is over; returns the periods that were completed."""
    if services.event_files is None or _is_held(services) or (lease := event_sinks.take(services, SinkId.FILES)) is None:
        return []
    end = services.monotonic_clock() + seconds_max
    completed: list[str] = []
    try:
        with lease.attempt():
            try:
                run = FileRun(services, services.event_files, lease, completed)
                while services.monotonic_clock() < end and run.step():
                    pass
            except StoreError as error:
                lease.fail(str(error))
    finally:
        lease.release()
    return completed


def _is_held(services: Services) -> bool:
    """While a restore is not released: the files of the lost time tell which opt-outs the ledger lost, and stay as they are."""
    with lend(services.pool) as connection:
        return generations.is_held(connection)


class FileRun:
    """The work of one task under a lease: part after part, and a manifest at the end of each period."""

    def __init__(self, services: Services, settings: EventFileSettings, lease: SinkLease, completed: list[str]) -> None:
        self._services = services
        self._settings = settings
        self._lease = lease
        self._store = open_store(settings.url)
        self._completed = completed

    def step(self) -> bool:
        """Write one part, or a manifest; False where nothing is due, or the lease was lost."""
        with lend(self._services.pool) as connection:
            current = self._current(connection)
            if current.period.end + GRACE > self._services.clock() or not self._lease.renew(connection):
                return False
            last = max(stream.last_published_before(connection, current.period.end), self._lease.cursor)
        return self._write_part(current, last) if self._lease.cursor < last else self._complete(current)

    def _current(self, connection: Connection) -> OpenPeriod:
        """The open period, or the next one: it follows the one before, or begins with the oldest event that is kept."""
        skipped = self._lease.skip_deleted(connection)
        missing = (skipped,) if skipped else ()
        progress = self._lease.progress
        if "period" in progress:
            period = Period(progress["period"], *(datetime.fromisoformat(progress[name]) for name in ("start", "end")))
            files = tuple(EventFile(**each) for each in progress["files"])
            return OpenPeriod(period, progress["first"], files, (*map(tuple, progress["missing"]), *missing))
        every, cursor = self._settings.every, self._lease.cursor
        if "start" in progress:
            start = datetime.fromisoformat(progress["start"])
        else:
            start = floor(stream.published_at(connection, cursor + 1) or self._services.clock(), every)
        first = skipped[0] if skipped else cursor + 1
        return OpenPeriod(Period.at(start, every), first, (), missing)

    def _write_part(self, current: OpenPeriod, last: int) -> bool:
        end = min(self._lease.cursor + PART_EVENTS, last)
        with TemporaryDirectory(prefix="dispatcher-files-") as folder:
            part = PartWriter(Path(folder), self._settings.formats, current.period.name, (self._lease.cursor + 1, end))
            with lend(self._services.pool) as connection:
                part.write(connection)
                if not self._lease.renew(connection):
                    return False
            files = part.store(self._store)
        added = OpenPeriod(current.period, current.first, (*current.files, *files), current.missing)
        return self._lease.move(end, added.as_progress())

    def _complete(self, current: OpenPeriod) -> bool:
        period = current.period
        manifest = Manifest(
            period=period.name,
            start=period.start.isoformat(),
            end=period.end.isoformat(),
            first_sequence=current.first,
            last_sequence=self._lease.cursor,
            files=current.files,
            missing=current.missing,
        )
        with TemporaryDirectory(prefix="dispatcher-files-") as folder:
            path = Path(folder) / "manifest.json"
            path.write_bytes(manifest.content())
            self._store.put(manifest_name(period.name), path)
        is_held = self._lease.move(self._lease.cursor, {"start": period.end.isoformat()})
        if is_held:
            self._completed.append(period.name)
            log.info("event files", period=period.name, first=manifest.first_sequence, last=manifest.last_sequence)
        return is_held


class PartWriter:
    """The files of one part, on the local disk: one for each dataset and format that has a row."""

    def __init__(self, folder: Path, formats: Sequence[str], period: str, numbers: tuple[int, int]) -> None:
        self._folder = folder
        self._formats = formats
        self._period = period
        self._first, self._last = numbers
        self._writers: dict[tuple[str, str], FileWriter] = {}

    def write(self, connection: Connection) -> None:
        """Read the events from the ledger as they are needed, and write the rows."""
        try:
            with closing(stream.read(connection, self._first - 1, list(BY_FAMILY))) as rows:
                for row in rows:
                    if row.first > self._last:
                        break
                    dataset = BY_FAMILY[row.kind]
                    skipped = max(self._first - row.first, 0)
                    self._add(dataset, row.lines[skipped : self._last - row.first + 1])
        finally:
            for writer in self._writers.values():
                writer.close()

    def _add(self, dataset: Dataset, lines: Iterable[bytes]) -> None:
        writers = [self._writer(dataset, each) for each in self._formats]
        for line in lines:
            values = dataset.values(from_json(line))
            for writer in writers:
                writer.add(values)

    def _writer(self, dataset: Dataset, format_: str) -> FileWriter:
        key = (dataset.name, format_)
        if key not in self._writers:
            self._writers[key] = WRITERS[format_](self._path(*key), dataset.columns)
        return self._writers[key]

    def _path(self, dataset: str, format_: str) -> Path:
        return self._folder / f"{dataset}.{format_}"

    def store(self, store: FileStore) -> list[EventFile]:
        """Put the files into the store."""
        files = []
        for (dataset, format_), writer in self._writers.items():
            path = self._path(dataset, format_)
            name = f"{dataset}/{self._period}/{self._first:020d}.{format_}"
            with path.open("rb") as file:
                sha256 = digest(file)
            store.put(name, path)
            size = path.stat().st_size
            files.append(EventFile(name, dataset, format_, writer.rows, size, sha256, self._first, self._last))
        return files


# -- look --------------------------------------------------------------------------------------------------------------


def manifests(settings: EventFileSettings) -> list[Manifest]:
    """The manifests of all periods, the oldest first. Raises `StoreError`."""
    store = open_store(settings.url)
    found = [_manifest(store, name) for name in file_manifests.periods(store)]
    return sorted(found, key=lambda manifest: (manifest.start, manifest.first_sequence))


def _manifest(store: FileStore, period: str) -> Manifest:
    try:
        return file_manifests.parse(store.read(manifest_name(period)))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise StoreError(f"{manifest_name(period)} is not a manifest of this program") from None


@dataclass(frozen=True, slots=True)
class FileVerification:
    """What a check of the files found."""

    periods: int
    files: int
    faults: tuple[str, ...]


def verify(services: Services, settings: EventFileSettings, period: str | None = None) -> FileVerification:
    """Check that every file is there and unchanged, that no event is missing between periods, and, for events that the feed still
    has, that the rows are as many. Raises `StoreError`."""
    store = open_store(settings.url)
    found = manifests(settings)
    chosen = [each for each in found if period in (None, each.period)]
    faults = [fault for pair in pairwise(found) if period is None for fault in _gap(*pair)]
    for manifest in chosen:
        faults += [f"{file.name}: {damage}" for file in manifest.files if (damage := _damage(store, file))]
        faults += _row_faults(services, manifest)
        faults += [f"{manifest.period}: events {first} to {last} were deleted before" for first, last in manifest.missing]
    return FileVerification(len(chosen), sum(len(each.files) for each in chosen), tuple(faults))


def _gap(before: Manifest, after: Manifest) -> list[str]:
    if after.first_sequence == before.last_sequence + 1:
        return []
    return [f"{after.period} begins with event {after.first_sequence}, but {before.period} ends with {before.last_sequence}"]


def _damage(store: FileStore, file: EventFile) -> str | None:
    found = store.sha256(file.name)
    return "is missing" if found is None else None if found == file.sha256 else "was changed"


def _row_faults(services: Services, manifest: Manifest) -> list[str]:
    with lend(services.pool) as connection:
        if manifest.first_sequence < stream.oldest(connection):
            return []
        counts = stream.count_by_kind(connection, manifest.first_sequence, manifest.last_sequence)
    rows = [(dataset.name, manifest.rows(dataset.name), counts.get(dataset.family, 0)) for dataset in DATASETS]
    return [f"{manifest.period}: {has} rows of {name}, the feed has {wanted}" for name, has, wanted in rows if has != wanted]


def check(services: Services) -> tuple[SinkStatus, str | None]:
    """How far the files are, and the code of an error where the store cannot be reached now."""
    assert services.event_files is not None  # noqa: S101
    status = event_sinks.status(services, SinkId.FILES)
    status = replace(status, overdue=_overdue(services, services.event_files, status))
    try:
        file_manifests.periods(open_store(services.event_files.url))
    except StoreError as error:
        return status, str(error)
    return status, None


def _overdue(services: Services, settings: EventFileSettings, status: SinkStatus) -> str | None:
    """The period that should be complete by now, if one is not. A sink that no worker has taken yet has none."""
    if status.sink is None:
        return None
    progress, now = status.sink.progress, services.clock()
    if "period" in progress:
        name, end = progress["period"], datetime.fromisoformat(progress["end"])
    else:
        if "start" in progress:
            start = datetime.fromisoformat(progress["start"])
        else:
            with lend(services.pool) as connection:
                published_at = stream.published_at(connection, status.sink.cursor + 1)
            start = floor(published_at or now, settings.every)
        period = Period.at(start, settings.every)
        name, end = period.name, period.end
    return name if end + GRACE + OVERDUE_AFTER < now else None


# -- retention ---------------------------------------------------------------------------------------------------------


def overdue(settings: EventFileSettings | None, before: datetime) -> list[str]:
    """The periods that ended before then; none where no files are configured, or the store cannot be reached."""
    if settings is None:
        return []
    try:
        names = file_manifests.periods(open_store(settings.url))
    except StoreError as error:
        log.warning("event files cannot be reached", error=str(error))
        return []
    return [name for name in names if (end := file_manifests.end_of(name)) is not None and end < before]


def delete(settings: EventFileSettings, period: str) -> None:
    """Delete a period: its files, and then its manifest, so that an interrupted deletion is found again. Raises `StoreError`."""
    store = open_store(settings.url)
    for dataset in DATASETS:
        store.delete(f"{dataset.name}/{period}")
    store.delete(manifest_name(period))

"""Uploaded audiences: files that arrive by HTTP, whole or in parts, and are complete or not there for a campaign.

An upload is a folder with `part` (the bytes so far, as they were sent), `upload.json` and, once it is complete, the audience;
and `columns.json` where a person has assigned the columns of a file whose header has other names.
A part is on disk before it is confirmed, so an interrupted upload goes on where it ended. A complete one does not change: a
campaign may be loading from it. Files have mode 0600, because rows are personal data.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from dispatcher.domain.principal import is_same_principal
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.intake.rows import SUFFIXES

TYPES = {
    "application/x-ndjson": ".jsonl",
    "application/jsonl": ".jsonl",
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ".xlsx",
}
UPLOADS = "uploads"  # in the folder of audience files
PART, DRAFT, NOTE, COLUMNS = "part", "unpacked", "upload.json", "columns.json"
GZIP = 31  # zlib's name for gzip with its header
ID = "[A-Za-z0-9][A-Za-z0-9._:-]{0,99}"
PIECE_BYTES = 1024 * 1024
RATIO_FREE_BYTES = 10 * 1024 * 1024  # a small file may unpack to more than the ratio allows: it does no harm


class UploadConflict(Exception):
    """The call does not fit what the upload is by now."""


class UploadTooLarge(Exception):
    """The upload, or what it unpacks to, is larger than the settings allow. Nothing of it is kept."""


class ForeignUpload(BadInput):
    """The upload belongs to somebody else."""


@dataclass(frozen=True, slots=True)
class UploadRange:
    """Which bytes a call brings: `length` (None: unknown) from `start` (-1: from where it is), of `total` (None: unknown yet).
    `is_whole`: all of them, in one call."""

    start: int = 0
    total: int | None = None
    length: int | None = None
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class Upload:
    """How far an upload is. At its end `sha256`, of the bytes as they were sent, and `size`, the unpacked bytes, are set."""

    id: str
    suffix: str  # ".jsonl", ".csv", ".tsv" or ".xlsx"
    is_gzip: bool
    received: int = 0
    total: int | None = None
    sha256: str | None = None
    size: int | None = None
    at: datetime | None = None  # of the last change
    submitted_by: str = ""  # the name of the API key; empty for the command line: then any key may use it

    def is_open_to(self, caller: str) -> bool:
        """Whether this caller may read, use, continue and delete it."""
        return not self.submitted_by or is_same_principal(self.submitted_by, caller)

    @property
    def is_complete(self) -> bool:
        """Whether a campaign can use it."""
        return self.sha256 is not None


@dataclass(frozen=True, slots=True)
class UploadStore:
    """The uploads in a folder of audience files. `bytes_max` limits what is sent and what it unpacks to, `ratio_max` how much
    larger the second is than the first."""

    audiences: Path
    bytes_max: int
    ratio_max: float

    def open(self, upload: Upload, part: UploadRange) -> UploadWriter:
        """Begin an upload, or go on with it. Raises `UploadConflict`, `UploadTooLarge`."""
        if part.total is not None and part.total > self.bytes_max:
            raise UploadTooLarge(self.too_large())
        folder = self.audiences / UPLOADS / upload.id
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = _lock(folder)
        try:
            return UploadWriter(self, folder, lock, upload, part)
        except BaseException:
            os.close(lock)
            raise

    def too_large(self) -> str:
        """What to say of an upload that is too large."""
        return f"an audience may have {self.bytes_max:,} bytes at most"


class UploadWriter:
    """Writes the bytes of one call. `close` keeps what arrived; `finish` completes the upload if it has all its bytes."""

    def __init__(self, store: UploadStore, folder: Path, lock: int, upload: Upload, part: UploadRange) -> None:
        self._store, self._folder, self._lock = store, folder, lock
        self.before = _read(folder)
        self._is_whole = part.is_whole
        if self.before is not None and self.before.is_complete and not part.is_whole:
            raise UploadConflict("it is complete already; another audience needs an id of its own")
        start = part.start if part.is_whole else self._resume(upload, part)
        total = part.total if part.total is not None or part.start == 0 or self.before is None else self.before.total
        self._end = total if part.length is None else start + part.length
        self._start = start
        self._file = _open_part(folder, start)
        self.upload = replace(upload, received=start, total=total)
        if self.before is None or not self.before.is_complete:
            _note(folder, self.upload)

    def _resume(self, upload: Upload, part: UploadRange) -> int:
        """The position to go on at. A part that starts at 0 begins again."""
        if part.start == 0:
            return 0
        before = self.before
        if before is None or part.start not in (before.received, -1):
            raise UploadConflict(f"the next byte is {before.received if before else 0}")
        if (before.suffix, before.is_gzip) != (upload.suffix, upload.is_gzip):
            raise UploadConflict("its parts have different types")
        if None not in (before.total, part.total) and before.total != part.total:
            raise UploadConflict(f"its first part said that it has {before.total} bytes")
        return before.received

    def write(self, data: bytes) -> None:
        """Add bytes. Raises `UploadTooLarge`, `UploadConflict` where there are more than was said."""
        received = self.upload.received + len(data)
        if received > self._store.bytes_max:
            self._discard()
            raise UploadTooLarge(self._store.too_large())
        if self._end is not None and received > self._end:
            self._file.truncate(self._start)  # a refused call changes nothing
            raise UploadConflict(f"the call has more bytes than it says; the next byte is {self._start}")
        self._file.write(data)
        self.upload = replace(self.upload, received=received)

    def finish(self) -> Upload:
        """The upload after this call; complete if all bytes are there. Raises `BadInput`, `UploadTooLarge`, `UploadConflict`."""
        self._file.flush()
        os.fsync(self._file.fileno())
        if self._is_whole:
            self.upload = replace(self.upload, total=self.upload.received)
        if self.upload.received != self.upload.total:
            return self._state()
        part = self._folder / PART
        with part.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if self.before is not None and self.before.is_complete:
            part.unlink()
            if (self.before.sha256, self.before.suffix, self.before.is_gzip) != (sha256, self.upload.suffix, self.upload.is_gzip):
                raise UploadConflict("this id has another audience already; give this one an id of its own")
            return self.before
        try:
            size = self._unpack(part)
        except (BadInput, UploadTooLarge):
            self._discard()
            raise
        self.upload = replace(self.upload, sha256=sha256, size=size)
        _note(self._folder, self.upload)  # from here on a campaign can use it
        part.unlink(missing_ok=True)
        return self._state()

    def close(self) -> None:
        """Keep what arrived, and let another call go on."""
        with suppress(OSError):  # such as a full disk: what could not be written counts as not received
            self._file.flush()
            os.fsync(self._file.fileno())
        with suppress(OSError):
            self._file.close()
        if self.before is not None and self.before.is_complete:
            (self._folder / PART).unlink(missing_ok=True)
        with suppress(OSError):
            os.close(self._lock)

    def _state(self) -> Upload:
        return _read(self._folder) or self.upload

    def _unpack(self, part: Path) -> int:
        """Put the audience where campaigns read it; returns its size."""
        target = self._folder / f"audience{self.upload.suffix}"
        if not self.upload.is_gzip:
            part.replace(target)
            return self.upload.received
        draft = self._folder / DRAFT
        with part.open("rb") as packed, _create(draft) as file:
            for data in self._unpacked(packed):
                file.write(data)
            size = file.tell()
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
        return size

    def _unpacked(self, packed: IO[bytes]) -> Iterator[bytes]:
        unpacker, size, is_open = zlib.decompressobj(wbits=GZIP), 0, False
        size_max = min(self._store.bytes_max, max(RATIO_FREE_BYTES, int(self._store.ratio_max * self.upload.received)))
        data = packed.read(PIECE_BYTES)
        try:
            while data:
                piece = unpacker.decompress(data, PIECE_BYTES)
                is_open = not unpacker.eof
                size += len(piece)
                if size > size_max:
                    raise UploadTooLarge(f"it unpacks to more than {size_max:,} bytes")
                yield piece
                data = unpacker.unconsumed_tail
                if unpacker.eof:
                    data, unpacker = unpacker.unused_data, zlib.decompressobj(wbits=GZIP)  # gzip files can be joined
                data = data or packed.read(PIECE_BYTES)
        except zlib.error:
            raise _bad("is not gzip, or was damaged on its way") from None
        if is_open:
            raise _bad("ends within its gzip data")

    def _discard(self) -> None:
        """Forget the bytes of an upload that is refused. A complete audience under its id stays."""
        (self._folder / PART).unlink(missing_ok=True)
        (self._folder / DRAFT).unlink(missing_ok=True)
        if self.before is None or not self.before.is_complete:
            (self._folder / NOTE).unlink(missing_ok=True)


def is_id(text: str) -> bool:
    """Whether this can be the id of an upload, and so the name of its folder."""
    return re.fullmatch(ID, text, re.ASCII) is not None


def suffix_of(upload_id: str, content_type: str) -> str | None:
    """The kind of file, by its media type or else by the ending of its id; None where neither says it."""
    known = TYPES.get(content_type.partition(";")[0].strip().lower())
    ending = Path(upload_id.removesuffix(".gz")).suffix.lower()
    return known or (ending if ending in SUFFIXES else None)


def find(audiences: Path, upload_id: str) -> Upload | None:
    """The upload of this id."""
    return _read(audiences / UPLOADS / upload_id)


def every(audiences: Path) -> list[Upload]:
    """All uploads, by id."""
    folder = audiences / UPLOADS
    names = sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []
    return [upload for upload in (_read(folder / name) for name in names) if upload is not None]


def path_of(audiences: Path, upload_id: str, caller: str | None = None) -> Path:
    """The file of a complete upload that this caller may use; None may use any. Raises BadInput."""
    upload = find(audiences, upload_id)
    if upload is not None and caller is not None and not upload.is_open_to(caller):
        message = f"upload {upload_id!r} belongs to {upload.submitted_by}, who alone can use it"
        raise ForeignUpload(InputError("campaign", 0, "audience.upload", message))
    if upload is None:
        raise _bad(f"there is no upload {upload_id!r}: put it to /v1/audiences first", "campaign", "audience.upload")
    if not upload.is_complete:
        message = f"upload {upload_id!r} is not complete: {upload.received} of {upload.total or 'its'} bytes have arrived"
        raise _bad(message, "campaign", "audience.upload")
    return audiences / UPLOADS / upload_id / f"audience{upload.suffix}"


def assign_columns(audiences: Path, upload_id: str, columns: Sequence[str]) -> None:
    """Name the columns of a complete upload by their position, in place of its header; none: the header counts again.

    Call it before a campaign loads from the upload. Raises BadInput.
    """
    file = path_of(audiences, upload_id).with_name(COLUMNS)
    if not columns:
        file.unlink(missing_ok=True)
        return
    draft = file.with_name(f"{COLUMNS}.new")
    with _create(draft) as opened:
        opened.write(json.dumps(list(columns)).encode())
    draft.replace(file)


def assigned_columns(path: Path) -> tuple[str, ...]:
    """The columns that were assigned to the upload with this file; none for any other file."""
    if path.parent.parent.name != UPLOADS:
        return ()
    try:
        return tuple(json.loads(path.with_name(COLUMNS).read_bytes()))
    except FileNotFoundError:
        return ()


def delete(audiences: Path, upload_id: str) -> bool:
    """Delete an upload; False where there is none. Raises `UploadConflict` while a call writes it."""
    folder = audiences / UPLOADS / upload_id
    if not folder.is_dir():
        return False
    lock = _lock(folder)
    try:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
    return True


def overdue(audiences: Path, before: datetime) -> list[str]:
    """The ids of uploads of which nothing has changed since then, complete or not."""
    folder = audiences / UPLOADS
    if not folder.is_dir():
        return []
    return sorted(each.name for each in folder.iterdir() if each.is_dir() and _changed_at(each) < before)


def _changed_at(folder: Path) -> datetime:
    times = [folder.stat().st_mtime, *(each.stat().st_mtime for each in folder.iterdir())]
    return datetime.fromtimestamp(max(times), UTC)


def _lock(folder: Path) -> int:
    """A lock on an upload, which belongs to the returned descriptor."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise UploadConflict("another call is writing it") from None
    return lock


def _create(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


def _open_part(folder: Path, start: int) -> IO[bytes]:
    file = os.fdopen(os.open(folder / PART, os.O_WRONLY | os.O_CREAT, 0o600), "wb")
    file.truncate(start)
    file.seek(start)
    return file


def _note(folder: Path, upload: Upload) -> None:
    """Write `upload.json` in one step."""
    kept = {name: value for name, value in asdict(upload).items() if name not in ("id", "received", "at")}
    draft = folder / f"{NOTE}.new"
    with _create(draft) as file:
        file.write(json.dumps(kept).encode())
        file.flush()
        os.fsync(file.fileno())
    draft.replace(folder / NOTE)


def _read(folder: Path) -> Upload | None:
    """The upload as the folder has it. How many bytes have arrived is the size of `part`."""
    try:
        noted = json.loads((folder / NOTE).read_bytes())
        upload = Upload(folder.name, at=_changed_at(folder), **noted)
    except (OSError, ValueError, TypeError):
        return None
    if upload.is_complete:
        return replace(upload, received=upload.total or 0)
    part = folder / PART
    return replace(upload, received=part.stat().st_size if part.exists() else 0)


def _bad(message: str, file: str = "upload", field: str = "") -> BadInput:
    return BadInput(InputError(file, 0, field, message))

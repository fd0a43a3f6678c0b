"""Where event files go: a folder, or object storage by fsspec. A file is there as a whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

BLOCK_BYTES = 1 << 20


class StoreError(Exception):
    """The store failed. The text is a code: an error of a store can name keys and hosts."""


class FileStore(Protocol):
    """A store of files, by names such as `messages/2026-11-29/1.csv`. Each method raises `StoreError`."""

    def put(self, name: str, source: Path) -> None:
        """Store a file from the local disk, in one step."""

    def read(self, name: str) -> bytes:
        """The content of a small file."""

    def sha256(self, name: str) -> str | None:
        """The SHA-256 of a file; None where there is none."""

    def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted, without the folder; none where it is missing."""

    def delete(self, name: str) -> None:
        """Delete a file or a folder, if it is there."""


def open_store(url: str) -> FileStore:
    """The store of a setting: a folder, or a URL."""
    if "://" not in url:
        return FolderStore(Path(url))
    parts = urlsplit(url)
    return FolderStore(Path(unquote(parts.path))) if parts.scheme == "file" else ObjectStore(url)


class FolderStore:
    """A folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, name: str, source: Path) -> None:
        """Copy under another name, and rename: readers skip names with a dot. A power cut leaves the old state or the new one."""
        path = self._root / name
        with _errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as copy:
                with source.open("rb") as file:
                    shutil.copyfileobj(file, copy, BLOCK_BYTES)
                copy.flush()
                Path(copy.name).chmod(0o640)
                os.fsync(copy.fileno())
            Path(copy.name).replace(path)

    def read(self, name: str) -> bytes:
        """The content of a file."""
        with _errors():
            return (self._root / name).read_bytes()

    def sha256(self, name: str) -> str | None:
        """The SHA-256 of a file; None where there is none."""
        with _errors(), suppress(FileNotFoundError), (self._root / name).open("rb") as file:
            return digest(file)
        return None

    def names(self, folder: str) -> list[str]:
        """The names in a folder, but those that begin with a dot."""
        with _errors(), suppress(FileNotFoundError):
            return sorted(path.name for path in (self._root / folder).iterdir() if not path.name.startswith("."))
        return []

    def delete(self, name: str) -> None:
        """Delete a file or a folder."""
        path = self._root / name
        with _errors():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


class ObjectStore:
    """Object storage, or any other file system that fsspec knows. An object appears when its upload is complete."""

    def __init__(self, url: str) -> None:
        with _errors():
            from fsspec.core import url_to_fs

            self._files, root = url_to_fs(url, use_listings_cache=False)
            self._root = root.rstrip("/")

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def put(self, name: str, source: Path) -> None:
        """Upload a file."""
        path = self._path(name)
        with _errors():
            try:
                self._files.put_file(str(source), path)
            except FileNotFoundError:  # a file system with folders
                self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
                self._files.put_file(str(source), path)

    def read(self, name: str) -> bytes:
        """The content of a file."""
        with _errors():
            return bytes(self._files.cat_file(self._path(name)))

    def sha256(self, name: str) -> str | None:
        """The SHA-256 of a file; None where there is none."""
        with _errors(), suppress(FileNotFoundError), self._files.open(self._path(name), "rb") as file:
            return digest(file)
        return None

    def names(self, folder: str) -> list[str]:
        """The names in a folder."""
        with _errors(), suppress(FileNotFoundError):
            found = self._files.ls(self._path(folder), detail=False)
            return sorted(name for path in found if (name := path.rstrip("/").rpartition("/")[2]) and not name.startswith("."))
        return []

    def delete(self, name: str) -> None:
        """Delete a file or a folder."""
        with _errors(), suppress(FileNotFoundError):
            self._files.rm(self._path(name), recursive=True)


def digest(file: BinaryIO | Any) -> str:
    """The SHA-256 of a file that is open."""
    found = hashlib.sha256()
    while block := file.read(BLOCK_BYTES):
        found.update(block)
    return found.hexdigest()


@contextmanager
def _errors() -> Iterator[None]:
    """Each file system of fsspec raises errors of its own libraries."""
    try:
        yield
    except Exception as error:
        raise StoreError(type(error).__name__) from None

"""Base backups of the embedded PostgreSQL, by its own programs: the data folder and the write-ahead log that makes it consistent.

The server goes on working meanwhile.
"""

from __future__ import annotations

import os
import pwd
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dispatcher.embedded import account, postgres
from dispatcher.embedded.daemon import EngineError
from dispatcher.embedded.postgres import BIN, ROLE, STAGED
from dispatcher.embedded.refcount_lock import without_users

STAGED_BACKUP = "backup.partial"
DATA_FILE, LOG_FILE = "base.tar.gz", "pg_wal.tar.gz"
MANIFEST_FILE = "backup_manifest"  # PostgreSQL's own, with the checksum of each file inside


def write(home: Path, sockets: Path) -> Path:
    """Write a backup of the running server to a folder of `home`, and return that folder. Raises `EngineError`."""
    folder, owner = home / STAGED_BACKUP, account.owner(home / "postgres")
    shutil.rmtree(folder, ignore_errors=True)
    account.make_folder(folder, owner)
    options = ["-Ft", "--compress=gzip:1", "-X", "stream", "--checkpoint=fast", "--manifest-checksums=SHA256", "--no-password"]
    try:
        account.run([BIN / "pg_basebackup", "-h", sockets, "-U", ROLE, "-D", folder, *options], owner, folder)
    except EngineError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    for path in (folder, *folder.iterdir()):
        if os.geteuid() == 0:
            os.chown(path, 0, 0)
        path.chmod(0o700 if path is folder else 0o600)
    return folder


def extract(home: Path, backup: Path) -> Path:
    """Unpack a backup beside the data folder, and return the new data folder. Raises `EngineError`."""
    data = home / STAGED
    shutil.rmtree(data, ignore_errors=True)
    owner = account.owner(data)
    account.make_folder(data, owner)
    try:
        for name, folder in ((DATA_FILE, data), (LOG_FILE, data / "pg_wal")):
            with tarfile.open(backup / name) as archive:
                archive.extractall(folder, filter="data")
    except (OSError, tarfile.TarError) as error:
        shutil.rmtree(data, ignore_errors=True)
        raise EngineError(f"{backup} can't be unpacked: {error}") from None
    (data / "socket-folder").unlink(missing_ok=True)  # of the server that was backed up
    for path in (data, *data.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
        account.change_owner(path, owner)
    return data


def swap(home: Path, data: Path, kept_as: str) -> Path | None:
    """Put a new data folder in the place of the present one, which gets another name; returns its path, if there was one."""
    (data / "socket-folder").unlink(missing_ok=True)
    present, kept = home / "postgres", home / kept_as
    has_present = present.exists()
    if has_present:
        present.rename(kept)
    data.rename(present)
    return kept if has_present else None


def verify(backup: Path) -> None:
    """Check the files of a backup against PostgreSQL's manifest. Raises `EngineError`."""
    account.allow_reading(*postgres.INSTALLED)
    owner = pwd.getpwuid(os.geteuid())
    account.run([BIN / "pg_verifybackup", "--format=tar", "--no-parse-wal", "--quiet", backup], owner, backup)


@contextmanager
def stopped(home: Path) -> Iterator[None]:
    """Keep every process from using the embedded PostgreSQL while the block runs. Raises `EngineError` where one uses it now."""
    with without_users(account.make_home(home) / "postgres.lock") as is_unused:
        if not is_unused:
            raise EngineError(f"the database in {home} is in use: stop `dispatcher up`, workers, beat and web first")
        if postgres.server(home / "postgres") is not None:
            raise EngineError(f"PostgreSQL runs in {home / 'postgres'}: start and stop any command to stop it, then try again")
        yield

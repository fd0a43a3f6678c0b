"""Backups of the embedded PostgreSQL: write one while everything runs, check it, restore it.

A backup is a folder: PostgreSQL's base backup, and `backup.json` with what is in it and the SHA-256 of each file. It is complete
when the folder has its final name. It holds personal data, and not the secret keys.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dispatcher.domain.derived_keys import KeyRing, fingerprint
from dispatcher.embedded import EngineError, base_backup, postgres
from dispatcher.ledger import secret_keys
from dispatcher.ledger.connection import connect_once
from dispatcher.ledger.maintenance import backup_facts, generations
from dispatcher.ledger.migrations import HEAD, migrate
from dispatcher.runtime.ledger_watch import RESTORE_COMMAND, LedgerWatch
from dispatcher.runtime.settings import Settings

FORMAT, CONTENTS = 1, "backup.json"
BASE = "base"  # PostgreSQL's own check wants a folder with nothing but its files
NAME = re.compile(r"ledger-\d{8}T\d{6}Z")
FILES = (base_backup.DATA_FILE, base_backup.LOG_FILE, base_backup.MANIFEST_FILE)
LOOK_EVERY_SECONDS = 0.2
BLOCK_BYTES = 1 << 20

Report = Callable[[int, int], None]  # bytes so far, and in all


class BackupError(Exception):
    """A backup cannot be written, is damaged, or does not fit; the message says why and what to do. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Backup:
    """A complete backup and what its `backup.json` says."""

    folder: Path
    contents: dict[str, Any]

    @property
    def bytes(self) -> int:
        """Its size on disk."""
        return sum(path.stat().st_size for path in self.folder.rglob("*"))


# -- write -------------------------------------------------------------------------------------------------------------


def write(config: Settings, database_url: str, target: Path, keep: int | None, report: Report) -> tuple[Backup, list[Path]]:
    """Write a backup into a new folder of `target`, then delete all but the newest `keep`; returns it, and what was deleted.

    Raises `BackupError`, `EngineError`.
    """
    _require_embedded(config)
    home = config.home.expanduser().resolve()
    with connect_once(database_url) as connection:
        facts = backup_facts.facts(connection)
    staged = _stage(home, database_url, report)
    contents = {
        "format": FORMAT,
        **asdict(facts),
        "keys": list(facts.keys),
        "at": facts.at.astimezone(UTC).isoformat(timespec="seconds"),
        "files": {name: _sha256(staged / name) for name in FILES},
    }
    name = f"ledger-{facts.at.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    try:
        folder = _publish(staged, target, name, contents)
    except OSError as error:
        raise BackupError(f"{target}: the backup can't be written there: {error.strerror}") from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return Backup(folder, contents), _delete_old(target, keep)


def _stage(home: Path, url: str, report: Report) -> Path:
    """Let PostgreSQL write the backup in the home folder, which its account may write to."""
    (sockets,) = parse_qs(urlsplit(url).query)["host"]
    with ThreadPoolExecutor(1) as executor, connect_once(url) as connection:
        written = executor.submit(base_backup.write, home, Path(sockets))
        while not written.done():
            report(*backup_facts.progress(connection))
            time.sleep(LOOK_EVERY_SECONDS)
        return written.result()


def _publish(staged: Path, target: Path, name: str, contents: dict[str, Any]) -> Path:
    """Move the files to the target. The folder gets its name last, so that an interrupted backup does not look complete."""
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft, folder = target / f".{name}.partial", target / name
    if folder.exists():
        raise BackupError(f"{folder} exists already: wait a second, then try again")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    (draft / BASE).mkdir(mode=0o700)
    for file in FILES:
        shutil.move(staged / file, draft / BASE / file)
    (draft / CONTENTS).touch(mode=0o600)
    (draft / CONTENTS).write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")
    draft.rename(folder)
    return folder


def _delete_old(target: Path, keep: int | None) -> list[Path]:
    if keep is None:
        return []
    complete = sorted(path for path in target.iterdir() if NAME.fullmatch(path.name) and (path / CONTENTS).is_file())
    old = complete[:-keep]
    for folder in old:
        shutil.rmtree(folder)
    return old


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


# -- check -------------------------------------------------------------------------------------------------------------


def verify(folder: Path) -> Backup:
    """Check that a backup is complete and undamaged. Raises `BackupError`."""
    try:
        contents = json.loads((folder / CONTENTS).read_text(encoding="utf-8"))
        files = dict(contents["files"])
        version = contents["format"]
    except OSError as error:
        raise BackupError(f"{folder} is no backup: {CONTENTS} can't be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError):
        raise BackupError(f"{folder / CONTENTS} is damaged") from None
    if version != FORMAT:
        raise BackupError(f"{folder} has the format {version}; this program reads {FORMAT}: use the version that wrote it")
    for name in FILES:
        try:
            is_sound = _sha256(folder / BASE / name) == files.get(name)
        except OSError as error:
            raise BackupError(f"{folder / BASE / name} can't be read: {error.strerror}") from None
        if not is_sound:
            raise BackupError(f"{folder / BASE / name} is damaged: its SHA-256 is not the one in {CONTENTS}")
    try:
        base_backup.verify(folder / BASE)
    except EngineError as error:
        raise BackupError(f"{folder} is damaged: {error}") from None
    return Backup(folder, contents)


# -- restore -----------------------------------------------------------------------------------------------------------


def restore(config: Settings, folder: Path, replace: bool) -> tuple[Backup, Path | None]:
    """Restore a backup into the embedded PostgreSQL, held; returns it, and where the former data is now.

    The backup is unpacked, started, migrated and held beside the present data. Only then the folders are swapped: an error before
    leaves everything as it was. Raises `BackupError`, `EngineError`, `KeyMismatch`, `LedgerUnavailable`.
    """
    _require_embedded(config)
    home, secret = config.home.expanduser().resolve(), KeyRing.parse(config.secret_key)
    with base_backup.stopped(home):
        if (home / "postgres" / "PG_VERSION").exists() and not replace:
            raise BackupError(f"{home / 'postgres'} has a ledger already: --replace puts it aside")
        backup = verify(folder)
        _require_fitting(backup, secret)
        now = datetime.now(UTC)
        data = base_backup.extract(home, folder / BASE)
        try:
            _hold(data, secret, LedgerWatch(home), now)
        except BaseException:
            postgres.stop(data)
            shutil.rmtree(data, ignore_errors=True)
            raise
        postgres.stop(data)
        return backup, base_backup.swap(home, data, f"postgres.before-{now:%Y%m%dT%H%M%SZ}")


def _hold(data: Path, secret: KeyRing, watch: LedgerWatch, now: datetime) -> None:
    url = postgres.start(data)
    migrate(url)
    with connect_once(url) as connection:
        secret_keys.check_keys(connection, secret)
        watch.hold(connection, RESTORE_COMMAND, now, generations.identity(connection).place, watch.newest())


def _require_embedded(config: Settings) -> None:
    if config.database_url is not None:
        raise BackupError(
            "DISPATCHER_DATABASE_URL names a database of your own: back it up and restore it with PostgreSQL's programs;"
            " a restore is noticed"
        )


def _require_fitting(backup: Backup, secret: KeyRing) -> None:
    contents = backup.contents
    if contents["major"] != postgres.MAJOR:
        raise BackupError(
            f"{backup.folder} is of PostgreSQL {contents['major']}; this program has {postgres.MAJOR}:"
            " restore it with the version of this program that wrote it, then upgrade"
        )
    if str(contents["revision"]) > HEAD:
        raise BackupError(
            f"{backup.folder} is of a newer version of this program: its schema is {contents['revision']}, ours {HEAD}"
        )
    ours = {fingerprint(key).hex() for key in secret}
    missing: Sequence[str] = [key[:8] for key in contents["keys"] if key not in ours]
    if missing:
        raise BackupError(
            f"DISPATCHER_SECRET_KEY, or secret.key in DISPATCHER_HOME, lacks the key {' and '.join(missing)} that the ledger in"
            f" {backup.folder} was written with: add it"
        )

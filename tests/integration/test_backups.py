"""Backups of the embedded PostgreSQL: complete, checked, and restored as a whole or not at all."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.campaigns import submission
from dispatcher.domain.derived_keys import KeyRing
from dispatcher.embedded import EngineError, engines
from dispatcher.intake.campaign import parse_campaign
from dispatcher.ledger import secret_keys
from dispatcher.ledger.connection import lend
from dispatcher.ledger.migrations import migrate
from dispatcher.maintenance import backups, restores
from dispatcher.maintenance.backups import CONTENTS, Backup, BackupError
from dispatcher.runtime.ledger_watch import RESTORE_COMMAND, LedgerWatch
from dispatcher.runtime.services import Services
from dispatcher.runtime.settings import Settings
from tests.support.services import add_people, make_services, outbox, person, states, work

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
SECRET = "a-secret-of-the-tests-that-is-long-enough"
BROKER = "redis://127.0.0.1:1/0"  # not started: nothing here needs it


@pytest.fixture
def home() -> Iterator[Path]:
    """Not below pytest's folder: each run of pytest closes that to other accounts, such as that of the engines."""
    with tempfile.TemporaryDirectory(prefix="dispatcher-backups-") as folder:
        yield Path(folder)


def settings(home: Path, secret: str = SECRET, **variables: str) -> Settings:
    return Settings.from_environment({"DISPATCHER_HOME": str(home), "DISPATCHER_SECRET_KEY": secret, **variables})


def submit(services: Services, campaign_id: str, *people: str) -> None:
    form = {
        "id": campaign_id,
        "template": "loan_offer",
        "channels": ["email"],
        "audience": [{"recipient": each, "data": OFFER} for each in people],
    }
    submission.submit(services, parse_campaign(form, submission.validation_context(services)))


def write(home: Path, url: str, target: Path, keep: int | None = None) -> Backup:
    return backups.write(settings(home), url, target, keep, lambda _done, _total: None)[0]


def test_a_restored_backup_is_held_and_errors_change_nothing(home: Path, tmp_path: Path) -> None:
    target = tmp_path / "backups"
    with engines(home, broker_url=BROKER) as running:
        url = running.database_url
        migrate(url)
        with make_services(url) as services:
            with lend(services.pool) as connection:
                secret_keys.check_keys(connection, services.secret)
            add_people(services, person("c-1", 1), person("c-2", 2))
            submit(services, "spring", "c-1")
            work(services)
            submit(services, "summer", "c-2")
            backup = write(home, url, target)
            work(services)
            assert states(services, "summer") == {"accepted": 1}
            with pytest.raises(EngineError, match="is in use"):
                backups.restore(settings(home), backup.folder, replace=True)
    modes = {path.stat().st_mode & 0o777 for path in backup.folder.rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert SECRET not in (backup.folder / CONTENTS).read_text()
    for config, replace, message in (
        (settings(home), False, "has a ledger already: --replace"),
        (settings(home, "another-secret-that-is-long-enough-too"), True, "lacks the key"),
        (settings(home, DISPATCHER_DATABASE_URL="postgresql://db/ledger"), True, "database of your own"),
    ):
        with pytest.raises(BackupError, match=message):
            backups.restore(config, backup.folder, replace)
    for field, value, message in (("major", 17, "is of PostgreSQL 17"), ("revision", "9999", "newer version of this program")):
        contents = (backup.folder / CONTENTS).read_text()
        (backup.folder / CONTENTS).write_text(json.dumps({**json.loads(contents), field: value}))
        with pytest.raises(BackupError, match=message):
            backups.restore(settings(home), backup.folder, replace=True)
        (backup.folder / CONTENTS).write_text(contents)
    assert sorted(path.name for path in home.iterdir() if path.is_dir()) == ["postgres"]

    _, kept = backups.restore(settings(home), backup.folder, replace=True)
    assert kept is not None
    assert kept.is_dir()
    with engines(home, broker_url=BROKER) as running, make_services(running.database_url) as services:
        restore = restores.status(services)
        assert restore is not None
        assert (restore.is_held, restore.generation.cause) == (True, RESTORE_COMMAND)
        assert [each.work.campaign_id for each in restore.works] == ["summer"]
        work(services)
        assert outbox(services).sent == []
        with lend(services.pool) as connection:
            secret_keys.check_keys(connection, KeyRing.parse(SECRET))
            assert LedgerWatch(home).check(connection, services.clock())


def test_a_damaged_backup_is_refused_and_old_ones_are_deleted(home: Path, tmp_path: Path) -> None:
    target = tmp_path / "backups"
    with engines(home, broker_url=BROKER) as running:
        migrate(running.database_url)
        older = target / "ledger-20200101T000000Z"
        older.mkdir(parents=True)
        (older / CONTENTS).touch()
        (target / "ledger-notes").mkdir()
        backup = write(home, running.database_url, target, keep=1)
    assert sorted(path.name for path in target.iterdir()) == [backup.folder.name, "ledger-notes"]
    assert backups.verify(backup.folder).contents == backup.contents
    file = backup.folder / "base" / "base.tar.gz"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(BackupError, match="SHA-256"):
        backups.verify(backup.folder)
    file.unlink()
    with pytest.raises(BackupError, match="can't be read"):
        backups.verify(backup.folder)
    (backup.folder / CONTENTS).write_text("{}")
    with pytest.raises(BackupError, match="is damaged"):
        backups.verify(backup.folder)
    with pytest.raises(BackupError, match="is no backup"):
        backups.verify(target / "ledger-notes")

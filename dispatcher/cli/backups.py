"""`dispatcher backup …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dispatcher.cli.identity import open_for
from dispatcher.cli.output import REFUSED, Json, err, fail, out, pairs, plural, print_json, progress
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.principal import Right
from dispatcher.maintenance import backups
from dispatcher.maintenance.backups import Backup, BackupError
from dispatcher.runtime import bootstrap

app = typer.Typer(help="Back up the embedded database while everything runs, and check backups.", no_args_is_help=True)


@app.command()
def create(
    target: Annotated[Path, typer.Argument(help="The folder that gets the new backup, as a folder of its own.")],
    keep: Annotated[int | None, typer.Option(min=1, help="Delete all but so many of the newest backups there.")] = None,
    as_json: Json = False,
) -> None:
    """Write a backup of the embedded database. It holds personal data, and not the secret keys."""
    open_for(Right.OPERATE, act=AuditNote(AuditAction.EXPORT, "backup"))
    settings, url = bootstrap.settings(), bootstrap.joined_engines().database_url
    try:
        with progress("backing up", None) as (bar, task):
            backup, deleted = backups.write(
                settings, url, target, keep, lambda done, total: bar.update(task, completed=done, total=total or None)
            )
    except BackupError as error:
        fail(str(error), REFUSED)
    if as_json:
        print_json({**backup_view(backup), "deleted": [str(folder) for folder in deleted]})
        return
    print_backup(backup)
    if deleted:
        err.print(f"deleted: {plural(len(deleted), 'older backup')}", markup=False)
    out.print("keep the secret keys elsewhere: without them this backup cannot be used", markup=False)


@app.command()
def verify(backup: Annotated[Path, typer.Argument(help="The folder of one backup.")], as_json: Json = False) -> None:
    """Check that a backup is complete and undamaged. Exit 1 where it is not."""
    try:
        checked = backups.verify(backup)
    except BackupError as error:
        fail(str(error), REFUSED)
    if as_json:
        print_json(backup_view(checked))
    else:
        print_backup(checked)


def backup_view(backup: Backup) -> dict[str, Any]:
    """A backup as JSON."""
    contents = backup.contents
    return {
        "backup": str(backup.folder),
        "at": contents["at"],
        "bytes": backup.bytes,
        "postgresql": contents["major"],
        "schema": contents["revision"],
        "policy": contents["policy"],
        "keys": [key[:8] for key in contents["keys"]],
        "events": contents["events"],
    }


def print_backup(backup: Backup) -> None:
    """Print a backup for people."""
    pairs("", backup_view(backup))

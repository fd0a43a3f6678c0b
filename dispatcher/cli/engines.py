"""`dispatcher engines …`: the embedded engines' own data."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dispatcher.cli.output import REFUSED, Json, err, fail, out, print_json
from dispatcher.embedded import postgres_upgrade
from dispatcher.runtime import bootstrap

app = typer.Typer(help="Upgrade the embedded PostgreSQL to a new major version.", no_args_is_help=True)


@app.command()
def upgrade(
    programs: Annotated[Path | None, typer.Option(help="The folder with pg_ctl of the old major version.")] = None,
    as_json: Json = False,
) -> None:
    """Convert the data of an older major version by dump and restore. The old data stays beside it, as `postgres.old-N`."""
    result = postgres_upgrade.upgrade(_home(), programs, lambda text: err.print(text, markup=False))
    if as_json:
        print_json({"upgraded": None if result is None else {**asdict(result), "old_folder": str(result.old_folder)}})
    elif result is None:
        out.print("there is nothing to upgrade")
    else:
        out.print(
            f"PostgreSQL {result.old_major} -> {result.new_major}: {result.tables} tables, {result.rows:,} rows. The old data is in"
            f" {result.old_folder}: start, run `dispatcher ledger verify`, then delete it with `dispatcher engines delete-old`",
            markup=False,
        )


@app.command("delete-old")
def delete_old(as_json: Json = False) -> None:
    """Delete the data that upgrades have put aside. There is no way back to the old major version then."""
    folders = [str(folder) for folder in postgres_upgrade.delete_old(_home())]
    if as_json:
        print_json({"deleted": folders})
    else:
        out.print(f"deleted: {', '.join(folders)}" if folders else "there is no old data", markup=False)


def _home() -> Path:
    settings = bootstrap.settings()
    if settings.database_url is not None:
        fail("DISPATCHER_DATABASE_URL names a database of your own: upgrade it with the tools of its server", REFUSED)
    return settings.home.expanduser().resolve()

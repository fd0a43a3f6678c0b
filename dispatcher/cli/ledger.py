"""`dispatcher ledger …`."""

from __future__ import annotations

from typing import Annotated

import typer

from dispatcher.cli.output import REFUSED, Json, err, out, print_json, rows
from dispatcher.maintenance import ledger_audit, retention
from dispatcher.runtime import bootstrap
from dispatcher.web.serializers.retention import retention_view

app = typer.Typer(help="Check the ledger, and how long its data is kept.", no_args_is_help=True)


@app.command()
def verify(as_json: Json = False) -> None:
    """Check balances, lost claims, decision skeletons and the chain of consent events: everything that must never be wrong."""
    errors = ledger_audit.verify(bootstrap.services())
    if as_json:
        print_json({"findings": errors})
    elif errors:
        for error in errors:
            err.print(error, markup=False)
    else:
        out.print("nothing is wrong: balances add up, no claim is lost, the consent chain is complete")
    if errors:
        raise typer.Exit(REFUSED)


@app.command()
def migrate(
    end_upgrade: Annotated[
        bool, typer.Option("--end-upgrade", help="No older version runs any more: refuse them, and write what they cannot read.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Bring the schema to this version, and check the secret key. Run it as the owner, before the processes of a new version; and
    with --end-upgrade after the last process of the old version has ended."""
    bootstrap.check_ledger_keys(bootstrap.settings())
    if end_upgrade:
        bootstrap.end_upgrade()
    if as_json:
        print_json({"migrated": True})
    else:
        out.print("the schema is that of this version, and the secret key is the right one")


@app.command()
def roles(as_json: Json = False) -> None:
    """Create the database roles with fewer rights, for Celery workers and for readers, and grant these. Run it as the owner."""
    created = bootstrap.create_roles()
    if as_json:
        print_json({"roles": created})
    else:
        rows("", ("role", "for"), list(created.items()))


@app.command("retention")
def show_retention(
    clear: Annotated[bool, typer.Option("--clear", help="Delete now what is due, instead of within the hour.")] = False,
    as_json: Json = False,
) -> None:
    """Show how long the policy keeps each class of data, and how much of it is due for deletion. Deletes only with --clear."""
    services = bootstrap.services()
    if clear:
        for result in retention.clear(services):
            if result.cleared:
                err.print(f"cleared: {result.cleared} x {result.data.what}", markup=False)
    backlogs = retention.backlogs(services)
    if as_json:
        print_json([retention_view(backlog) for backlog in backlogs])
    else:
        lines = [(each.data.what, str(each.kept_for), each.before.isoformat(timespec="seconds"), each.overdue) for each in backlogs]
        rows("", ("what", "kept for", "older than", "due"), lines)

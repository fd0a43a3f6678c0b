"""`dispatcher ledger …`."""

from __future__ import annotations

from typing import Annotated

import typer

from dispatcher.cli.output import REFUSED, Json, err, out, print_json, rows
from dispatcher.ledger.connection import lend
from dispatcher.ledger.maintenance import audit
from dispatcher.maintenance import retention as keeping
from dispatcher.runtime import bootstrap
from dispatcher.web.serializers import retention_view

app = typer.Typer(help="Check the record, and how long it is kept.", no_args_is_help=True)


@app.command()
def verify(as_json: Json = False) -> None:
    """Balances, lost claims, and the chain of consent events: everything that should never be wrong."""
    services = bootstrap.services()
    with lend(services.pool) as connection:
        findings = audit.verify(connection, services.secret, services.clock(), services.engine.lease_seconds)
    if as_json:
        print_json({"findings": findings})
    elif findings:
        for finding in findings:
            err.print(finding, markup=False)
    else:
        out.print("nothing is wrong: balances add up, no claim is lost, the consent chain is whole")
    if findings:
        raise typer.Exit(REFUSED)


@app.command()
def retention(
    clear: Annotated[bool, typer.Option("--clear", help="Clear what is due now, rather than within the hour.")] = False,
    as_json: Json = False,
) -> None:
    """How long what is kept, by the policy, and how much of it is due to be cleared. Changes nothing without --clear."""
    services = bootstrap.services()
    if clear:
        for done in keeping.clear(services):
            if done.cleared:
                err.print(f"cleared: {done.cleared} x {done.keeping.what}", markup=False)
    found = keeping.backlogs(services)
    if as_json:
        print_json([retention_view(each) for each in found])
    else:
        lines = [(each.keeping.what, str(each.kept), each.before.isoformat(timespec="seconds"), each.due) for each in found]
        rows("", ("what", "kept for", "older than", "due"), lines)

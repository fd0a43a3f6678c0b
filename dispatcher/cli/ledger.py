"""`dispatcher ledger …`."""

from __future__ import annotations

import typer

from dispatcher import bootstrap
from dispatcher.cli.output import REFUSED, Json, err, out, print_json
from dispatcher.ledger import audit
from dispatcher.ledger.pool import lend

app = typer.Typer(help="Check the record.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `verify` a subcommand."""


@app.command()
def verify(as_json: Json = False) -> None:
    """Balances, lost claims, and the chain of consent events: everything that should never be wrong."""
    house = bootstrap.house()
    with lend(house.pool) as connection:
        findings = audit.verify(connection, house.secret, house.clock(), house.limits.lease_seconds)
    if as_json:
        print_json({"findings": findings})
    elif findings:
        for finding in findings:
            err.print(finding, markup=False)
    else:
        out.print("nothing is wrong: balances add up, no claim is lost, the consent chain is whole")
    if findings:
        raise typer.Exit(REFUSED)

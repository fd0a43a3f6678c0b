"""`dispatcher policy …`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dispatcher.cli.identity import open_for
from dispatcher.cli.output import REFUSED, Json, err, out, pairs, print_json
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.principal import Right
from dispatcher.maintenance import policy_in_force
from dispatcher.runtime import bootstrap

app = typer.Typer(help="Show which policy is in force, and put another one in force.", no_args_is_help=True)


@app.command()
def show(
    text: Annotated[
        bool, typer.Option("--text", help="Print the policy file of this process instead: to copy and change it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the digest of the policy in force, and of the one of this process. Exit 1 where they differ."""
    if text:
        _print_text(as_json)
        return
    services = bootstrap.services()
    current = policy_in_force.find(services)
    assert current is not None  # noqa: S101  the first start puts one in force
    ours = services.policy.digest
    document = {"in_force": current.digest, "since": current.at.isoformat(), "by": current.actor, "here": ours}
    if as_json:
        print_json(document)
    else:
        pairs("", document)
    if ours != current.digest:
        raise typer.Exit(REFUSED)


def _print_text(as_json: bool) -> None:
    """The policy file; it needs no database."""
    policy, source = bootstrap.policy(bootstrap.file_settings())
    if as_json:
        print_json({"here": policy.digest, "text": source})
    else:
        sys.stdout.write(source)


@app.command()
def adopt(as_json: Json = False) -> None:
    """Put the policy of this process in force. Workers with another one halt; workers that wait with this one begin."""
    services, who = open_for(Right.POLICY, act=AuditNote(AuditAction.ADOPT, "policy"))
    before, ours = bootstrap.adopt_policy(who)
    if before not in (None, ours) and policy_in_force.will_halt(services):
        err.print(f"Workers run that were started with another policy: they halt. {policy_in_force.RESTART}", markup=False)
    if as_json:
        print_json({"in_force": ours, "before": before})
    elif before == ours:
        out.print(f"the policy {ours[:12]} was in force already", markup=False)
    else:
        out.print(f"the policy {ours[:12]} is in force now; before: {(before or 'none')[:12]}", markup=False)

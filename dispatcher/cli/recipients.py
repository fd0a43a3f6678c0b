"""`dispatcher recipients …`."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import typer

from dispatcher.cli.output import REFUSED, AlwaysJson, Json, err, out, pairs, print_json, progress, show_left_out
from dispatcher.consent import erasure, recipients
from dispatcher.runtime import bootstrap

app = typer.Typer(help="Import, show, export and erase recipients.", no_args_is_help=True)

RecipientId = Annotated[str, typer.Argument(metavar="ID", help="The recipient's id.")]


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A .jsonl, .csv or .xlsx file.")],
    rejects: Annotated[Path | None, typer.Option(help="Where rejected rows go. Default: FILE.rejected.jsonl")] = None,
    as_json: Json = False,
) -> None:
    """Import recipients: add new ones, update known ones, report bad rows and leave them out, but for their opt-outs."""
    reject_path = rejects or file.with_name(file.name + ".rejected.jsonl")
    with progress("importing", None) as (bar, task):
        imported = recipients.import_recipients(
            bootstrap.services(on_faults=show_left_out),
            file,
            reject_path,
            getpass.getuser(),
            lambda done: bar.update(task, completed=done),
        )
    counts = {"new": imported.new, "changed": imported.changed, "unchanged": imported.unchanged, "rejected": imported.rejected}
    counts |= {"rejected_with_opt_outs_recorded": imported.opt_outs} if imported.opt_outs or as_json else {}
    errors = [{"line": line, "field": field, "message": reason} for line, field, reason in imported.faults]
    reject_file = str(imported.rejects) if imported.rejects else None
    if as_json:
        print_json({**counts, "faults": errors, "reject_file": reject_file})
    else:
        pairs("", counts)
        for error in errors:
            err.print(f"{file}:{error['line']}: {error['field']}: {error['message']}", markup=False)
        if reject_file:
            err.print(f"rejected rows, with reasons: {reject_file}", markup=False)
    if imported.rejected and not imported.new + imported.changed + imported.unchanged:
        raise typer.Exit(REFUSED)


@app.command()
def show(recipient_id: RecipientId, as_json: Json = False) -> None:
    """Show everything on record about one person."""
    record = recipients.show(bootstrap.services(on_faults=show_left_out), recipient_id)
    if as_json:
        print_json(record)
    else:
        pairs("", {name: value for name, value in record.items() if name != "choices"})


@app.command()
def export(recipient_id: RecipientId, _as_json: AlwaysJson = True) -> None:
    """Print everything on record about a person, with history and messages, as JSON."""
    print_json(recipients.export(bootstrap.services(on_faults=show_left_out), recipient_id))


@app.command()
def erase(recipient_id: RecipientId, as_json: Json = False) -> None:
    """Delete a person's addresses, profile and contents. Decisions without content, and suppressions, stay."""
    erased = erasure.erase(bootstrap.services(on_faults=show_left_out), recipient_id, getpass.getuser())
    if as_json:
        print_json({"id": recipient_id, "erased": erased})
    else:
        out.print("erased" if erased else "was erased before")

"""`dispatcher recipients …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dispatcher.cli.identity import noted, open_for, unlimited_for, viewer
from dispatcher.cli.output import REFUSED, AlwaysJson, Json, err, out, pairs, print_json, progress, show_left_out
from dispatcher.consent import erasure, recipients
from dispatcher.delivery import people
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.principal import Right
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
    services, who = unlimited_for(Right.RECIPIENTS, AuditNote(AuditAction.IMPORT, "recipients"))
    with progress("importing", None) as (bar, task):
        imported = recipients.import_recipients(services, file, reject_path, who, lambda done: bar.update(task, completed=done))
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
    services = bootstrap.services(on_faults=show_left_out)
    noted(services, AuditNote(AuditAction.LOOK, "recipient", recipient_id, recipient=recipient_id))
    people.require_visible(services, viewer(services), recipient_id)
    record = recipients.show(services, recipient_id)
    if as_json:
        print_json(record)
    else:
        pairs("", {name: value for name, value in record.items() if name != "choices"})


@app.command()
def export(recipient_id: RecipientId, _as_json: AlwaysJson = True) -> None:
    """Print everything on record about a person, with history and messages, as JSON."""
    services = bootstrap.services(on_faults=show_left_out)
    noted(services, AuditNote(AuditAction.EXPORT, "recipient", recipient_id, recipient=recipient_id))
    principal = viewer(services)
    people.require_all_entities(principal, people.view(services, principal, recipient_id))
    print_json(recipients.export(services, recipient_id))


@app.command()
def erase(recipient_id: RecipientId, as_json: Json = False) -> None:
    """Delete a person's addresses, profile and contents. Decisions without content, and suppressions, stay."""
    services, who = open_for(Right.ERASE, act=AuditNote(AuditAction.ERASE, "recipient", recipient_id, recipient=recipient_id))
    erased = erasure.erase(services, recipient_id, who)
    if as_json:
        print_json({"id": recipient_id, "erased": erased})
    else:
        out.print("erased" if erased else "was erased before")

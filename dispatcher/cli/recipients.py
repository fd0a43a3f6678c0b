"""`dispatcher recipients …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dispatcher.cli.identity import confirm_person, noted, open_for, unlimited_for, viewer
from dispatcher.cli.output import REFUSED, AlwaysJson, Json, err, fail, out, pairs, print_json, progress, show_left_out
from dispatcher.consent import erasure_requests, recipients
from dispatcher.consent.erasure_requests import ErasureResult
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
def erase(
    recipient_id: RecipientId,
    reason: Annotated[str, typer.Option(help="Why; the second person reads it.")] = "by the command line",
    reject: Annotated[bool, typer.Option("--reject", help="Close the open request without erasing.")] = False,
    as_json: Json = False,
) -> None:
    """Delete a person's addresses, profile and contents. Decisions without content, and suppressions, stay.

    The first call only requests it. The same command, or the console, by somebody else erases. Where the policy lets one person
    erase, the first call does.
    """
    services, who = open_for(Right.ERASE)
    confirm_person(services)
    principal = viewer(services)
    people.require_all_entities(principal, people.view(services, principal, recipient_id))
    if reject:
        noted(services, AuditNote(AuditAction.CANCEL, "erasure", recipient_id, recipient=recipient_id))
        if not erasure_requests.reject(services, recipient_id, who):
            fail(f"no request to erase {recipient_id} is open", REFUSED)
        _print_erasure(
            {"id": recipient_id, "erased": False, "waiting": False}, "the request is closed; nothing was erased", as_json
        )
        return
    noted(services, erasure_requests.act_of(services, recipient_id, reason, who))
    result = erasure_requests.request_or_approve(services, recipient_id, reason, who)
    texts = {
        ErasureResult.WAITING: f"requested; somebody else has to approve it: dispatcher recipients erase {recipient_id}",
        ErasureResult.ERASED: "erased",
        ErasureResult.ERASED_BEFORE: "was erased before",
    }
    document = {
        "id": recipient_id,
        "erased": result is ErasureResult.ERASED,
        "waiting": result is ErasureResult.WAITING,
    }
    _print_erasure(document, texts[result], as_json)


def _print_erasure(document: dict[str, object], text: str, as_json: bool) -> None:
    if as_json:
        print_json(document)
    else:
        out.print(text, markup=False)

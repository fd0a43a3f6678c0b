"""`dispatcher restore …`: bring back a backup, and what a person has to decide after a restore, whoever made it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from dispatcher.cli.backups import backup_view, print_backup
from dispatcher.cli.identity import noted, open_for
from dispatcher.cli.output import BAD_INPUT, REFUSED, Json, fail, out, pairs, plural, print_json, progress, rows
from dispatcher.consent import opt_out_replay
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.principal import Right
from dispatcher.maintenance import backups, restores
from dispatcher.maintenance.backups import BackupError
from dispatcher.maintenance.restores import RestoreStatus, SendDecision
from dispatcher.runtime import bootstrap

app = typer.Typer(
    help="Restore a backup of the embedded database. After any restore, decide what may have been sent.", no_args_is_help=True
)


@app.command()
def run(
    backup: Annotated[Path, typer.Argument(help="The folder of one backup.")],
    replace: Annotated[bool, typer.Option("--replace", help="Where there is a ledger, put it aside under another name.")] = False,
    as_json: Json = False,
) -> None:
    """Restore a backup into the embedded database. Everything must be stopped. Then nothing is sent until `restore release`."""
    try:
        restored, kept = backups.restore(bootstrap.settings(), backup, replace)
    except BackupError as error:
        fail(str(error), REFUSED)
    if as_json:
        print_json({**backup_view(restored), "former_data": str(kept) if kept else None})
        return
    print_backup(restored)
    if kept:
        out.print(f"the former data is in {kept}: delete it when you need it no more", markup=False)
    out.print("nothing is sent now: `dispatcher restore status` says what to decide", markup=False)


@app.command()
def status(as_json: Json = False) -> None:
    """Show the last restore that was noticed, and what has to be decided. Exit 1 while nothing is sent because of it."""
    restore = restores.status(bootstrap.services())
    if as_json:
        print_json({"held": False, "restore": None} if restore is None else _view(restore))
    elif restore is None:
        out.print("no restore was noticed: everything is sent as usual")
    else:
        _print(restore)
    if restore is not None and restore.is_held:
        raise typer.Exit(REFUSED)


@app.command()
def replay(
    path: Annotated[Path, typer.Argument(help="A file of events, or a folder with such files: JSON lines, or CSV event files.")],
    as_json: Json = False,
) -> None:
    """Read opt-outs, suppressions and erasures of the lost time back from our own events. Safe to repeat."""
    services, who = open_for(Right.OPERATE)
    noted(services, AuditNote(AuditAction.IMPORT, "opt_outs"))
    with progress("reading events", None) as (bar, task):
        counts = opt_out_replay.replay(services, path, who, lambda done: bar.update(task, completed=done))
    if as_json:
        print_json(asdict(counts))
        return
    pairs("", {"events read": counts.events, "opt-outs recorded": counts.opt_outs, "suppressions set": counts.suppressions})
    for recipient_id in counts.erased:
        out.print(f"was erased in the lost time: `dispatcher recipients erase {recipient_id}` erases it again", markup=False)


@app.command()
def release(
    reason: Annotated[str, typer.Option(help="How the opt-outs of the lost time were recovered; for the audit log.")],
    campaign: Annotated[
        list[str] | None,
        typer.Option(metavar="ID=DECISION", help="send: nothing of it was sent in the lost time. unresolved: it may have been."),
    ] = None,
    triggers: Annotated[SendDecision, typer.Option(help="The same for all open triggers.")] = SendDecision.UNRESOLVED,
    as_json: Json = False,
) -> None:
    """Let sending begin again. Each open campaign becomes what `restore status` proposes, or what --campaign says."""
    decisions = _decisions(campaign or ())
    services, who = open_for(Right.OPERATE)
    noted(services, AuditNote(AuditAction.RELEASE, "restore", reason=reason))
    released = restores.release(services, decisions, triggers, who)
    if released is None:
        fail("nothing is held: there was no restore, or it is released already", REFUSED)
    if as_json:
        print_json({"released": True, "decisions": _works(released)})
        return
    _print_works(released)
    out.print("released: sending begins again", markup=False)
    out.print("what may have been sent becomes unresolved; `dispatcher message unresolved` shows it", markup=False)


def _decisions(texts: Sequence[str]) -> dict[str, SendDecision]:
    decisions = {}
    for text in texts:
        campaign_id, _, decision = text.rpartition("=")
        if not campaign_id or decision not in list(SendDecision):
            choices = " or ".join(f"{campaign_id or 'ID'}={each}" for each in SendDecision)
            fail(f"--campaign: {text} must be {choices}", BAD_INPUT)
        decisions[campaign_id] = SendDecision(decision)
    return decisions


def _view(restore: RestoreStatus) -> dict[str, Any]:
    generation = restore.generation
    return {
        "held": restore.is_held,
        "restore": {
            "noticed_at": generation.began_at.isoformat(),
            "cause": generation.cause,
            "restored_to": generation.restored_to.isoformat() if generation.restored_to else None,
            "released_at": generation.released_at.isoformat() if generation.released_at else None,
            "released_by": generation.released_by,
        },
        "decisions": _works(restore),
    }


def _works(restore: RestoreStatus) -> list[dict[str, Any]]:
    return [
        {
            "campaign": each.work.campaign_id,
            "state": each.work.state,
            "open": each.work.open,
            "due_at": each.work.due_at.isoformat(),
            "decision": each.decision.value,
        }
        for each in restore.works
    ]


def _print(restore: RestoreStatus) -> None:
    generation = restore.generation
    pairs(
        "",
        {
            "noticed": generation.began_at.isoformat(),
            "how": CAUSES.get(generation.cause, generation.cause),
            "restored to": generation.restored_to.isoformat() if generation.restored_to else "an unknown moment",
            "released": generation.released_at.isoformat() if generation.released_at else "no: nothing is sent",
            "by": generation.released_by,
        },
    )
    if restore.is_held:
        _print_works(restore)
        out.print(
            "first recover the opt-outs: `dispatcher restore replay`, `dispatcher suppressions pull` and `import`", markup=False
        )
        out.print("then: `dispatcher restore release --reason TEXT [--campaign ID=send|unresolved]`", markup=False)


def _print_works(restore: RestoreStatus) -> None:
    lines = [
        (each.work.campaign_id or "(triggers)", each.work.state, each.work.open, each.work.due_at.isoformat(), each.decision)
        for each in restore.works
    ]
    rows("", ("campaign", "state", "open", "due", "decision"), lines)
    unresolved = sum(each.work.open for each in restore.works if each.decision is SendDecision.UNRESOLVED)
    out.print(f"may have been sent: {plural(unresolved, 'message')}", markup=False)


CAUSES = {
    "claim_missing": "the ledger lacks a claim that a worker had made",
    "number_reused": "a claim got a number that another one had",
    "unknown_generation": "the ledger does not know its own last restore",
    "other_place": "the rows are in another database than before",
    "restore_command": "`dispatcher restore run`",
}

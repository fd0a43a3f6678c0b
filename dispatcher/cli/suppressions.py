"""`dispatcher suppressions …`."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from channels.base import Channel
from dispatcher.cli.identity import open_for, services_for_all
from dispatcher.cli.output import BAD_INPUT, REFUSED, Json, err, fail, out, pairs, plural, print_json, progress, rows
from dispatcher.consent import suppressions
from dispatcher.consent.suppressions import ListsNotRead, SuppressionFilter, SuppressionRecord, SuppressionRequest
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.principal import Right
from dispatcher.intake.errors import BadInput, InputError

app = typer.Typer(help="Import, list, look up, lift and export suppressed addresses.", no_args_is_help=True)

ChannelOption = Annotated[Channel | None, typer.Option("--channel", help="Only this channel.")]
ReasonOption = Annotated[str | None, typer.Option("--reason", help="Only this reason, such as bounced or opted_out.")]
SourceOption = Annotated[str | None, typer.Option("--source", help="Only this source, such as sendgrid or import.")]
SinceOption = Annotated[str | None, typer.Option("--since", help="Only from this day on, such as 2026-01-31.")]
LiftedOption = Annotated[bool, typer.Option("--lifted", help="Those that were lifted, too.")]
COLUMNS = ("no", "channel", "hash", "reason", "source", "since", "lifted_at", "lifted_by", "lifted_because")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A .csv, .xlsx or .jsonl file of addresses, or of hashes from an export.")],
    list_format: Annotated[
        str | None,
        typer.Option("--format", help="The format of the file, such as sendgrid-bounces. Needed where its columns fit several."),
    ] = None,
    reason: Annotated[str | None, typer.Option(help="The reason of rows that give none.")] = None,
    source: Annotated[str | None, typer.Option(help="The source of rows that give none.")] = None,
    rejects: Annotated[Path | None, typer.Option(help="Where rows with a problem go. Default: FILE.rejected.jsonl")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    as_json: Json = False,
) -> None:
    """Suppress the addresses of a list, refuse what waits for them, and record opt-outs of known people. Stores hashes only."""
    reject_path = rejects or file.with_name(file.name + ".rejected.jsonl")
    services, who = open_for(Right.SUPPRESSIONS, act=AuditNote(AuditAction.IMPORT, "suppressions"))
    request = SuppressionRequest(file, who, None if dry_run else reject_path, list_format, reason, source, dry_run)
    with progress("importing", None) as (bar, task):
        imported = suppressions.import_list(services, request, lambda done: bar.update(task, completed=done))
    document = suppressions.import_view(imported, dry_run)
    if as_json:
        print_json(document)
    else:
        reasons = {f"reason {reason}": count for reason, count in document["reasons"].items()}
        counts = {name: value for name, value in document.items() if type(value) is int}
        pairs("would be done" if dry_run else "", {"format": document["format"], **reasons, **counts})
        for problem in document["faults"]:
            err.print(f"{file}:{problem['line']}: {problem['field']}: {problem['message']}".replace(": : ", ": "), markup=False)
        if imported.rejects:
            err.print(f"rows with a problem: {imported.rejects}", markup=False)
    if imported.rejected and not imported.taken:
        raise typer.Exit(REFUSED)


@app.command()
def pull(
    since: Annotated[str | None, typer.Option("--since", help="Only entries from this day on. Default: all.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    as_json: Json = False,
) -> None:
    """Suppress the addresses on the providers' own lists: after a restore, or when webhook calls were lost. Safe to repeat."""
    moment = _moment(since)
    services, who = open_for(Right.SUPPRESSIONS, act=AuditNote(AuditAction.IMPORT, "suppressions"))
    without = suppressions.without_lists(services)
    try:
        with progress("reading", None) as (bar, task):
            done = suppressions.pull(services, moment, who, dry_run, lambda read: bar.update(task, completed=read))
    except ListsNotRead as error:
        fail(str(error), REFUSED)
    views = {name: suppressions.import_view(imported, dry_run) for name, imported in done.items()}
    if as_json:
        print_json({"dry_run": dry_run, "providers": views, "without_lists": without})
    else:
        for name, view in views.items():
            reasons = {f"reason {reason}": count for reason, count in view["reasons"].items()}
            pairs(f"{name}, would be done" if dry_run else name, reasons | {key: n for key, n in view.items() if type(n) is int})
        if without:
            out.print(f"no list to read: {', '.join(without)}; for theirs: `dispatcher suppressions import`", markup=False)
    if not done:
        raise typer.Exit(REFUSED)


@app.command("list")
def list_(
    channel: ChannelOption = None,
    reason: ReasonOption = None,
    source: SourceOption = None,
    since: SinceOption = None,
    lifted: LiftedOption = False,
    after: Annotated[int, typer.Option(help="Only those after this number.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 100,
    as_json: Json = False,
) -> None:
    """List suppressions by number. An address is shown as its keyed hash."""
    wanted = SuppressionFilter(channel, reason, source, _moment(since), lifted)
    _print(suppressions.page(services_for_all(), wanted, after, limit), as_json)


@app.command()
def search(
    address: Annotated[str | None, typer.Argument(help="An e-mail address or a number. Default: read from standard input.")] = None,
    as_json: Json = False,
) -> None:
    """Show the suppressions of an address, lifted ones too. The ledger records who looked, and not the address."""
    text = sys.stdin.readline() if address is None else address
    services, who = open_for(Right.SUPPRESSIONS, act=AuditNote(AuditAction.SEARCH, "suppressions"))
    _print(suppressions.find(services, text, who), as_json)


@app.command()
def lift(
    number: Annotated[int, typer.Argument(metavar="NO", min=1, help="The number of the suppression.")],
    reason: Annotated[str, typer.Option(help="Why it is lifted. The ledger keeps it, so name no person.")],
    as_json: Json = False,
) -> None:
    """Lift one suppression. It permits nothing by itself: the person's own opt-out stays in force."""
    services, who = open_for(Right.SUPPRESSIONS, act=AuditNote(AuditAction.LIFT, "suppression", str(number), reason=reason))
    record = suppressions.lift(services, number, who, reason)
    if record is None:
        fail(f"there is no suppression {number}", REFUSED)
    _print([record], as_json)


@app.command()
def export(
    file: Annotated[Path | None, typer.Argument(help="Where to write. Default: standard output.")] = None,
    channel: ChannelOption = None,
    reason: ReasonOption = None,
    source: SourceOption = None,
    since: SinceOption = None,
    as_json: Json = False,
) -> None:
    """Write suppressions in force as CSV: hashes, reasons and dates, never addresses. `import` reads it."""
    if file is None and as_json:
        fail("with --json, name a file for the export", BAD_INPUT)
    lines = suppressions.export_csv(services_for_all(), SuppressionFilter(channel, reason, source, _moment(since)))
    if file is None:
        sys.stdout.writelines(lines)
        return
    try:
        with file.open("w", encoding="utf-8") as target:
            count = sum(1 for line in lines if target.write(line)) - 1
    except OSError as error:
        raise BadInput(InputError(str(file), 0, "", f"can't be written: {error.strerror}")) from None
    if as_json:
        print_json({"file": str(file), "suppressions": count})
    else:
        out.print(f"{plural(count, 'suppression')} in {file}", markup=False)


def _moment(text: str | None) -> datetime | None:
    """The start of a day, or a moment with its zone. Raises `BadInput`."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text if len(text) > len("2026-01-31") else f"{text}T00:00:00+00:00")
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        problem = f"{text!r} is neither a day such as 2026-01-31 nor a moment with its time zone"
        raise BadInput(InputError("--since", 0, "", problem))
    return moment


def _print(records: list[SuppressionRecord], as_json: bool) -> None:
    documents = [suppressions.view(record) for record in records]
    if as_json:
        print_json({"suppressions": documents})
    elif documents:
        rows("", COLUMNS, [_cells(document) for document in documents])
    else:
        out.print("no suppression")


def _cells(document: dict[str, Any]) -> list[Any]:
    return [document[name] for name in COLUMNS]

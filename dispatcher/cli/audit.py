"""`dispatcher audit …`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from dispatcher.cli.identity import limit, noted, open_for
from dispatcher.cli.output import BAD_INPUT, REFUSED, AlwaysJson, Json, err, fail, out, print_json, rows
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.principal import Right
from dispatcher.identity import audit
from dispatcher.identity.audit import AuditFilter, AuditRow

app = typer.Typer(help="The audit log: who did or looked at what.", no_args_is_help=True)

Who = Annotated[str | None, typer.Option("--who", help="Only this person or service, such as user:jana or api:crm.")]
Action = Annotated[AuditAction | None, typer.Option(help="Only this action.")]
Recipient = Annotated[str | None, typer.Option(help="Only what concerns this customer.")]
Object = Annotated[str | None, typer.Option("--object", help="Only what concerns this object, by its id.")]
Since = Annotated[str | None, typer.Option(help="Only from this time on, such as 2026-11-23 or 2026-11-23T11:00 (UTC).")]
Until = Annotated[str | None, typer.Option(help="Only before this time.")]
COLUMNS = ("no", "at", "who", "from", "action", "object", "customer", "entity", "why")


def _filter(
    who: str | None,
    action: AuditAction | None,
    recipient: str | None,
    object_id: str | None,
    times: tuple[datetime | None, datetime | None],
) -> AuditFilter:
    since, until = times
    return AuditFilter(who, action, None, object_id, recipient, since, until)


def _time(text: str | None, option: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC) if text else None
    except ValueError:
        return fail(f"{option}: {text!r} is no time; write 2026-11-23 or 2026-11-23T11:00", BAD_INPUT)


@app.command("list")
def list_(
    who: Who = None,
    action: Action = None,
    recipient: Recipient = None,
    object_id: Object = None,
    since: Since = None,
    until: Until = None,
    count: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many.")] = 100,
    as_json: Json = False,
) -> None:
    """List the newest rows, newest first."""
    wanted = _filter(who, action, recipient, object_id, (_time(since, "--since"), _time(until, "--until")))
    services, _ = open_for(Right.AUDIT)
    noted(services, AuditNote(AuditAction.LOOK, "audit"))
    found = audit.page(services, replace(wanted, entities=limit(services)), None, count)
    if as_json:
        print_json([_view(each) for each in found])
    else:
        rows("", COLUMNS, [_cells(each) for each in found])


def _view(row: AuditRow) -> dict[str, Any]:
    return {**asdict(row), "at": row.at.isoformat()}


def _cells(row: AuditRow) -> tuple[Any, ...]:
    action = f"{row.action} ({row.outcome})" if row.outcome != "begun" else row.action
    place = f"{row.place} {row.address}"
    what = f"{row.object_type} {row.object_id}"
    return (row.no, row.at.isoformat(), row.principal_id, place, action, what, row.recipient, row.entity, row.reason)


@app.command()
def export(
    who: Who = None,
    action: Action = None,
    recipient: Recipient = None,
    object_id: Object = None,
    since: Since = None,
    until: Until = None,
    _as_json: AlwaysJson = True,
) -> None:
    """Print all rows that match, newest first, as one JSON document per line."""
    wanted = _filter(who, action, recipient, object_id, (_time(since, "--since"), _time(until, "--until")))
    services, _ = open_for(Right.AUDIT)
    noted(services, AuditNote(AuditAction.EXPORT, "audit"))
    for row in audit.export(services, replace(wanted, entities=limit(services))):
        sys.stdout.write(json.dumps(_view(row), ensure_ascii=False) + "\n")


@app.command()
def verify(as_json: Json = False) -> None:
    """Check the chain of the audit log: a changed, missing or added row, or a cut end. Exit 1 where something is wrong."""
    services, _ = open_for(Right.AUDIT)
    faults = audit.verify(services)
    if as_json:
        print_json({"findings": faults})
    elif faults:
        for fault in faults:
            err.print(fault, markup=False)
    else:
        out.print("nothing is wrong: the chain of the audit log is complete")
    if faults:
        raise typer.Exit(REFUSED)

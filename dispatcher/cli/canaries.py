"""`dispatcher canaries …`: how long after an opt-out a message is still under way, measured with canary recipients."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dispatcher.cli.identity import open_for
from dispatcher.cli.output import REFUSED, Json, err, fail, out, print_json, rows
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.canaries import OptOutWay
from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.principal import Right
from dispatcher.intake.errors import BadInput, InputError, read_text
from dispatcher.maintenance.canaries import rounds, service_level, signed_reports
from dispatcher.runtime import bootstrap

app = typer.Typer(help="Opt-out latency, measured with canary recipients.", no_args_is_help=True)

OFF = "canaries are off: set DISPATCHER_CANARIES=on"
PERCENTILES = ("p50", "p95", "p99", "max")


@app.command()
def status(
    days: Annotated[int, typer.Option(min=1, max=400, help="Measurements of so many days.")] = 1,
    way: Annotated[OptOutWay | None, typer.Option(help="The series of this way only.")] = None,
    as_json: Json = False,
) -> None:
    """Show what was measured: percentiles by way out, late opt-outs, and why something was not measured."""
    services = bootstrap.services()
    found = service_level.latency(services, days, way)
    view = {
        "on": services.canaries is not None,
        "public_key": signed_reports.public_key(services.secret),
        **service_level.latency_view(found),
    }
    if as_json:
        print_json(view)
        return
    if services.canaries is None:
        out.print(OFF)
    names = ("way", "opt-outs", "measured", "late", *(f"arrival {name}" for name in PERCENTILES), "hand-off max", "claim max")
    columns = ("way", "rounds", "measured", "late", *(f"arrival_{name}" for name in PERCENTILES), "hand_off_max", "claim_max")
    if view["by_way"]:
        rows("seconds after the opt-out", names, [[each[name] for name in columns] for each in view["by_way"]])
    else:
        out.print("nothing was measured in this time")
    if view["late"]:
        late = ("no", "way", "answered_at", "claim_seconds", "hand_off_seconds", "arrival_seconds")
        rows("\nlate", late, [[each[name] for name in late] for each in view["late"]])
    if view["not_measured"]:
        rows("\nnot measured", ("reason", "opt-outs"), list(view["not_measured"].items()))
    if services.canaries is not None and view["not_configured"]:
        out.print(f"\nnot configured: {', '.join(view['not_configured'])}")


@app.command()
def run(
    seconds: Annotated[float, typer.Option(min=5, max=600, help="Wait for so long at most.")] = 120.0, as_json: Json = False
) -> None:
    """Opt out once in each way now, and measure. Workers and the web application must run."""
    services, _ = open_for(Right.OPERATE, act=AuditNote(AuditAction.TEST, "canaries", "all"))
    if services.canaries is None:
        fail(OFF, REFUSED)
    from dispatcher import tasks  # here: it imports Celery

    results = rounds.run_once(services, tasks.publish, seconds)
    if as_json:
        print_json({"rounds": [asdict(each) for each in results]})
    else:
        names = ("way", "outcome", "reason", "is_late", "claim_seconds", "hand_off_seconds", "arrival_seconds")
        rows("", [name.replace("_", " ") for name in names], [[getattr(each, name) for name in names] for each in results])
    if not results or any(each.is_late or each.outcome != "measured" for each in results):
        raise typer.Exit(REFUSED)


@app.command()
def report(
    month: Annotated[str, typer.Argument(help="The month, such as 2026-11 (UTC).")],
    file: Annotated[Path, typer.Option("--out", help="The file to write.")],
    as_json: Json = False,
) -> None:
    """Write the signed report of a month."""
    document = signed_reports.monthly_report(bootstrap.services(), month)
    try:
        file.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise BadInput(InputError(str(file), 0, "", f"can't be written: {error.strerror}")) from None
    summary = {name: document[name] for name in ("month", "complete", "opt_outs", "measured", "late", "public_key")}
    if as_json:
        print_json({**summary, "file": str(file)})
    else:
        out.print(
            f"{file}: {document['measured']} of {document['opt_outs']} opt-outs measured, {document['late']} late", markup=False
        )
        if not document["complete"]:
            err.print("the month is not over")


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="A report.")],
    public_key: Annotated[
        str, typer.Option(help="The public key that must have signed it; without it, one of this installation.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Check that a report is as it was signed, and by whom. With --public-key it needs neither the database nor a secret."""
    secret = None if public_key else KeyRing.parse(bootstrap.settings().secret_key)
    found = signed_reports.verify(read_text(file), public_key, secret)
    if as_json:
        print_json(asdict(found))
    elif not found.is_unchanged:
        fail(f"{file}: the report was changed after it was signed", REFUSED)
    elif not found.is_ours:
        fail(f"{file}: the report is unchanged, but another key signed it: {found.public_key}", REFUSED)
    else:
        out.print(f"{file}: the report of {found.month} is unchanged, and signed with the expected key", markup=False)
    if not (found.is_unchanged and found.is_ours):
        raise typer.Exit(REFUSED)

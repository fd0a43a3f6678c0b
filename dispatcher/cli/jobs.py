"""`dispatcher job …`: Celery jobs that were refused."""

from __future__ import annotations

from typing import Annotated

import typer

from dispatcher.campaigns import refused_jobs
from dispatcher.cli.identity import limit, unlimited_for
from dispatcher.cli.output import REFUSED, Json, fail, out, print_json, rows, show_left_out
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.principal import Right
from dispatcher.runtime import bootstrap
from dispatcher.web.serializers.refused_jobs import refused_job

app = typer.Typer(help="Campaigns and triggers that came by Celery and were refused.", no_args_is_help=True)

COLUMNS = ("number", "state", "task", "key", "reason", "errors", "count", "last_at")


@app.command("refused")
def list_refused(
    count: Annotated[int, typer.Option("--limit", min=1, help="At most so many, the one refused last first.")] = 50,
    all_: Annotated[bool, typer.Option("--all", help="Those too that were mended or closed.")] = False,
    as_json: Json = False,
) -> None:
    """List refused jobs, with what was wrong and how often each came. Their arguments are not kept: send the mended job again."""
    services = bootstrap.services(on_faults=show_left_out)
    documents = [refused_job(each) for each in refused_jobs.newest(services, count, not all_, limit(services))]
    if as_json:
        print_json({"jobs": documents})
    elif documents:
        for document in documents:
            document["errors"] = "; ".join(": ".join(filter(None, error.values())) for error in document["errors"])
        rows("", [name.replace("_", " ") for name in COLUMNS], [[each[name] for name in COLUMNS] for each in documents])
    else:
        out.print("no refused job is open")


@app.command()
def close(
    number: Annotated[int, typer.Argument(help="The number of the refused job.")],
    as_json: Json = False,
) -> None:
    """Take a refused job off the list. One that is refused again comes back."""
    services, who = unlimited_for(Right.OPERATE, AuditNote(AuditAction.CLOSE, "refused_job", str(number)))
    if not refused_jobs.close(services, number, who):
        fail(f"there is no refused job {number}", REFUSED)
    if as_json:
        print_json({"number": number, "closed": True})
    else:
        out.print("closed")

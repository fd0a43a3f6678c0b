"""`dispatcher campaign schedule …`: recurring campaigns."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dispatcher.campaigns import schedules
from dispatcher.campaigns.schedules import ScheduleAction
from dispatcher.cli.output import Json, account, out, pairs, print_json, rows, show_left_out
from dispatcher.runtime import bootstrap
from dispatcher.web.serializers.schedules import schedule_line, schedule_view

app = typer.Typer(help="Recurring campaigns: each run is a campaign of its own.", no_args_is_help=True)

ScheduleId = Annotated[str, typer.Argument(metavar="ID", help="The recurring campaign's id.")]
By = Annotated[str, typer.Option(help="Who does it; by default your user account.")]


@app.command()
def add(
    file: Annotated[Path, typer.Argument(help="The recurring campaign, as YAML: id, cron, zone, campaign.")],
    by: By = "",
    as_json: Json = False,
) -> None:
    """Add a recurring campaign. Where the policy wants it, somebody else has to approve it before its first run."""
    services = bootstrap.services(on_faults=show_left_out)
    _print(schedule_view(schedules.add(services, schedules.read(services, file), by or account())), as_json)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the recurring campaigns, with the time of the next run."""
    lines = [schedule_line(each) for each in schedules.every(bootstrap.services(on_faults=show_left_out))]
    if as_json:
        print_json(lines)
    elif not lines:
        out.print("no recurring campaign")
    else:
        rows("", tuple(lines[0]), [tuple(line.values()) for line in lines])


@app.command()
def show(schedule_id: ScheduleId, as_json: Json = False) -> None:
    """Show a recurring campaign: its next runs, its latest ones with their reasons, and who did what."""
    _print(schedule_view(schedules.status(bootstrap.services(on_faults=show_left_out), schedule_id)), as_json)


@app.command()
def approve(
    schedule_id: ScheduleId,
    by: Annotated[str, typer.Option(help="Who approves it: somebody other than who submitted it.")],
    as_json: Json = False,
) -> None:
    """Approve the definition: its runs need no release of their own."""
    _act(schedule_id, ScheduleAction.APPROVE, by, as_json)


@app.command()
def pause(schedule_id: ScheduleId, by: By = "", as_json: Json = False) -> None:
    """Start no run until it is resumed; campaigns that have started go on."""
    _act(schedule_id, ScheduleAction.PAUSE, by or account(), as_json)


@app.command()
def resume(schedule_id: ScheduleId, by: By = "", as_json: Json = False) -> None:
    """Go on with the next run that is due from now on."""
    _act(schedule_id, ScheduleAction.RESUME, by or account(), as_json)


@app.command()
def end(schedule_id: ScheduleId, by: By = "", as_json: Json = False) -> None:
    """Start no run any more; campaigns that have started go on."""
    _act(schedule_id, ScheduleAction.END, by or account(), as_json)


def _act(schedule_id: str, action: ScheduleAction, actor: str, as_json: bool) -> None:
    _print(schedule_view(schedules.act(bootstrap.services(on_faults=show_left_out), schedule_id, action, actor)), as_json)


def _print(view: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    tables = {name: view.pop(name) for name in ("next_runs", "runs", "changes")}
    campaign = view.pop("campaign")
    pairs("", {**view, "campaign": ", ".join(f"{name}: {value}" for name, value in campaign.items())})
    for name, lines in tables.items():
        if lines:
            rows(f"\n{name.replace('_', ' ')}", tuple(lines[0]), [tuple(line.values()) for line in lines])

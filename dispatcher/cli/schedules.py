"""`dispatcher campaign schedule …`: recurring campaigns."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dispatcher.campaigns import schedules
from dispatcher.campaigns.schedules import ScheduleAction
from dispatcher.cli.identity import acting, confirm_person, limit, noted, open_for
from dispatcher.cli.output import Json, out, pairs, print_json, rows, show_left_out
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.principal import Right
from dispatcher.runtime import bootstrap
from dispatcher.web.serializers.schedules import schedule_line, schedule_view

app = typer.Typer(help="Recurring campaigns: each run is a campaign of its own.", no_args_is_help=True)

ScheduleId = Annotated[str, typer.Argument(metavar="ID", help="The recurring campaign's id.")]


@app.command()
def add(
    file: Annotated[Path, typer.Argument(help="The recurring campaign, as YAML: id, cron, zone, campaign.")],
    as_json: Json = False,
) -> None:
    """Add a recurring campaign. Where the policy wants it, somebody else has to approve it before its first run."""
    services, who = open_for(Right.CAMPAIGNS)
    schedule = schedules.read(services, file)
    acting(services, Right.CAMPAIGNS, schedules.entity_of(services, schedule.definition))
    noted(services, AuditNote(AuditAction.ADD, "schedule", schedule.form.id))
    _print(schedule_view(schedules.add(services, schedule, who)), as_json)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the recurring campaigns, with the time of the next run."""
    services = bootstrap.services(on_faults=show_left_out)
    lines = [schedule_line(each) for each in schedules.every(services, limit(services))]
    if as_json:
        print_json(lines)
    elif not lines:
        out.print("no recurring campaign")
    else:
        rows("", tuple(lines[0]), [tuple(line.values()) for line in lines])


@app.command()
def show(schedule_id: ScheduleId, as_json: Json = False) -> None:
    """Show a recurring campaign: its next runs, its latest ones with their reasons, and who did what."""
    services = bootstrap.services(on_faults=show_left_out)
    _print(schedule_view(schedules.status(services, schedule_id, limit(services))), as_json)


@app.command()
def approve(schedule_id: ScheduleId, as_json: Json = False) -> None:
    """Approve the definition, as somebody other than who submitted it: its runs need no release of their own."""
    _act(schedule_id, ScheduleAction.APPROVE, as_json)


@app.command()
def pause(schedule_id: ScheduleId, as_json: Json = False) -> None:
    """Start no run until it is resumed; campaigns that have started go on."""
    _act(schedule_id, ScheduleAction.PAUSE, as_json)


@app.command()
def resume(schedule_id: ScheduleId, as_json: Json = False) -> None:
    """Go on with the next run that is due from now on."""
    _act(schedule_id, ScheduleAction.RESUME, as_json)


@app.command()
def end(schedule_id: ScheduleId, as_json: Json = False) -> None:
    """Start no run any more; campaigns that have started go on."""
    _act(schedule_id, ScheduleAction.END, as_json)


def _act(schedule_id: str, action: ScheduleAction, as_json: bool) -> None:
    act = AuditNote(AuditAction(action.value), "schedule", schedule_id)
    services, who = open_for(Right.RELEASE if action is ScheduleAction.APPROVE else Right.PAUSE, act=act)
    if action is ScheduleAction.APPROVE:
        confirm_person(services)
    _print(schedule_view(schedules.act(services, schedule_id, action, who, limit(services))), as_json)


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

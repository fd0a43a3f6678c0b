"""`dispatcher demo`, `up`, `check` and `sandbox`: what concerns the machine as a whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from channels.sandbox.__main__ import main as serve_sandbox
from channels.sandbox.profiles import PROFILES
from dispatcher.cli.output import REFUSED, Json, err, out, print_json, rows
from dispatcher.devserver.stack import FLOWER_PORT, default_workers, run_stack
from dispatcher.devserver.supervisor import stop_signals
from dispatcher.maintenance.health_check import check_all
from dispatcher.runtime import bootstrap
from dispatcher.web import api_keys


def add_to(root: typer.Typer) -> None:
    """Hang these commands onto the root."""
    for command in (demo, up, check, sandbox, new_key):
        root.command()(command)


def demo(
    recipients: Annotated[int, typer.Option(min=1, max=1_000_000, help="Made-up customers.")] = 10_000,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running afterwards.")] = False,
    as_json: Json = False,
) -> None:
    """Show the main job on this machine, with made-up customers and the providers' sandbox, and check it."""
    from dispatcher.cli.demo import DemoFailed, run

    try:
        report = run(recipients, keep, as_json)
    except DemoFailed as failure:
        err.print(f"the demo failed: {failure}", markup=False)
        raise typer.Exit(REFUSED) from None
    if as_json:
        print_json(report)


def up(
    workers: Annotated[int | None, typer.Option(min=1, help="Campaign worker processes. Default: one per processor.")] = None,
    flower: Annotated[bool, typer.Option(help="Start Flower too.")] = True,
) -> None:
    """Run everything on this machine until Ctrl-C, which stops it without loss."""
    settings = bootstrap.settings()
    for warning in settings.warnings:
        err.print(f"[yellow]{warning}[/yellow]")
    with (
        stop_signals() as asked,
        run_stack(settings, os.environ, workers or default_workers(), FLOWER_PORT if flower else None) as program,
    ):
        out.print(f"API, webhooks, console   {program.places.web}/console")
        if program.key:
            out.print(f"key for both             {program.key}")
        if program.places.sandbox:
            out.print(f"sandbox inbox            {program.places.sandbox}")
        if program.places.flower:
            out.print(f"Flower                   {program.places.flower}")
        out.print(f"logs                     {settings.home / 'log'}\nCtrl-C stops it.")
        program.processes.watch(asked, program.engines.restart_dead)
        out.print("stopping: workers finish what they hold …")


def check(as_json: Json = False) -> None:
    """Configuration, database, broker, providers, templates and policy. A stopped channel that passes sends again."""
    findings = check_all()
    if as_json:
        print_json([{"what": finding.what, "ok": finding.ok, "says": finding.says} for finding in findings])
    else:
        rows("", ("", "what", "says"), [("✓" if finding.ok else "✗", finding.what, finding.says) for finding in findings])
    if not all(finding.ok for finding in findings):
        raise typer.Exit(REFUSED)


def new_key(
    name: Annotated[str, typer.Argument(help="Who calls with it; stands in the ledger as the actor.")],
    right: Annotated[
        list[str], typer.Option(help="campaigns, messages, recipients, preferences, templates or console; may be repeated.")
    ],
) -> None:
    """Make an API key: the key, shown this once, and the lines to add to the file that DISPATCHER_API_KEYS names."""
    key, lines = api_keys.new_key(name, right)
    err.print(key, markup=False)
    out.print(lines, markup=False, end="")


def sandbox(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8025,
    profile: Annotated[str, typer.Option(help=f"How well the providers do: {', '.join(PROFILES)}.")] = "calm",
    state: Annotated[Path | None, typer.Option(help="A folder that remembers arrivals and keys over restarts.")] = None,
    report_to: Annotated[str, typer.Option(help="The address of a dispatcher to report deliveries, bounces and answers to.")] = "",
) -> None:
    """All providers' doubles on one port, with an inbox page at /."""
    if profile not in PROFILES:
        raise typer.BadParameter(f"it must be one of {', '.join(PROFILES)}", param_hint="--profile")
    options = ["--port", str(port), "--profile", profile, *(["--state", str(state)] if state else [])]
    report = ["--dispatcher", report_to] if report_to else []
    raise typer.Exit(serve_sandbox([*options, *report]))

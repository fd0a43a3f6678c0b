"""`dispatcher demo`, `up`, `check`, `sandbox` and `new-key`: commands about the whole installation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from channels.sandbox.__main__ import main
from channels.sandbox.profiles import PROFILES
from dispatcher.cli.output import REFUSED, Json, JsonLines, err, out, print_json, print_json_line, rows
from dispatcher.devserver.processes import default_workers
from dispatcher.devserver.stack import FLOWER_PORT, run_stack
from dispatcher.devserver.supervisor import stop_signals
from dispatcher.maintenance.health_check import check_all
from dispatcher.maintenance.upgrade_check import check_before_upgrade
from dispatcher.runtime import bootstrap
from dispatcher.web import api_keys


def add_to(root: typer.Typer) -> None:
    """Add these commands to the root command."""
    for command in (demo, up, check, sandbox, new_key):
        root.command()(command)


def demo(
    recipients: Annotated[int, typer.Option(min=1, max=1_000_000, help="Made-up customers.")] = 10_000,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running afterwards.")] = False,
    as_json: Json = False,
) -> None:
    """Run a campaign on this machine, with made-up customers and the providers' sandbox, and check the result."""
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
    as_json: JsonLines = False,
) -> None:
    """Run everything on this machine until Ctrl-C, which stops it without losing anything."""
    settings = bootstrap.settings()
    for warning in settings.warnings:
        err.print(f"[yellow]{warning}[/yellow]")
    say, flower_port = _say_as_json if as_json else _say, FLOWER_PORT if flower else None
    with (
        stop_signals() as stop_requested,
        run_stack(settings, os.environ, workers or default_workers(), flower_port, say, stop_requested) as program,
    ):
        started = {
            "console": f"{program.urls.web}/console",
            "user": "local" if program.password else None,
            "password": program.password,
            "key": program.key,
            "sandbox": program.urls.sandbox,
            "flower": program.urls.flower,
            "flower_login": program.flower_login,
            "logs": str(settings.home / "log"),
        }
        if as_json:
            print_json_line({"event": "started", "web": program.urls.web, **started})
        else:
            print_started(started)
        program.processes.watch(stop_requested)
        if as_json:
            print_json_line({"event": "stopping"})
        else:
            out.print("stopping: workers finish their tasks …")
    if as_json:
        print_json_line({"event": "stopped"})


STARTED_LABELS = {
    "console": "API, webhooks, console",
    "user": "sign in as",
    "password": "password",
    "key": "API key",
    "sandbox": "sandbox inbox",
    "flower": "Flower",
    "flower_login": "Flower's user:password",
    "logs": "logs",
}


def print_started(started: Mapping[str, str | None]) -> None:
    """Print where everything is, for people."""
    for name, value in started.items():
        if value:
            out.print(f"{STARTED_LABELS[name]:<25}{value}", markup=False)
    out.print("Ctrl-C stops it.")


def _say(text: str) -> None:
    err.print(text, markup=False, soft_wrap=True)


def _say_as_json(text: str) -> None:
    print_json_line({"event": "notice", "text": text})


def check(
    before_upgrade: Annotated[
        bool, typer.Option("--before-upgrade", help="Check instead whether this version may take over. Changes nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check configuration, database, broker, providers, templates and policy. A stopped channel that passes sends again."""
    results = check_before_upgrade() if before_upgrade else check_all()
    if as_json:
        print_json([{"what": result.what, "ok": result.ok, "says": result.detail} for result in results])
    else:
        rows("", ("", "what", "result"), [("✓" if result.ok else "✗", result.what, result.detail) for result in results])
    if not all(result.ok for result in results):
        raise typer.Exit(REFUSED)


def new_key(
    name: Annotated[str, typer.Argument(help="Who calls with it: the name of the actor in the ledger.")],
    right: Annotated[list[str], typer.Option(help=f"{', '.join(api_keys.Right)}; may be repeated.")],
    entity: Annotated[
        list[str] | None,
        typer.Option(help="Only customers, campaigns and messages of this entity; may be repeated. Default: all."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make an API key. Print the lines for the file that DISPATCHER_API_KEYS names, and the key: on stderr, and never again."""
    key, lines = api_keys.new_key(name, right, entities=entity or ())
    if as_json:
        print_json({"name": name, "rights": right, "entities": entity, "key": key, "lines": lines})
        return
    err.print(key, markup=False)
    out.print(lines, markup=False, end="")


def sandbox(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8025,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    profile: Annotated[str, typer.Option(help=f"How the providers behave: {', '.join(PROFILES)}.")] = "calm",
    state: Annotated[Path | None, typer.Option(help="A folder that keeps arrivals and keys over restarts.")] = None,
    report_to: Annotated[
        str, typer.Option(help="The URL of a dispatcher, which then gets delivery reports and inbound messages.")
    ] = "",
    as_json: JsonLines = False,
) -> None:
    """Run the doubles of all providers on one port, with an inbox page at /."""
    if profile not in PROFILES:
        raise typer.BadParameter(f"it must be one of {', '.join(PROFILES)}", param_hint="--profile")
    options = ["--host", host, "--port", str(port), "--profile", profile, *(["--state", str(state)] if state else [])]
    report = ["--dispatcher", report_to] if report_to else []
    raise typer.Exit(main([*options, *report, *(["--json"] if as_json else [])]))

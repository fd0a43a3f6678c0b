"""The root command and the groups below it. A command imports only its own group: all of them take half a second to import."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

import typer

from dispatcher import __version__

# The groups by name, in the order of the help: each is a module of this package and the name of its Typer object there.
GROUPS: Mapping[str, tuple[str, str]] = {
    "run": ("processes", "app"),
    "recipients": ("recipients", "app"),
    "preferences": ("preferences", "app"),
    "suppressions": ("suppressions", "app"),
    "campaign": ("campaigns", "app"),
    "audience": ("audiences", "app"),
    "message": ("messages", "app"),
    "dead": ("messages", "dead"),
    "templates": ("templates", "app"),
    "consent": ("consent", "app"),
    "ledger": ("ledger", "app"),
    "engines": ("engines", "app"),
    "inbound": ("inbound", "app"),
    "job": ("jobs", "app"),
    "events": ("events", "app"),
    "webhooks": ("webhooks", "app"),
    "keys": ("keys", "app"),
    "policy": ("policy", "app"),
    "backup": ("backups", "app"),
    "restore": ("restores", "app"),
    "alerts": ("alerts", "app"),
    "canaries": ("canaries", "app"),
    "users": ("users", "app"),
    "audit": ("audit", "app"),
}


def command_line(first: str = "") -> typer.Typer:
    """The root command: with only the group `first` where there is one of that name, else with all groups and commands."""
    root = typer.Typer(
        help="An omnichannel commercial-messaging dispatcher: consent first, then push, e-mail, SMS and WhatsApp.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    root.callback(invoke_without_command=True)(version)
    if first not in GROUPS:
        from dispatcher.cli import messages, sign_in, system

        system.add_to(root)
        sign_in.add_to(root)
        messages.add_to(root)
    for name in [first] if first in GROUPS else GROUPS:
        module, attribute = GROUPS[name]
        root.add_typer(getattr(import_module(f"dispatcher.cli.{module}"), attribute), name=name)
    return root


def version(ctx: typer.Context, show: bool = typer.Option(False, "--version", help="Print the version and end.")) -> None:
    """Print the version, or the help."""
    if show:
        typer.echo(__version__)
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())

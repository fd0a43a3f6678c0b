"""The `dispatcher` command. Each subcommand calls one use case and prints the result."""

from __future__ import annotations

import logging
import sys

import typer

from dispatcher import __version__
from dispatcher.cli import (
    audiences,
    audit,
    campaigns,
    consent,
    events,
    inbound,
    jobs,
    keys,
    ledger,
    messages,
    policy,
    preferences,
    recipients,
    schedules,
    sign_in,
    suppressions,
    system,
    template_translations,
    templates,
    users,
    webhooks,
    whatsapp_templates,
)

app = typer.Typer(
    help="An omnichannel commercial-messaging dispatcher: consent first, then push, e-mail, SMS and WhatsApp.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
system.add_to(app)
app.add_typer(recipients.app, name="recipients")
app.add_typer(preferences.app, name="preferences")
app.add_typer(suppressions.app, name="suppressions")
app.add_typer(campaigns.app, name="campaign")
campaigns.app.add_typer(schedules.app, name="schedule")
app.add_typer(audiences.app, name="audience")
app.add_typer(messages.app, name="message")
app.add_typer(messages.dead, name="dead")
app.add_typer(templates.app, name="templates")
template_translations.add_to(templates.app)
templates.app.add_typer(whatsapp_templates.app, name="whatsapp")
app.add_typer(consent.app, name="consent")
app.add_typer(ledger.app, name="ledger")
app.add_typer(inbound.app, name="inbound")
app.add_typer(jobs.app, name="job")
app.add_typer(events.app, name="events")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(keys.app, name="keys")
app.add_typer(policy.app, name="policy")
app.add_typer(users.app, name="users")
app.add_typer(audit.app, name="audit")
sign_in.add_to(app)
messages.add_to(app)


@app.callback(invoke_without_command=True)
def version(ctx: typer.Context, show: bool = typer.Option(False, "--version", help="Print the version and end.")) -> None:
    """Print the version, or the help."""
    if show:
        typer.echo(__version__)
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def main() -> None:
    """The console script."""
    from dispatcher.cli.errors import run
    from dispatcher.runtime.logs import configure_logs

    configure_logs(logging.WARNING)  # stdout is for results
    sys.exit(run(app, sys.argv[1:]))

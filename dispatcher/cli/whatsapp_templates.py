"""`dispatcher templates whatsapp …`: approval of WhatsApp texts by WhatsApp."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from dispatcher.campaigns import whatsapp_templates
from dispatcher.campaigns.whatsapp_templates import TemplateApiError, TextStatus
from dispatcher.cli.output import REFUSED, Json, fail, out, print_json, rows, show_left_out
from dispatcher.runtime import bootstrap
from dispatcher.runtime.services import Services

app = typer.Typer(help="Have WhatsApp approve texts, and see what it decided.", no_args_is_help=True)

Name = Annotated[str | None, typer.Argument(metavar="NAME", help="The template's name. Default: all.")]
Action = Callable[[Services, str | None], Sequence[TextStatus]]


@app.command()
def push(name: Name = None, as_json: Json = False) -> None:
    """Create and submit the texts that the provider's account does not have. Safe to repeat."""
    _run(whatsapp_templates.push, name, as_json)


@app.command()
def status(name: Name = None, as_json: Json = False) -> None:
    """Ask the provider for the status of each text; exit code 1 unless all are approved."""
    if not all(each.is_approved for each in _run(whatsapp_templates.refresh, name, as_json)):
        raise typer.Exit(REFUSED)


@app.command()
def pull(name: Name = None, as_json: Json = False) -> None:
    """Record the ids of texts that the provider's account already has. Creates nothing."""
    _run(whatsapp_templates.pull, name, as_json)


def _run(action: Action, name: str | None, as_json: bool) -> Sequence[TextStatus]:
    try:
        statuses = action(bootstrap.services(on_faults=show_left_out), name)
    except TemplateApiError as error:
        fail(str(error), REFUSED)
    if as_json:
        print_json([asdict(each) for each in statuses])
        return statuses
    names = ("template", "language", "mode", "category", "status", "ContentSid", "reason")
    lines = [
        (each.template, each.language, each.mode, each.category, each.status, each.content_sid, each.rejection_reason)
        for each in statuses
    ]
    rows("", names, lines)
    out.print(f"approved: {sum(each.is_approved for each in statuses)} of {len(statuses)}")
    return statuses

"""`dispatcher consent …`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from dispatcher.cli.identity import noted, viewer
from dispatcher.cli.output import AlwaysJson, print_json, show_left_out
from dispatcher.cli.preferences import history_view
from dispatcher.cli.recipients import RecipientId
from dispatcher.consent import preferences
from dispatcher.consent.dpv_export import export_person
from dispatcher.delivery import people
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.runtime import bootstrap

app = typer.Typer(help="Proof of a person's choices.", no_args_is_help=True)


class ConsentFormat(StrEnum):
    """The format of the proof."""

    JSON = "json"
    DPV = "dpv"


@app.callback()
def _group() -> None:
    """Keep `export` a subcommand."""


@app.command()
def export(
    recipient_id: RecipientId,
    form: Annotated[
        ConsentFormat, typer.Option("--format", help="dpv: ISO/IEC TS 27560 records and a receipt, as JSON-LD, under a pseudonym.")
    ] = ConsentFormat.JSON,
    _as_json: AlwaysJson = True,
) -> None:
    """Print every recorded choice of a person as one JSON document."""
    services = bootstrap.services(on_faults=show_left_out)
    noted(services, AuditNote(AuditAction.EXPORT, "preferences", recipient_id, recipient=recipient_id))
    people.require_visible(services, viewer(services), recipient_id)
    if form is ConsentFormat.DPV:
        print_json(export_person(services, recipient_id))
    else:
        print_json(history_view(recipient_id, preferences.history(services, recipient_id)))

"""`dispatcher consent …`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from dispatcher.cli.output import print_json
from dispatcher.cli.recipients import RecipientId, history_view
from dispatcher.consent import dpv_export
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import events as consent
from dispatcher.ledger.keyed_hash import pseudonym
from dispatcher.runtime import bootstrap

app = typer.Typer(help="Proof of what a person chose.", no_args_is_help=True)


class ConsentFormat(StrEnum):
    """How the proof is written."""

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
) -> None:
    """All that a person ever chose, as one JSON document."""
    services = bootstrap.services()
    with lend(services.pool) as connection:
        consent.preferences(connection, recipient_id)  # a stranger is told as such
        events = consent.history(connection, recipient_id)
    if form is ConsentFormat.DPV:
        print_json(dpv_export.export(services.policy, pseudonym(services.secret, recipient_id), events, services.clock()))
    else:
        print_json(history_view(recipient_id, events))

"""`dispatcher recipients …` and `dispatcher preferences …`."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dispatcher import bootstrap
from dispatcher.choices import changes
from dispatcher.cli.output import REFUSED, Json, err, fail, out, pairs, print_json, progress, rows
from dispatcher.faults import BadInput, InputFault
from dispatcher.ledger import consent, recipients
from dispatcher.ledger.pool import lend
from dispatcher.recipients import import_file

app = typer.Typer(help="Import, show, export and erase recipients.", no_args_is_help=True)
preferences = typer.Typer(help="Show and record what a customer chose.", no_args_is_help=True)

RecipientId = Annotated[str, typer.Argument(metavar="ID", help="The recipient's id.")]


class Switch(StrEnum):
    """What a switch can be set to."""

    ON = "on"
    OFF = "off"


class Desk(StrEnum):
    """Where a choice is recorded by hand."""

    MOBILE = "mobile"
    TOUCH = "touch"
    LIVE = "live"
    BRANCH = "branch"


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A .jsonl or .csv file.")],
    rejects: Annotated[Path | None, typer.Option(help="Where rejected rows go. Default: FILE.rejected.jsonl")] = None,
    as_json: Json = False,
) -> None:
    """Take in recipients: new ones are added, known ones updated, bad rows reported and left out."""
    house = bootstrap.house()
    target = rejects or file.with_name(file.name + ".rejected.jsonl")
    with lend(house.pool) as connection, progress("importing", None) as (bar, task):
        imported = import_file(
            connection, house.secret, file, target, getpass.getuser(), house.clock(), lambda done: bar.update(task, completed=done)
        )
    counts = {"new": imported.new, "changed": imported.changed, "unchanged": imported.unchanged, "rejected": imported.rejected}
    faults = [{"line": line, "field": field, "message": reason} for line, field, reason in imported.faults]
    reject_file = str(imported.rejects) if imported.rejects else None
    if as_json:
        print_json({**counts, "faults": faults, "reject_file": reject_file})
    else:
        pairs("", counts)
        for fault in faults:
            err.print(f"{file}:{fault['line']}: {fault['field']}: {fault['message']}", markup=False)
        if reject_file:
            err.print(f"rejected rows, with reasons: {reject_file}", markup=False)
    if imported.rejected and not imported.new + imported.changed + imported.unchanged:
        raise typer.Exit(REFUSED)


@app.command()
def show(recipient_id: RecipientId, as_json: Json = False) -> None:
    """Everything on record about one person."""
    house = bootstrap.house()
    with lend(house.pool) as connection:
        known = recipients.show(connection, recipient_id)
    if as_json:
        print_json(known)
    else:
        pairs("", {name: value for name, value in known.items() if name != "choices"})


@app.command()
def export(recipient_id: RecipientId) -> None:
    """All that is known of a person, history and messages included, as JSON."""
    house = bootstrap.house()
    with lend(house.pool) as connection:
        print_json(recipients.export(connection, recipient_id))


@app.command()
def erase(recipient_id: RecipientId, as_json: Json = False) -> None:
    """Forget a person's addresses, profile and contents; decisions without content, and suppressions, stay."""
    house = bootstrap.house()
    with lend(house.pool) as connection:
        erased = recipients.erase(connection, house.secret, recipient_id, getpass.getuser(), house.clock())
    if as_json:
        print_json({"id": recipient_id, "erased": erased})
    else:
        out.print("erased" if erased else "was erased before")


@preferences.command("show")
def show_preferences(
    recipient_id: RecipientId,
    as_of: Annotated[
        datetime | None, typer.Option(help="What was on record at that time (UTC).", formats=["%Y-%m-%dT%H:%M:%S"])
    ] = None,
    as_json: Json = False,
) -> None:
    """The choices that stand now, or stood then, each with its proof."""
    house = bootstrap.house()
    with lend(house.pool) as connection:
        standing = consent.preferences(connection, recipient_id)
        choices = consent.as_of(connection, recipient_id, as_of.replace(tzinfo=UTC)) if as_of else standing.choices
    lines = [
        (subject, choice.value, choice.at.isoformat(), choice.source, choice.event) for subject, choice in sorted(choices.items())
    ]
    if as_json:
        fields = ("subject", "value", "said_at", "source", "evidence")
        print_json(
            {"id": recipient_id, "version": standing.version, "choices": [dict(zip(fields, line, strict=True)) for line in lines]}
        )
    else:
        rows("", ("subject", "choice", "said at", "source", "evidence"), lines)


@preferences.command("set")
def set_preferences(
    recipient_id: RecipientId,
    source: Annotated[Desk, typer.Option(help="Where the customer said so.")],
    actor: Annotated[str, typer.Option(help="Who recorded it.")],
    offer: Annotated[list[str] | None, typer.Option(metavar="TYPE=tailored|standard|none")] = None,
    email: Annotated[Switch | None, typer.Option()] = None,
    push: Annotated[Switch | None, typer.Option()] = None,
    sms_whatsapp: Annotated[Switch | None, typer.Option()] = None,
    object_marketing: Annotated[Switch | None, typer.Option()] = None,
    wording: Annotated[str, typer.Option(help="Version of the text that the customer saw.")] = "",
    at: Annotated[str | None, typer.Option(help="When it was said, such as 2026-11-23T09:00:00+01:00. Default: now.")] = None,
    as_json: Json = False,
) -> None:
    """Record a choice. Accepting tailored switches every channel on that is not set here."""
    switches = {"email": email, "push": push, "sms_whatsapp": sms_whatsapp}
    asked = changes(
        _offers(offer or []),
        {name: switch is Switch.ON for name, switch in switches.items() if switch is not None},
        None if object_marketing is None else object_marketing is Switch.ON,
    )
    if not asked:
        fail("nothing to record: give --offer, --email, --push, --sms-whatsapp or --object-marketing", 2)
    house = bootstrap.house()
    now = house.clock()
    with lend(house.pool) as connection:
        recorded = consent.record(connection, house.secret, recipient_id, asked, source, actor, wording, _moment(at) or now, now)
    events = [{"subject": event.subject, "value": event.new_value, "evidence": event.evidence} for event in recorded.events]
    if as_json:
        print_json({"id": recipient_id, "version": recorded.version, "events": events})
    else:
        rows("", ("subject", "choice", "evidence"), [tuple(event.values()) for event in events])
        if not events:
            out.print("that stands already")


def _offers(given: list[str]) -> dict[str, str]:
    pairs_ = [text.partition("=") for text in given]
    for text, (_, equals, _value) in zip(given, pairs_, strict=True):
        if not equals:
            raise BadInput(InputFault("--offer", 0, "", f"{text!r} should be TYPE=tailored|standard|none, such as own=standard"))
    return {name: value for name, _, value in pairs_}


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise BadInput(InputFault("--at", 0, "", f"{text!r} is not a moment with its zone, such as 2026-11-23T09:00:00+01:00"))
    return moment

"""`dispatcher recipients …` and `dispatcher preferences …`."""

from __future__ import annotations

import getpass
from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from dispatcher.cli.output import REFUSED, Json, err, fail, out, pairs, print_json, progress, rows
from dispatcher.consent import acknowledgement
from dispatcher.domain.preferences import changes
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.intake.recipient_import import import_file
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import events as consent
from dispatcher.ledger.consent import recipients
from dispatcher.ledger.consent.hash_chain import ConsentEvent
from dispatcher.ledger.delivery.scheduling import DueChunk
from dispatcher.runtime import bootstrap

app = typer.Typer(help="Import, show, export and erase recipients.", no_args_is_help=True)
preferences = typer.Typer(help="Show and record what a customer chose.", no_args_is_help=True)

HISTORY = ("said_at", "recorded_at", "subject", "old_value", "new_value", "source", "actor", "wording", "evidence")
RecipientId = Annotated[str, typer.Argument(metavar="ID", help="The recipient's id.")]


class Switch(StrEnum):
    """What a switch can be set to."""

    ON = "on"
    OFF = "off"


class ChoiceSource(StrEnum):
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
    services = bootstrap.services()
    target = rejects or file.with_name(file.name + ".rejected.jsonl")
    with lend(services.pool) as connection, progress("importing", None) as (bar, task):
        imported = import_file(
            connection,
            services.secret,
            file,
            target,
            getpass.getuser(),
            services.clock(),
            lambda done: bar.update(task, completed=done),
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
    services = bootstrap.services()
    with lend(services.pool) as connection:
        known = recipients.show(connection, recipient_id)
    if as_json:
        print_json(known)
    else:
        pairs("", {name: value for name, value in known.items() if name != "choices"})


@app.command()
def export(recipient_id: RecipientId) -> None:
    """All that is known of a person, history and messages included, as JSON."""
    services = bootstrap.services()
    with lend(services.pool) as connection:
        print_json(recipients.export(connection, recipient_id))


@app.command()
def erase(recipient_id: RecipientId, as_json: Json = False) -> None:
    """Forget a person's addresses, profile and contents; decisions without content, and suppressions, stay."""
    services = bootstrap.services()
    with lend(services.pool) as connection:
        erased = recipients.erase(connection, services.secret, recipient_id, getpass.getuser(), services.clock())
    if as_json:
        print_json({"id": recipient_id, "erased": erased})
    else:
        out.print("erased" if erased else "was erased before")


@preferences.command("show")
def show_preferences(
    recipient_id: RecipientId,
    as_of: Annotated[str | None, typer.Option(help="What was on record then, such as 2026-11-23T09:00:00+01:00.")] = None,
    as_json: Json = False,
) -> None:
    """The choices that stand now, or stood then, each with its proof."""
    then = moment(as_of, "--as-of")
    services = bootstrap.services()
    with lend(services.pool) as connection:
        standing = consent.preferences(connection, recipient_id)
        choices = consent.as_of(connection, recipient_id, then) if then else standing.choices
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


@preferences.command()
def history(recipient_id: RecipientId, as_json: Json = False) -> None:
    """All that a person ever chose, oldest first: when it was said, when recorded, where, by whom, on which wording."""
    services = bootstrap.services()
    with lend(services.pool) as connection:
        consent.preferences(connection, recipient_id)  # a stranger is told as such
        events = consent.history(connection, recipient_id)
    if as_json:
        print_json(history_view(recipient_id, events))
    else:
        lines = [tuple(_cell(getattr(event, name)) for name in HISTORY) for event in events]
        rows("", [name.replace("_", " ") for name in HISTORY], lines)


def history_view(recipient_id: str, events: Sequence[ConsentEvent]) -> dict[str, Any]:
    """What a person chose, ready for JSON."""
    return {"id": recipient_id, "history": [{name: _cell(getattr(event, name)) for name in HISTORY} for event in events]}


def _cell(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value


@preferences.command("set")
def set_preferences(
    recipient_id: RecipientId,
    source: Annotated[ChoiceSource, typer.Option(help="Where the customer said so.")],
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
    services = bootstrap.services()
    recorded = acknowledgement.record(services, publish, recipient_id, asked, source, actor, wording, moment(at, "--at"))
    events = [{"subject": event.subject, "value": event.new_value, "evidence": event.evidence} for event in recorded.events]
    outranked = [{"subject": change.subject, "value": change.value} for change in recorded.outranked]
    if as_json:
        print_json({"id": recipient_id, "version": recorded.version, "events": events, "outranked": outranked})
        return
    if events:
        rows("", ("subject", "choice", "evidence"), [tuple(event.values()) for event in events])
    for change in recorded.outranked:
        out.print(f"not taken: {change.subject} {change.value}; a newer word of the person stands", markup=False)
    if not events and not outranked:
        out.print("that stands already")


def _offers(given: list[str]) -> dict[str, str]:
    pairs_ = [text.partition("=") for text in given]
    for text, (_, equals, _value) in zip(given, pairs_, strict=True):
        if not equals:
            raise BadInput(InputError("--offer", 0, "", f"{text!r} should be TYPE=tailored|standard|none, such as own=standard"))
    return {name: value for name, _, value in pairs_}


def publish(dues: Iterable[DueChunk]) -> None:
    """Put work on the broker."""
    from dispatcher import tasks

    tasks.publish(dues)


def moment(text: str | None, option: str) -> datetime | None:
    """A moment with its zone, as given for an option. Raises `BadInput`."""
    if text is None:
        return None
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        read = None
    if read is None or read.tzinfo is None:
        raise BadInput(InputError(option, 0, "", f"{text!r} is not a moment with its zone, such as 2026-11-23T09:00:00+01:00"))
    return read

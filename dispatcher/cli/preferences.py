"""`dispatcher preferences …`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from dispatcher.cli.broker import publish
from dispatcher.cli.identity import noted, open_for, viewer
from dispatcher.cli.output import BAD_INPUT, Json, fail, out, print_json, rows, show_left_out
from dispatcher.cli.recipients import RecipientId
from dispatcher.consent import preferences
from dispatcher.consent.preferences import ConsentEvent, PreferenceChange
from dispatcher.delivery import people
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.preferences import changes
from dispatcher.domain.principal import Right
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.runtime import bootstrap

app = typer.Typer(help="Show and record a customer's choices.", no_args_is_help=True)

HISTORY = (
    "said_at",
    "recorded_at",
    "subject",
    "old_value",
    "new_value",
    "source",
    "actor",
    "wording",
    "evidence",
    "dated",
    "contract_version",
)
CHOICE = ("subject", "value", "said_at", "source", "evidence", "dated", "contract_version")


class Switch(StrEnum):
    """A value of a switch."""

    ON = "on"
    OFF = "off"


class ChoiceSource(StrEnum):
    """Where a choice is recorded by hand."""

    MOBILE = "mobile"
    TOUCH = "touch"
    LIVE = "live"
    BRANCH = "branch"


@app.command("show")
def show(
    recipient_id: RecipientId,
    as_of: Annotated[str | None, typer.Option(help="What was on record at a moment, such as 2026-11-23T09:00:00+01:00.")] = None,
    as_json: Json = False,
) -> None:
    """Show the choices in force now, or on record at a moment, each with its proof."""
    moment = _moment(as_of, "--as-of")
    services = bootstrap.services(on_faults=show_left_out)
    noted(services, AuditNote(AuditAction.LOOK, "preferences", recipient_id, recipient=recipient_id))
    people.require_visible(services, viewer(services), recipient_id)
    present = preferences.show(services, recipient_id)
    choices = preferences.as_of(services, recipient_id, moment) if moment else present.choices
    lines = [
        (subject, choice.value, choice.at.isoformat(), choice.source, choice.event, choice.dated, choice.contract_version)
        for subject, choice in sorted(choices.items())
    ]
    if as_json:
        documents = [dict(zip(CHOICE, line, strict=True)) for line in lines]
        print_json({"id": recipient_id, "version": present.version, "choices": documents})
    else:
        rows("", ("subject", "choice", "said at", "source", "evidence", "contract"), [_shown(line) for line in lines])


@app.command()
def history(recipient_id: RecipientId, as_json: Json = False) -> None:
    """Show every recorded choice, oldest first: when it was made and recorded, where, by whom, on which text."""
    services = bootstrap.services(on_faults=show_left_out)
    noted(services, AuditNote(AuditAction.LOOK, "preferences", recipient_id, recipient=recipient_id))
    people.require_visible(services, viewer(services), recipient_id)
    events = preferences.history(services, recipient_id)
    if as_json:
        print_json(history_view(recipient_id, events))
    else:
        names = [name for name in HISTORY if name != "dated"]
        lines = [
            tuple("unknown" if name == "said_at" and not event.dated else _cell(getattr(event, name)) for name in names)
            for event in events
        ]
        rows("", [name.replace("_", " ") for name in names], lines)


def _shown(line: tuple[Any, ...]) -> tuple[Any, ...]:
    """A line of `CHOICE` for people: no time where none is known."""
    subject, value, said_at, source, evidence, dated, contract_version = line
    return subject, value, said_at if dated else "unknown", source, evidence, contract_version


def history_view(recipient_id: str, events: Sequence[ConsentEvent]) -> dict[str, Any]:
    """A person's recorded choices, ready for JSON."""
    return {"id": recipient_id, "history": [{name: _cell(getattr(event, name)) for name in HISTORY} for event in events]}


def _cell(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value


@app.command("set")
def set_(
    recipient_id: RecipientId,
    source: Annotated[ChoiceSource, typer.Option(help="Where the customer made the choice.")],
    offer: Annotated[list[str] | None, typer.Option(metavar="TYPE=tailored|standard|none")] = None,
    email: Annotated[Switch | None, typer.Option()] = None,
    push: Annotated[Switch | None, typer.Option()] = None,
    sms_whatsapp: Annotated[Switch | None, typer.Option()] = None,
    object_marketing: Annotated[Switch | None, typer.Option()] = None,
    wording: Annotated[str, typer.Option(help="Version of the text that the customer saw.")] = "",
    contract_version: Annotated[str, typer.Option(help="Version of the contract that a tailored choice accepts.")] = "",
    at: Annotated[str | None, typer.Option(help="When it was said, such as 2026-11-23T09:00:00+01:00. Default: now.")] = None,
    actor: Annotated[str, typer.Option(help="For whom it is recorded, such as a desk. Default: you.")] = "",
    as_json: Json = False,
) -> None:
    """Record a choice. Accepting tailored switches on every channel that is not set here."""
    switches = {"email": email, "push": push, "sms_whatsapp": sms_whatsapp}
    requested = changes(
        _offers(offer or []),
        {name: switch is Switch.ON for name, switch in switches.items() if switch is not None},
        None if object_marketing is None else object_marketing is Switch.ON,
    )
    if not requested:
        fail("nothing to record: give --offer, --email, --push, --sms-whatsapp or --object-marketing", BAD_INPUT)
    services, who = open_for(
        Right.PREFERENCES, act=AuditNote(AuditAction.CHANGE, "preferences", recipient_id, recipient=recipient_id)
    )
    people.require_visible(services, viewer(services), recipient_id)
    change = PreferenceChange(
        recipient_id, requested, source, actor or who, wording, said_at=_moment(at, "--at"), contract_version=contract_version
    )
    recorded = preferences.record(services, publish, change)
    events = [{"subject": event.subject, "value": event.new_value, "evidence": event.evidence} for event in recorded.events]
    superseded = [{"subject": each.subject, "value": each.value} for each in recorded.superseded]
    if as_json:
        print_json({"id": recipient_id, "version": recorded.version, "events": events, "outranked": superseded})
        return
    if events:
        rows("", ("subject", "choice", "evidence"), [tuple(event.values()) for event in events])
    for each in recorded.superseded:
        out.print(f"not recorded: {each.subject} {each.value}; the person made a later choice", markup=False)
    if not events and not superseded:
        out.print("no change: these choices are in force already")


def _offers(given: list[str]) -> dict[str, str]:
    parts = [text.partition("=") for text in given]
    for text, (_, equals, _value) in zip(given, parts, strict=True):
        if not equals:
            raise BadInput(InputError("--offer", 0, "", f"{text!r} should be TYPE=tailored|standard|none, such as own=standard"))
    return {name: value for name, _, value in parts}


def _moment(text: str | None, option: str) -> datetime | None:
    """A moment with its time zone, as given for an option. Raises `BadInput`."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise BadInput(InputError(option, 0, "", f"{text!r} is not a moment with its time zone, such as 2026-11-23T09:00:00+01:00"))
    return moment

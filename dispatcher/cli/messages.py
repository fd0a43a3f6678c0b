"""`dispatcher send`, `dispatcher message …` and `dispatcher dead …`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from channels.base import Channel
from dispatcher.campaigns import submission, trigger_cancellation
from dispatcher.cli.broker import publish_or_warn
from dispatcher.cli.identity import confirm_person, limit, noted, open_for
from dispatcher.cli.output import BAD_INPUT, REFUSED, Json, fail, out, pairs, plural, print_json, progress, rows, show_left_out
from dispatcher.cli.waiting import Patience, Timeout
from dispatcher.delivery import messages, reconciliation
from dispatcher.delivery.explanation import explain_to_customer
from dispatcher.delivery.messages import UNKNOWN_PROVIDER, Message, MessageFilter, UnresolvedFilter
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.message import State
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.principal import Right
from dispatcher.domain.recipient import LANGUAGES
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.runtime import bootstrap
from dispatcher.runtime.services import Services
from dispatcher.web.serializers.messages import (
    dead_view,
    explanation_view,
    message_page,
    message_view,
    unresolved_group_view,
    unresolved_view,
)

app = typer.Typer(help="Show and explain single messages.", no_args_is_help=True)
dead = typer.Typer(help="Messages whose attempts are used up, and their replay.", no_args_is_help=True)

MessageIdArgument = Annotated[str, typer.Argument(metavar="MESSAGE_ID", help="Such as 202611-123-17-0.")]
MOVING = (State.PENDING, State.CLAIMED)
UNSENT = (State.REFUSED, State.FAILED, State.EXPIRED)
WAIT_SECONDS_MAX = 60
POLLS_A_SECOND = 10
DEAD_SHOWN = 1_000


def add_to(root: typer.Typer) -> None:
    """Add `send` to the root command."""
    root.command()(send)


def send(
    recipient: Annotated[str, typer.Argument(help="The recipient's id.")],
    template: Annotated[str, typer.Argument(help="The template's name.")],
    key: Annotated[str, typer.Option(help="Your own name for the job: the same key is the same job, and is sent once.")],
    data: Annotated[str, typer.Option(help="The template's variables, as JSON.")] = "{}",
    wait: Annotated[bool, typer.Option("--wait", help="Return when it is decided and handed off.")] = False,
    timeout: Timeout = None,
    send_at: Annotated[str | None, typer.Option(help="When, with its zone: 2026-12-01T09:00:00+01:00. Default: at once.")] = None,
    as_json: Json = False,
) -> None:
    """Send one message to one recipient, through every check."""
    try:
        variables = json.loads(data)
    except json.JSONDecodeError as error:
        raise BadInput(InputError("--data", 0, "", f"is not JSON: {error.msg} at column {error.colno}")) from None
    if timeout is not None and not wait:
        fail("--timeout needs --wait", BAD_INPUT)
    services, _ = open_for(Right.MESSAGES)
    job = {"key": key, "recipient": recipient, "template": template, "data": variables}
    place = submission.accept_trigger(services, job if send_at is None else {**job, "send_at": send_at}, limit(services))
    if submission.is_due(services, place):
        publish_or_warn([submission.chunk_of(place)], "message")
    elif wait:
        fail(f"it is sent at {place.due_at.isoformat()}: leave out --wait", BAD_INPUT)
    message_id = submission.message_id_of(place)
    message = _wait(services, message_id, timeout or WAIT_SECONDS_MAX) if wait else _find(services, message_id)
    _show(message, as_json)
    if wait and message.state in UNSENT:
        raise typer.Exit(REFUSED)


def _wait(services: Services, message_id: MessageId, timeout: float) -> Message:
    patience = Patience(services, f"message {message_id}", timeout)
    with progress(str(message_id), None) as (bar, task):
        while True:
            message = _find(services, message_id)
            if message.state not in MOVING:
                return message
            bar.update(task, description=f"{message_id}: {message.state}")
            patience.pause(message.state, str(message.state), 1 / POLLS_A_SECOND)


@app.command()
def cancel(
    message_id: Annotated[str | None, typer.Argument(metavar="MESSAGE_ID", help="Such as 202611-123-0-0.")] = None,
    key: Annotated[str | None, typer.Option(help="The trigger's key, instead of its message id.")] = None,
    as_json: Json = False,
) -> None:
    """Cancel a trigger that is not sent yet."""
    if (message_id is None) == (key is None):
        fail("name either a message id or --key", BAD_INPUT)
    services = bootstrap.services(on_faults=show_left_out)
    if key is not None:
        result = trigger_cancellation.cancel_by_key(services, key, limit(services))
    else:
        result = trigger_cancellation.cancel(services, MessageId.parse(message_id or ""), limit(services))
    if result is None:
        fail(f"no message has the {'key' if key is not None else 'id'} {key or message_id}", REFUSED)
    if result.refusal is not None:
        fail(f"message {result.message.ref}: {result.refusal}", REFUSED)
    _show(result.message, as_json)


@app.command("list")
def list_(  # one option for each filter
    recipient: Annotated[str | None, typer.Option(help="A recipient's id.")] = None,
    campaign: Annotated[str | None, typer.Option(help="A campaign's id.")] = None,
    state: Annotated[State | None, typer.Option(help="A state.")] = None,
    channel: Annotated[Channel | None, typer.Option(help="A channel.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Changed at this time or later (UTC).")] = None,
    until: Annotated[datetime | None, typer.Option(help="Changed before this time (UTC).")] = None,
    cursor: Annotated[str | None, typer.Option(help="`next` of the page before.")] = None,
    count: Annotated[int, typer.Option("--limit", min=1, max=1_000)] = 50,
    as_json: Json = False,
) -> None:
    """List messages, newest first, without addresses and contents."""
    since, until = (at.replace(tzinfo=UTC) if at else None for at in (since, until))
    services = bootstrap.services(on_faults=show_left_out)
    wanted = MessageFilter(recipient, campaign, state, channel, since, until, limit(services))
    page = message_page(messages.list_page(services, wanted, cursor, count))
    if as_json:
        print_json(page)
        return
    if page["messages"]:
        rows("", tuple(page["messages"][0]), [tuple(line.values()) for line in page["messages"]])
    else:
        out.print("no message")
    if page["next"]:
        out.print(f"more: --cursor {page['next']}", markup=False)


def _find(services: Services, message_id: MessageId) -> Message:
    return messages.find(services, message_id, limit(services)) or fail(f"no message has the id {message_id}", REFUSED)


def _show(message: Message, as_json: bool) -> None:
    view = message_view(message)
    if as_json:
        print_json(view)
        return
    events = view.pop("events")
    view.pop("decision")
    pairs("", view)
    if events:
        rows("\nevents", ("provider", "event", "code", "at", "extra"), [tuple(event.values()) for event in events])


@app.command()
def show(message_id: MessageIdArgument, as_json: Json = False) -> None:
    """Show a message's state, and its provider's reports."""
    services = bootstrap.services(on_faults=show_left_out)
    message = _find(services, MessageId.parse(message_id))
    _note_look(services, message)
    _show(message, as_json)


def _note_look(services: Services, message: Message) -> None:
    noted(services, AuditNote(AuditAction.LOOK, "message", str(message.ref), message.recipient_id, message.spec.entity))


@app.command("explain")
def explain_(
    message_id: Annotated[str | None, typer.Argument(metavar="[MESSAGE_ID]")] = None,
    campaign: Annotated[str | None, typer.Option(help="With --recipient, instead of the message id.")] = None,
    recipient: Annotated[str | None, typer.Option(help="With --campaign.")] = None,
    language: Annotated[str, typer.Option(help="nl, fr, de or en.")] = "en",
    as_json: Json = False,
) -> None:
    """Explain why a message was sent or not, in sentences for its recipient."""
    if language not in LANGUAGES:
        fail(f"--language: {language!r} is not one of {', '.join(LANGUAGES)}", BAD_INPUT)
    services = bootstrap.services(on_faults=show_left_out)
    found: Sequence[Message]
    if message_id:
        found = [_find(services, MessageId.parse(message_id))]
    elif campaign and recipient:
        found = messages.of_campaign(services, campaign, recipient, limit(services))
    else:
        fail("name a MESSAGE_ID, or --campaign and --recipient", BAD_INPUT)
    if not found:
        fail(f"campaign {campaign} has no message for recipient {recipient}", REFUSED)
    for message in found:
        _note_look(services, message)
    explanations = [explanation(services, message, language) for message in found]
    if as_json:
        print_json(explanations if len(explanations) > 1 else explanations[0])
    else:
        for each in explanations:
            print_explanation(each)


OfCampaign = Annotated[str | None, typer.Option(help="Of this campaign only.")]
OfChannel = Annotated[Channel | None, typer.Option(help="Of this channel only.")]
OfProvider = Annotated[
    str | None,
    typer.Option(help=f"Handed to this provider only; `{UNKNOWN_PROVIDER}` where none is on record, as of a lost worker."),
]
Since = Annotated[datetime | None, typer.Option(help="Claimed for sending at this time (UTC) or later.")]
Until = Annotated[datetime | None, typer.Option(help="Claimed for sending before this time (UTC).")]


def _filter(
    campaign: str | None, channel: Channel | None, provider: str | None, since: datetime | None, until: datetime | None
) -> UnresolvedFilter:
    first, last = (each.replace(tzinfo=UTC) if each else None for each in (since, until))
    return UnresolvedFilter(campaign, channel, provider, first, last)


@app.command()
def unresolved(
    campaign: OfCampaign = None,
    channel: OfChannel = None,
    provider: OfProvider = None,
    since: Since = None,
    until: Until = None,
    count: Annotated[int, typer.Option("--limit", min=1, help="At most so many, oldest first.")] = 200,
    as_json: Json = False,
) -> None:
    """List unresolved messages, which may have been sent. `ask at` is the time of the next look-up, if any."""
    services = bootstrap.services(on_faults=show_left_out)
    wanted = replace(_filter(campaign, channel, provider, since, until), entities=limit(services))
    views = [unresolved_view(each) for each in messages.list_unresolved(services, wanted, count)]
    if as_json:
        print_json(views)
    elif not views:
        out.print("no message is unresolved")
    else:
        names = ("id", "campaign", "recipient", "channel", "reason", "since", "ask at", "provider", "claimed at")
        rows("", names, [tuple(view.values()) for view in views])


class HandResolution(StrEnum):
    """How a person can resolve an unresolved message."""

    ACCEPTED = "accepted"
    FAILED = "failed"


@app.command("settle")
def resolve(
    state: Annotated[
        HandResolution, typer.Option("--as", help="accepted: it was sent. failed: it was not, and another channel may follow.")
    ],
    message_id: Annotated[str | None, typer.Argument(metavar="[MESSAGE_ID]", help="Such as 202611-123-17-0.")] = None,
    campaign: OfCampaign = None,
    channel: OfChannel = None,
    provider: OfProvider = None,
    since: Since = None,
    until: Until = None,
    yes: Annotated[bool, typer.Option("--yes", help="Resolve all that match. Without it they are only counted.")] = False,
    as_json: Json = False,
) -> None:
    """Resolve an unresolved message by hand, where no look-up at the provider can.

    Without MESSAGE_ID: all that match the options. They are only counted until the command is repeated with --yes.
    """
    wanted = _filter(campaign, channel, provider, since, until)
    if (message_id is None) == wanted.is_empty:
        fail("name either a MESSAGE_ID, or a campaign, channel, provider or time", BAD_INPUT)
    act = AuditNote(AuditAction.SETTLE, "message", message_id or "", detail={"campaign": campaign, "as": state.value})
    (services, who), was_sent = open_for(Right.OPERATE, act=act), state is HandResolution.ACCEPTED
    if message_id is None:
        if yes:
            confirm_person(services)
        wanted = replace(wanted, entities=limit(services))
        _resolve_all(services, wanted, was_sent, who if yes else None, as_json)
        return
    parsed = MessageId.parse(message_id)
    _find(services, parsed)
    if not reconciliation.resolve_by_hand(services, parsed, was_sent, who):
        fail(f"message {parsed} is not unresolved", REFUSED)
    _show(_find(services, parsed), as_json)


def _resolve_all(services: Services, wanted: UnresolvedFilter, was_sent: bool, who: str | None, as_json: bool) -> None:
    """Count the messages that match; then resolve them, if `who` is given."""
    groups = [unresolved_group_view(group) for group in messages.count_unresolved(services, wanted)]
    matching = sum(group["messages"] for group in groups)
    resolved = reconciliation.resolve_all_by_hand(services, wanted, was_sent, who) if who else 0
    if as_json:
        print_json({"matching": matching, "groups": groups, "settled": resolved})
        return
    if groups:
        names = ("campaign", "channel", "provider", "messages", "first claimed at", "last claimed at")
        rows("", names, [tuple(group.values()) for group in groups])
    if who:
        out.print(f"{plural(resolved, 'message')} resolved")
    else:
        out.print(f"{plural(matching, 'message')} match. Nothing is resolved yet: repeat the command with --yes", markup=False)


def explanation(services: Services, message: Message, language: str) -> dict[str, Any]:
    """The explanation of a message as plain data."""
    return explanation_view(message, explain_to_customer(services, message, language))


def print_explanation(view: dict[str, Any]) -> None:
    """Print an explanation."""
    out.print(f"[bold]{view['id']}[/bold]  {view['recipient']}  {view['state']}  {view['reason'] or ''}")
    for paragraph in view["text"].splitlines():
        out.print(f"  {paragraph}", markup=False)


@dead.command("list")
def list_dead(campaign: Annotated[str | None, typer.Option()] = None, as_json: Json = False) -> None:
    """List dead messages, newest first."""
    services = bootstrap.services(on_faults=show_left_out)
    views = [dead_view(each) for each in messages.list_dead(services, campaign, DEAD_SHOWN, limit(services))]
    if as_json:
        print_json(views)
    elif not views:
        out.print("no message is dead")
    else:
        rows("", ("message", "campaign", "reason", "since"), [tuple(view.values()) for view in views])


@dead.command()
def replay(
    message_ids: Annotated[list[str] | None, typer.Argument(metavar="[MESSAGE_ID]...")] = None,
    campaign: Annotated[str | None, typer.Option(help="All dead messages of this campaign.")] = None,
    as_json: Json = False,
) -> None:
    """Give dead messages new attempts. Each is decided anew first."""
    if not message_ids and not campaign:
        fail("name message ids, or --campaign", BAD_INPUT)
    parsed = [MessageId.parse(text) for text in message_ids or ()]
    act = AuditNote(AuditAction.REPLAY, "message", " ".join(message_ids or ()), detail={"campaign": campaign})
    services, _ = open_for(Right.OPERATE, act=act)
    result = messages.replay(services, parsed, campaign, limit(services))
    if as_json:
        print_json({"replayed": result.replayed, "refused": {str(ref): reason for ref, reason in result.refused.items()}})
        return
    out.print(f"{plural(result.replayed, 'message')} replayed")
    if result.refused:
        rows("\nnot replayed", ("message", "why"), [(str(ref), reason) for ref, reason in result.refused.items()])

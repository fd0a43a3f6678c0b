"""`dispatcher send`, `dispatcher message …` and `dispatcher dead …`."""

from __future__ import annotations

import getpass
import json
from enum import StrEnum
from typing import Annotated, Any

import typer

from dispatcher.campaigns import submission
from dispatcher.cli.output import REFUSED, Json, err, fail, out, pairs, print_json, rows
from dispatcher.delivery import reconciliation
from dispatcher.delivery.explanation import explain_message
from dispatcher.domain.message import State
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.recipient import LANGUAGES
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.intake.trigger import parse_trigger
from dispatcher.ledger.connection import lend
from dispatcher.ledger.delivery import messages
from dispatcher.ledger.delivery import unresolved as doubts_kept
from dispatcher.ledger.delivery.messages import Message
from dispatcher.ledger.delivery.scheduling import DueChunk
from dispatcher.runtime import bootstrap
from dispatcher.runtime.services import Services
from dispatcher.web.serializers import explanation_view, message_view, moment

app = typer.Typer(help="Show and explain single messages.", no_args_is_help=True)
dead = typer.Typer(help="Messages whose attempts are spent, and how they come back.", no_args_is_help=True)

MessageIdArgument = Annotated[str, typer.Argument(metavar="MESSAGE_ID", help="Such as 202611-123-17-0.")]
MOVING = (State.PENDING, State.CLAIMED)
WAIT_SECONDS_MAX = 60


def add_to(root: typer.Typer) -> None:
    """Hang `send` onto the root."""
    root.command()(send)


def send(
    recipient: Annotated[str, typer.Argument(help="The recipient's id.")],
    template: Annotated[str, typer.Argument(help="The template's name.")],
    key: Annotated[str, typer.Option(help="Yours: the same key is the same job, and is sent once.")],
    data: Annotated[str, typer.Option(help="The template's variables, as JSON.")] = "{}",
    wait: Annotated[bool, typer.Option("--wait", help="Return when it is decided and handed over.")] = False,
    as_json: Json = False,
) -> None:
    """Send one message to one recipient, through every check."""
    try:
        variables = json.loads(data)
    except json.JSONDecodeError as error:
        raise BadInput(InputError("--data", 0, "", f"is not JSON: {error.msg} at column {error.colno}")) from None
    services = bootstrap.services()
    job = {"key": key, "recipient": recipient, "template": template, "data": variables}
    place = submission.take_trigger(services, parse_trigger(job, submission.validation_context(services)))
    _publish(DueChunk(place.period, place.chunk, None))
    ref = MessageId(place.period, place.chunk, 0, 0)
    message = _wait(services, ref) if wait else _find(services, ref)
    _show(message, as_json)
    if wait and message.state in (State.REFUSED, State.FAILED, State.EXPIRED):
        raise typer.Exit(REFUSED)


def _publish(due: DueChunk) -> None:
    from dispatcher import tasks

    try:
        tasks.publish([due])
    except tasks.BROKER_FAULTS:
        err.print("the broker can't be reached; the message is in the ledger and goes when it is back")


def _wait(services: Services, ref: MessageId) -> Message:
    for _ in range(WAIT_SECONDS_MAX * 10):
        message = _find(services, ref)
        if message.state not in MOVING:
            return message
        services.sleep(0.1)
    return fail(f"message {ref} is still {message.state}: is a worker running? (`dispatcher up`)", REFUSED)


def _find(services: Services, ref: MessageId) -> Message:
    with lend(services.pool) as connection:
        message = messages.find(connection, ref)
    return message or fail(f"no message has the id {ref}", REFUSED)


def _show(message: Message, as_json: bool) -> None:
    view = message_view(message)
    if as_json:
        print_json(view)
        return
    events = view.pop("events")
    view.pop("decision")
    pairs("", view)
    if events:
        rows("\nevents", ("provider", "event", "code", "at"), [tuple(event.values()) for event in events])


@app.command()
def show(message_id: MessageIdArgument, as_json: Json = False) -> None:
    """Where a message stands."""
    _show(_find(bootstrap.services(), MessageId.parse(message_id)), as_json)


@app.command("explain")
def explain_(
    message_id: Annotated[str | None, typer.Argument(metavar="[MESSAGE_ID]")] = None,
    campaign: Annotated[str | None, typer.Option(help="With --recipient, in place of the message id.")] = None,
    recipient: Annotated[str | None, typer.Option(help="With --campaign.")] = None,
    language: Annotated[str, typer.Option(help="nl, fr, de or en.")] = "en",
    as_json: Json = False,
) -> None:
    """Why a message was sent or not, in sentences that its recipient understands."""
    if language not in LANGUAGES:
        fail(f"--language: {language!r} is not one of {', '.join(LANGUAGES)}", 2)
    services = bootstrap.services()
    if message_id:
        found = [_find(services, MessageId.parse(message_id))]
    elif campaign and recipient:
        with lend(services.pool) as connection:
            found = messages.of_campaign(connection, campaign, recipient)
    else:
        fail("name a MESSAGE_ID, or --campaign and --recipient", 2)
    if not found:
        fail(f"campaign {campaign} has nothing for recipient {recipient}", REFUSED)
    told = [explanation(services, message, language) for message in found]
    if as_json:
        print_json(told if len(told) > 1 else told[0])
    else:
        for item in told:
            print_explanation(item)


@app.command()
def unresolved(
    campaign: Annotated[str | None, typer.Option(help="Of this campaign only.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, oldest first.")] = 200,
    as_json: Json = False,
) -> None:
    """Messages that may have gone: their answer got lost. Providers are asked about them; where none can be, `ask_at` is empty."""
    with lend(bootstrap.services().pool) as connection:
        found = doubts_kept.list_unresolved(connection, campaign, limit)
    fields = ("id", "campaign", "recipient", "channel", "reason", "since", "ask_at")
    lines = [
        (str(each.ref), each.campaign_id, each.recipient_id, each.channel, each.reason, moment(each.since), moment(each.ask_at))
        for each in found
    ]
    if as_json:
        print_json([dict(zip(fields, line, strict=True)) for line in lines])
    else:
        rows("", [name.replace("_", " ") for name in fields], lines)


class HandSettlement(StrEnum):
    """What a person can say of an unresolved message."""

    ACCEPTED = "accepted"
    FAILED = "failed"


@app.command()
def settle(
    message_id: MessageIdArgument,
    fate: Annotated[
        HandSettlement, typer.Option("--as", help="accepted: it left. failed: it did not, and another channel may follow.")
    ],
    actor: Annotated[str | None, typer.Option(help="Who knows. Default: you.")] = None,
    as_json: Json = False,
) -> None:
    """Say what became of a message that may have gone, where no provider can."""
    services, ref = bootstrap.services(), MessageId.parse(message_id)
    _find(services, ref)
    if not reconciliation.settle_by_hand(services, ref, fate is HandSettlement.ACCEPTED, actor or getpass.getuser()):
        fail(f"message {ref} is not unresolved", REFUSED)
    _show(_find(services, ref), as_json)


def explanation(services: Services, message: Message, language: str) -> dict[str, Any]:
    """A message's explanation as plain data."""
    with lend(services.pool) as connection:
        return explanation_view(message, explain_message(services, connection, message, language))


def print_explanation(told: dict[str, Any]) -> None:
    """An explanation, to be read."""
    out.print(f"[bold]{told['id']}[/bold]  {told['recipient']}  {told['state']}  {told['reason'] or ''}")
    for paragraph in told["text"].splitlines():
        out.print(f"  {paragraph}", markup=False)


@dead.command("list")
def list_dead(campaign: Annotated[str | None, typer.Option()] = None, as_json: Json = False) -> None:
    """Messages that were given up."""
    services = bootstrap.services()
    with lend(services.pool) as connection:
        lines = [
            (str(ref), campaign_id, reason, moment(at))
            for ref, campaign_id, reason, at in messages.dead(connection, campaign, 1000)
        ]
    if as_json:
        print_json([dict(zip(("id", "campaign", "reason", "since"), line, strict=True)) for line in lines])
    else:
        rows("", ("message", "campaign", "reason", "since"), lines)


@dead.command()
def replay(
    message_ids: Annotated[list[str] | None, typer.Argument(metavar="[MESSAGE_ID]...")] = None,
    campaign: Annotated[str | None, typer.Option(help="All dead messages of this campaign.")] = None,
    as_json: Json = False,
) -> None:
    """Give dead messages new attempts; each is decided anew first."""
    if not message_ids and not campaign:
        fail("name message ids, or --campaign", 2)
    services = bootstrap.services()
    with lend(services.pool) as connection:
        refs = [MessageId.parse(text) for text in message_ids or ()]
        refs += [ref for ref, *_ in messages.dead(connection, campaign, 1_000_000)] if campaign else []
        result = messages.replay(connection, refs, services.clock())
    if as_json:
        print_json({"replayed": result.replayed, "refused": {str(ref): reason for ref, reason in result.refused.items()}})
    else:
        out.print(f"{result.replayed} given new attempts")
        if result.refused:
            rows("\nnot replayed", ("message", "why"), [(str(ref), reason) for ref, reason in result.refused.items()])

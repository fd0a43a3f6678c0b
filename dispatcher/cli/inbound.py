"""`dispatcher inbound …`: inbound messages by SMS or WhatsApp that are not a keyword."""

from __future__ import annotations

from typing import Annotated

import typer

from dispatcher.cli.broker import publish
from dispatcher.cli.identity import limit, open_for
from dispatcher.cli.output import REFUSED, Json, fail, out, print_json, rows, show_left_out
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.principal import Right
from dispatcher.inbound import agent_reply, customer_replies
from dispatcher.runtime import bootstrap
from dispatcher.web.serializers.times import moment

app = typer.Typer(help="Inbound messages that a person must read.", no_args_is_help=True)

MessageIdArgument = Annotated[str, typer.Argument(metavar="ID", help="The message's id.")]
FIELDS = ("id", "received_at", "answer_until", "channel", "recipients", "text")


@app.command("list")
def list_(
    count: Annotated[int, typer.Option("--limit", min=1, help="At most so many, oldest first.")] = 50,
    as_json: Json = False,
) -> None:
    """List inbound messages that wait, with the ids of all who may have sent them. The policy limits how long texts are kept."""
    services = bootstrap.services(on_faults=show_left_out)
    lines = [
        (each.id, each.received_at.isoformat(), moment(each.answer_until), each.channel.value, list(each.recipients), each.text)
        for each in customer_replies.waiting(services, count, limit(services))
    ]
    if as_json:
        print_json({"texts": [dict(zip(FIELDS, line, strict=True)) for line in lines]})
    elif lines:
        rows("", [name.replace("_", " ") for name in FIELDS], [(*line[:4], " ".join(line[4]), line[5]) for line in lines])
    else:
        out.print("no inbound message is waiting")


@app.command()
def answer(
    message_id: MessageIdArgument,
    text: Annotated[str, typer.Argument(help="The answer, in the person's language. It is sent as it is, and not stored.")],
    as_json: Json = False,
) -> None:
    """Answer a message and take it off the list. WhatsApp allows that within 24 hours of the person's own message."""
    services, who = open_for(Right.INBOUND, act=AuditNote(AuditAction.ANSWER, "inbound_message", message_id))
    objection = agent_reply.answer(services, message_id, text, who, limit(services))
    if objection is not None:
        fail(objection, REFUSED)
    if as_json:
        print_json({"id": message_id, "answered": True})
    else:
        out.print("answered")


@app.command()
def close(
    message_id: MessageIdArgument,
    stop: Annotated[
        bool, typer.Option("--stop", help="It is an opt-out: apply it as a STOP, from the time when it came in.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Take a message off the list once somebody has read it."""
    services, who = open_for(Right.INBOUND, act=AuditNote(AuditAction.CLOSE, "inbound_message", message_id))
    if not customer_replies.close_unclear_message(services, publish, message_id, who, stop, limit(services)):
        fail(f"no inbound message {message_id} is waiting", REFUSED)
    if as_json:
        print_json({"id": message_id, "closed": True, "stop": stop})
    else:
        out.print("closed, and obeyed as a STOP" if stop else "closed")

"""`dispatcher inbound …`: what people answered by SMS or WhatsApp that no machine understood."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from dispatcher.cli.output import REFUSED, Json, fail, out, print_json, rows
from dispatcher.cli.recipients import publish
from dispatcher.inbound import agent_reply, customer_replies
from dispatcher.runtime import bootstrap
from dispatcher.web.serializers import moment

app = typer.Typer(help="Answers that need a person to read them.", no_args_is_help=True)


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, help="At most so many, oldest first.")] = 50,
    as_json: Json = False,
) -> None:
    """The texts that wait, with the ids of those who may have written them. The policy says how long their words are kept."""
    waiting = customer_replies.waiting(bootstrap.services(), limit)
    fields = ("id", "received_at", "answer_until", "channel", "recipients", "text")
    lines = [
        (text.id, text.received_at.isoformat(), moment(text.answer_until), text.channel.value, list(text.recipients), text.words)
        for text in waiting
    ]
    if as_json:
        print_json({"texts": [dict(zip(fields, line, strict=True)) for line in lines]})
    elif lines:
        rows("", [name.replace("_", " ") for name in fields], [(*line[:4], " ".join(line[4]), line[5]) for line in lines])
    else:
        out.print("nothing waits")


@app.command()
def answer(
    text_id: Annotated[str, typer.Argument(metavar="ID", help="The text's id.")],
    words: Annotated[str, typer.Argument(help="What to say, in the person's language. Sent as it stands, and not kept.")],
    actor: Annotated[str | None, typer.Option(help="Who answers. Default: you.")] = None,
    as_json: Json = False,
) -> None:
    """Answer a text in free words, and take it off the list. By WhatsApp that is possible within 24 hours of the person's own."""
    objection = agent_reply.answer(bootstrap.services(), text_id, words, actor or getpass.getuser())
    if objection is not None:
        fail(objection, REFUSED)
    if as_json:
        print_json({"id": text_id, "answered": True})
    else:
        out.print("answered")


@app.command()
def close(
    text_id: Annotated[str, typer.Argument(metavar="ID", help="The text's id.")],
    stop: Annotated[bool, typer.Option("--stop", help="It said no: obey it as a STOP, from when it came in.")] = False,
    actor: Annotated[str | None, typer.Option(help="Who read it. Default: you.")] = None,
    as_json: Json = False,
) -> None:
    """Take a text off the list once it has been read."""
    if not customer_replies.resolve(bootstrap.services(), publish, text_id, actor or getpass.getuser(), stop):
        fail(f"no text {text_id} waits", 1)
    if as_json:
        print_json({"id": text_id, "closed": True, "stop": stop})
    else:
        out.print("closed, and obeyed as a STOP" if stop else "closed")

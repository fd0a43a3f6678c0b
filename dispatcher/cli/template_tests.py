"""`dispatcher templates test` and `templates tests`: messages to testers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from channels.base import Channel
from dispatcher.campaigns import template_approval, tester_sends
from dispatcher.campaigns.tester_sends import TesterSend, TestRequest
from dispatcher.cli.identity import open_for
from dispatcher.cli.output import BAD_INPUT, REFUSED, Json, err, fail, out, print_json, rows, show_left_out
from dispatcher.cli.template_data import read_data
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.message import Mode
from dispatcher.domain.principal import Right
from dispatcher.domain.recipient import LANGUAGES
from dispatcher.runtime import bootstrap
from dispatcher.runtime.settings import SANDBOX
from dispatcher.web.serializers.templates import tester_send_view

app = typer.Typer()

_NOT_REACHED = frozenset({"refused", "unresolved_host", "tls", "certificate"})  # codes of `channels.http`: nothing was sent
_NO_SANDBOX = _NOT_REACHED | {"no_access_token"}  # FCM's double gives the token for a push, too


@app.command("test")
def send_test(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The template's name.")],
    to: Annotated[str, typer.Option(help="A tester's name from the section testers of the policy.")],
    channel: Annotated[Channel, typer.Option()],
    language: Annotated[str | None, typer.Option(help="nl, fr, de or en. Default: the tester's language.")] = None,
    mode: Annotated[Mode, typer.Option(help="tailored or standard.")] = Mode.STANDARD,
    data: Annotated[Path | None, typer.Option(help="Variables as a JSON file; the template's examples fill in the rest.")] = None,
    as_json: Json = False,
) -> None:
    """Send a template as it now is to a tester, marked as a test. No approval is needed, and nothing is counted."""
    services, who = open_for(Right.TEMPLATES, Right.CAMPAIGNS, act=AuditNote(AuditAction.TEST, "template", name))
    tester = tester_sends.tester_of(services, to)
    template = template_approval.template_version(services, name).template
    chosen = next((each for each in LANGUAGES if each == (language or tester.language)), None)
    if chosen is None:
        fail(f"--language: {language!r} is not one of {', '.join(LANGUAGES)}", BAD_INPUT)
    sent = tester_sends.send_test(services, tester, TestRequest(template, channel, chosen, mode, who, read_data(data)))
    assert sent is not None  # noqa: S101  only a seed can have been sent before
    hint = _hint(sent) if sent.state != "accepted" else ""
    if as_json:
        print_json({**tester_send_view(sent), **({"hint": hint} if hint else {})})
    else:
        result = " ".join(filter(None, (sent.state, sent.code, sent.receipt)))
        out.print(f"{name}, {channel}, {chosen}, {mode} to {to}: {result}", markup=False)
        if hint:
            err.print(hint, markup=False)
    if sent.state != "accepted":
        raise typer.Exit(REFUSED)


def _hint(sent: TesterSend) -> str:
    """Why nothing, or nothing for certain, was sent, and what to do."""
    settings, channel = bootstrap.settings(), Channel(sent.channel)
    if settings.providers[channel] == SANDBOX and sent.code in _NO_SANDBOX:
        return (
            f"Nothing was sent: {channel} goes to the sandbox, and nothing answers at {settings.sandbox_url}. "
            "Start it with `dispatcher up` in another terminal, then repeat this."
        )
    provider = sent.provider or settings.providers[channel]
    if sent.code in _NOT_REACHED:
        return f"Nothing was sent: {provider} could not be reached. Look at its settings (`dispatcher check`), then repeat this."
    if sent.state == "uncertain":
        return f"It may have been sent: {provider} gave no answer that says so ({sent.code}). Look at the tester's {channel} first."
    return f"Nothing was sent: {provider} refused it with {sent.code or 'no code'}."


@app.command("tests")
def list_tests(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Default: all templates.")] = None, as_json: Json = False
) -> None:
    """List the newest test sends: who sent which version to whom, and what became of it."""
    sends = [tester_send_view(each) for each in tester_sends.newest(bootstrap.services(on_faults=show_left_out), name, 100)]
    if as_json:
        print_json(sends)
        return
    columns = ("at", "template", "digest", "tester", "channel", "language", "mode", "by", "state", "code")
    rows("", columns, [[str(send[column] or "")[: 12 if column == "digest" else None] for column in columns] for send in sends])

"""`dispatcher templates …`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from channels.base import Channel, Email
from dispatcher import content
from dispatcher.campaigns import template_approval
from dispatcher.campaigns.template_approval import TemplateVersion
from dispatcher.campaigns.whatsapp_templates import unapproved_texts
from dispatcher.cli import template_drafts, template_history, template_tests
from dispatcher.cli.output import BAD_INPUT, REFUSED, Json, err, fail, out, pairs, print_json, rows
from dispatcher.cli.template_data import read_data
from dispatcher.delivery.approval_check import DIGEST_SHOWN
from dispatcher.domain.message import Mode
from dispatcher.domain.recipient import LANGUAGES
from dispatcher.domain.spelling import did_you_mean
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.runtime import bootstrap
from dispatcher.runtime.consistency import disagreements
from dispatcher.web.serializers import approval_text, template_view

app = typer.Typer(help="Write, check, preview and approve message templates.", no_args_is_help=True)
app.add_typer(template_drafts.app)
app.add_typer(template_tests.app)
app.add_typer(template_history.app)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The template's name.")]
Actor = Annotated[str, typer.Option(help="Who approves or withdraws: the name of a person other than the author.")]
Comment = Annotated[str, typer.Option(help="What the person wants to be kept with it.")]
Digest = Annotated[
    str | None,
    typer.Option(help="The digest that `list` showed, or that of a version approved before. Default: the template as it now is."),
]


@app.command()
def check(
    name: Annotated[str | None, typer.Argument(help="Default: all.")] = None,
    whatsapp: Annotated[bool, typer.Option("--whatsapp", help="Also name the texts that WhatsApp has not approved.")] = False,
    as_json: Json = False,
) -> None:
    """Read every template completely, compare it with the policy, and name every error."""
    folder = bootstrap.settings().templates
    found = content.check(folder) or disagreements(bootstrap.policy(bootstrap.settings())[0], content.load(folder).values())
    errors = [error for error in found if name is None or f"/{name}/" in f"/{error.file}"]
    if whatsapp and not errors:
        errors = unapproved_texts(bootstrap.services(), name)
    unwritten = [] if found else template_drafts.unwritten(content.load(folder), name)
    if as_json:
        print_json({"faults": [asdict(error) for error in errors], "to_write": [asdict(error) for error in unwritten]})
    elif errors:
        for error in errors:
            err.print(str(error), markup=False)
    else:
        catalog = content.load(folder)
        _check_name(name, catalog)
        lines = [
            (each.name, each.info.kind, each.info.offer_type, ", ".join(sorted(each.info.modes)), ", ".join(each.channels))
            for each in catalog.values()
            if name in (None, each.name)
        ]
        rows("", ("template", "kind", "offer", "modes", "channels"), lines)
        shown = [each for each in catalog.values() if name in (None, each.name)]
        texts = [(*place, str(segments)) for each in shown for *place, segments in content.sms_sizes(each)]
        rows("\nSMS, from the examples", ("template", "language", "mode", "segments"), texts)
        template_drafts.show(unwritten)
    if errors or unwritten:
        raise typer.Exit(REFUSED)


@app.command()
def preview(
    name: Annotated[str, typer.Argument(help="The template's name.")],
    channel: Annotated[Channel, typer.Option()],
    language: Annotated[str, typer.Option(help="nl, fr, de or en.")],
    mode: Annotated[Mode, typer.Option(help="tailored or standard.")] = Mode.STANDARD,
    data: Annotated[Path | None, typer.Option(help="Variables as a JSON file; the template's examples fill in the rest.")] = None,
    as_json: Json = False,
) -> None:
    """Print one message as it would be sent. An e-mail's HTML goes to stdout as a whole."""
    catalog = content.load(bootstrap.settings().templates)
    _check_name(name, catalog)
    if language not in LANGUAGES:
        fail(f"--language: {language!r} is not one of {', '.join(LANGUAGES)}", BAD_INPUT)
    try:
        rendered = content.preview(catalog, name, channel, language, mode, read_data(data))
    except content.ContentRefusal as refusal:
        fail(f"{refusal.code}: {refusal.variable}", REFUSED)
    fields = asdict(rendered)
    if as_json:
        print_json(fields)
        return
    html = fields.pop("html") if isinstance(rendered, Email) else None
    pairs("", fields)
    if html:
        out.print(f"\n{html}", markup=False)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List every template with the digest of its present version, and who approved that."""
    versions = template_approval.template_versions(bootstrap.services())
    if as_json:
        print_json([template_view(version) for version in versions])
        return
    lines = [
        (
            version.template.name,
            version.template.version,
            version.template.info.kind,
            version.template.digest[:DIGEST_SHOWN],
            approval_text(version),
        )
        for version in versions
    ]
    rows("", ("template", "version", "kind", "digest", "approval"), lines)


@app.command()
def approve(name: Name, actor: Actor, digest: Digest = None, comment: Comment = "", as_json: Json = False) -> None:
    """Approve a template's version for commercial use. A change of any byte makes another version.

    Where the policy asks for two people, the first approval waits for that of somebody else.
    """
    _show_approval(name, template_approval.set_approval(bootstrap.services(), name, True, actor, digest, comment), as_json)


@app.command()
def withdraw(name: Name, actor: Actor, digest: Digest = None, comment: Comment = "", as_json: Json = False) -> None:
    """Withdraw an approval: running campaigns with this version pause themselves."""
    _show_approval(name, template_approval.set_approval(bootstrap.services(), name, False, actor, digest, comment), as_json)


def _show_approval(name: str, version: TemplateVersion, as_json: bool) -> None:
    if as_json:
        print_json(template_view(version))
        return
    template = version.template
    out.print(f"{name}, version {template.version}, {template.digest[:DIGEST_SHOWN]}: {approval_text(version)}", markup=False)


def _check_name(name: str | None, catalog: content.Catalog) -> None:
    if name is not None and name not in catalog:
        raise BadInput(InputError("NAME", 0, "", f"there is no template {name!r}{did_you_mean(name, catalog)}"))

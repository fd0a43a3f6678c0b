"""`dispatcher templates …`."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from channels.base import Channel
from dispatcher import __version__, content
from dispatcher.campaigns import template_approval
from dispatcher.campaigns.template_approval import TemplateVersion
from dispatcher.campaigns.whatsapp_templates import unapproved_texts
from dispatcher.cli import (
    template_drafts,
    template_history,
    template_tests,
    template_translations,
    template_workbench,
    whatsapp_templates,
)
from dispatcher.cli.identity import acting, noted, open_for
from dispatcher.cli.output import BAD_INPUT, REFUSED, Json, err, fail, out, pairs, print_json, rows, show_left_out
from dispatcher.cli.template_data import read_data
from dispatcher.content.lint.findings import LintFinding, Severity, lint_rule
from dispatcher.delivery.approval_check import DIGEST_SHOWN
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.message import Mode
from dispatcher.domain.principal import Right
from dispatcher.domain.recipient import LANGUAGES
from dispatcher.domain.spelling import did_you_mean
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.policy import Policy
from dispatcher.runtime import bootstrap
from dispatcher.runtime.entity_senders import senders_of
from dispatcher.runtime.template_previews import MessageSelection, message_preview
from dispatcher.web.serializers.templates import approval_text, template_view

app = typer.Typer(help="Write, check, preview and approve message templates.", no_args_is_help=True)
app.add_typer(template_drafts.app)
app.add_typer(template_tests.app)
app.add_typer(template_history.app)
app.add_typer(template_workbench.app)
app.add_typer(whatsapp_templates.app, name="whatsapp")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The template's name.")]
Comment = Annotated[str, typer.Option(help="What the person wants to be kept with it.")]
Digest = Annotated[
    str | None,
    typer.Option(help="The digest that `list` showed, or that of a version approved before. Default: the template as it now is."),
]


class Format(StrEnum):
    """How `check` prints its findings."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"


@app.command()
def check(
    name: Annotated[str | None, typer.Argument(help="Default: all.")] = None,
    output: Annotated[Format, typer.Option("--format", help="SARIF 2.1.0 is for code hosts.")] = Format.TEXT,
    explain: Annotated[str | None, typer.Option(metavar="CODE", help="Explain a code, such as T104, and check nothing.")] = None,
    fail_on: Annotated[Severity, typer.Option(help="End with exit code 1 from this severity on.")] = Severity.ERROR,
    whatsapp: Annotated[bool, typer.Option("--whatsapp", help="Also name the texts that WhatsApp has not approved.")] = False,
    as_json: Json = False,
) -> None:
    """Check every template completely: loading, accessibility, deliverability, links, law, consistency, rendering. Report every
    finding with its code, file and line."""
    from dispatcher.content.lint.sarif import sarif
    from dispatcher.runtime.template_lint import errors, lint_folder  # takes 0.1 s, which the other commands need not wait for

    if explain is not None:
        _explain(explain, as_json)
        return
    policy, folder = bootstrap.policy(bootstrap.file_settings())[0], bootstrap.file_settings().templates
    if name is not None:
        _check_folder(name, folder)
    findings = lint_folder(policy, folder, name)
    unwritten = [] if errors(findings) else template_drafts.unwritten(content.load(folder), name)
    unapproved = unapproved_texts(bootstrap.services(on_faults=show_left_out), name) if whatsapp and not errors(findings) else []
    if output is Format.SARIF:
        print_json(sarif(findings, _relative(folder), __version__))
    elif as_json or output is Format.JSON:
        print_json({**_by_severity(findings, unapproved), "to_write": [asdict(error) for error in unwritten]})
    else:
        for each in (*findings, *unapproved):
            err.print(str(each), markup=False)
        if not errors(findings):
            _print_overview(policy, name, folder)
            template_drafts.show(unwritten)
    levels = list(Severity)
    if unwritten or unapproved or any(levels.index(each.severity) <= levels.index(fail_on) for each in findings):
        raise typer.Exit(REFUSED)


def _by_severity(findings: list[LintFinding], unapproved: list[content.TemplateError]) -> dict[str, list[dict[str, object]]]:
    names = {Severity.ERROR: "faults", Severity.WARNING: "warnings", Severity.INFO: "notes"}
    lists = {key: [asdict(each) for each in findings if each.severity is severity] for severity, key in names.items()}
    lists["faults"] += [asdict(error) for error in unapproved]
    return lists


def _explain(code: str, as_json: bool) -> None:
    try:
        rule = lint_rule(code)
    except KeyError as error:
        raise BadInput(InputError("--explain", 0, "", str(error.args[0]))) from None
    if as_json:
        print_json(asdict(rule))
    else:
        pairs("", asdict(rule))


def _check_folder(name: str, folder: Path) -> None:
    names = (
        [path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(("_", "."))]
        if folder.is_dir()
        else []
    )
    if name not in names:
        raise BadInput(InputError("NAME", 0, "", f"there is no template {name!r}{did_you_mean(name, names)}"))


def _relative(folder: Path) -> str:
    """The folder as seen from the working directory, which code hosts take for the repository."""
    here = Path.cwd()
    return folder.resolve().relative_to(here).as_posix() if folder.resolve().is_relative_to(here) else folder.as_posix()


def _print_overview(policy: Policy, name: str | None, folder: Path) -> None:
    shown = [each for each in content.load(folder).values() if name in (None, each.name)]
    lines = [
        (each.name, each.info.kind, each.info.offer_type, ", ".join(sorted(each.info.modes)), ", ".join(each.channels))
        for each in shown
    ]
    rows("", ("template", "kind", "offer", "modes", "channels"), lines)
    texts = [(*place, str(segments)) for each in shown for *place, segments in content.sms_sizes(each, senders_of(policy, each))]
    rows("\nSMS, from the examples", ("template", "language", "mode", "segments"), texts)


@app.command()
def preview(
    name: Annotated[str, typer.Argument(help="The template's name.")],
    channel: Annotated[Channel, typer.Option()],
    language: Annotated[str, typer.Option(help="nl, fr, de or en.")],
    mode: Annotated[Mode, typer.Option(help="tailored or standard.")] = Mode.STANDARD,
    data: Annotated[Path | None, typer.Option(help="Variables as a JSON file; the template's examples fill in the rest.")] = None,
    as_json: Json = False,
) -> None:
    """Print one message as it would be sent: a WhatsApp text with its values, an e-mail's HTML as a whole."""
    settings = bootstrap.file_settings()
    catalog = content.load_sound(settings.templates)[0]
    _check_name(name, catalog)
    if language not in LANGUAGES:
        fail(f"--language: {language!r} is not one of {', '.join(LANGUAGES)}", BAD_INPUT)
    selection = MessageSelection(channel, language, mode, read_data(data))
    shown = message_preview(bootstrap.policy(settings)[0], catalog[name], selection)
    if shown.content is None:
        fail(f"{shown.refused.code}: {shown.refused.variable}" if shown.refused else "cannot be rendered", REFUSED)
    fields = asdict(shown.content)
    if shown.whatsapp:
        fields["text"] = shown.whatsapp.text
    if as_json:
        print_json(fields)
        return
    html = fields.pop("html", None)
    if shown.whatsapp:
        fields["buttons"] = ", ".join(each.title for each in shown.whatsapp.buttons)
    pairs("", fields)
    if html:
        out.print(f"\n{html}", markup=False)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List every template with the digest of its present version, and who approved that."""
    versions = template_approval.template_versions(bootstrap.services(on_faults=show_left_out))
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
def approve(name: Name, digest: Digest = None, comment: Comment = "", as_json: Json = False) -> None:
    """Approve a template's version for commercial use. A change of any byte makes another version.

    The author does not approve. Where the policy asks for two people, the first approval waits for that of somebody else.
    """
    services, who = open_for(Right.TEMPLATES, act=AuditNote(AuditAction.APPROVE, "template", name, reason=comment))
    _show_approval(name, template_approval.set_approval(services, name, True, who, digest, comment), as_json)


@app.command()
def withdraw(name: Name, digest: Digest = None, comment: Comment = "", as_json: Json = False) -> None:
    """Withdraw an approval: running campaigns with this version pause themselves.

    It also works while the template, or another, has faults.
    """
    services = bootstrap.services(on_faults=show_left_out)
    who = acting(services, Right.TEMPLATES)
    noted(services, AuditNote(AuditAction.WITHDRAW, "template", name, reason=comment))
    _show_approval(name, template_approval.set_approval(services, name, False, who, digest, comment), as_json)


def _show_approval(name: str, version: TemplateVersion, as_json: bool) -> None:
    if as_json:
        print_json(template_view(version))
        return
    template = version.template
    out.print(f"{name}, version {template.version}, {template.digest[:DIGEST_SHOWN]}: {approval_text(version)}", markup=False)


def _check_name(name: str | None, catalog: content.Catalog) -> None:
    if name is not None and name not in catalog:
        raise BadInput(InputError("NAME", 0, "", catalog.reason(name)))


template_translations.add_to(app)  # after the commands above, as the help lists them

"""`dispatcher templates history`, `diff` and `rollback`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Annotated

import typer
from rich.text import Text

from dispatcher.campaigns.template_history import FOLDER, compare, history_of, put_back
from dispatcher.cli.identity import limit
from dispatcher.cli.output import Json, out, plural, print_json, rows, show_left_out
from dispatcher.content import TextDiff, WordChange
from dispatcher.delivery.approval_check import DIGEST_SHOWN
from dispatcher.runtime import bootstrap
from dispatcher.web.serializers.templates import approval_text, known_version_view, template_view, text_diff_view

app = typer.Typer()

Name = Annotated[str, typer.Argument(metavar="NAME", help="The template's name.")]
_STYLES = {"same": "", "removed": "red strike", "added": "green bold"}
_MARKS = {"same": ("", ""), "removed": ("[-", "-]"), "added": ("{+", "+}")}  # where there are no colours, as `git diff --word-diff`
_CONTEXT = 6  # words shown around a change


@app.command()
def history(name: Name, as_json: Json = False) -> None:
    """List every version: who approved or withdrew it and when, with which comment, and which campaigns used it."""
    services = bootstrap.services(on_faults=show_left_out)
    versions = history_of(services, name, limit(services))
    if as_json:
        print_json([known_version_view(version) for version in versions])
        return
    for version in versions:
        out.print(f"{version.digest[:DIGEST_SHOWN]}{', the version in the folder' if version.is_present else ''}", markup=False)
        if version.first:
            first = version.first
            out.print(f"  {first.at:%Y-%m-%d %H:%M} UTC  approved first by {first.actor}  {first.comment}".rstrip(), markup=False)
        for each in version.approvals:
            who = f"{each.first_actor} and {each.actor}" if each.first_actor else each.actor
            done = f"{'approved' if each.approved else 'withdrawn'} by {who}"
            out.print(f"  {each.at:%Y-%m-%d %H:%M} UTC  {done}  {each.comment}".rstrip(), markup=False)
        if version.campaigns:
            out.print(f"  campaigns: {', '.join(f'{use.campaign} ({use.state})' for use in version.campaigns)}", markup=False)


@app.command()
def diff(
    name: Name,
    old: Annotated[str, typer.Argument(metavar="DIGEST", help="The former version: its digest, or 12 characters of it.")],
    new: Annotated[
        str, typer.Argument(metavar="[DIGEST|folder]", help="The other version. Default: the one in the folder.")
    ] = FOLDER,
    as_json: Json = False,
) -> None:
    """Show what readers see differently in two versions, word by word, for each language, channel and mode."""
    found = compare(bootstrap.services(on_faults=show_left_out), name, old, new)
    if as_json:
        print_json([text_diff_view(each) for each in found])
        return
    for words, alike in groupby(found, key=lambda each: (each.language, each.channel, each.mode, each.part, each.data)):
        out.print(Text("\n" + ", ".join(filter(None, words)), style="bold"))
        for each in alike:
            _show(each)
    out.print(f"\n{plural(len(found), 'text')} with differences", markup=False)


def _show(found: TextDiff) -> None:
    shown = Text()
    for change in shortened(found.changes):
        opening, closing = ("", "") if out.is_terminal else _MARKS[change.kind]
        shown.append(f"{opening}{change.text}{closing}", style=_STYLES[change.kind])
    out.print(shown)


def shortened(changes: Sequence[WordChange]) -> Iterator[WordChange]:
    """The changes with a few words around each."""
    for place, change in enumerate(changes):
        words = change.text.split(" ")
        if change.kind != "same" or len(words) <= 2 * _CONTEXT + 1:
            yield change
            continue
        begin = " ".join(words[:_CONTEXT]) if place else ""
        end = " ".join(words[-_CONTEXT:]) if place + 1 < len(changes) else ""
        yield WordChange("same", f"{begin} … {end}")


@app.command()
def rollback(
    name: Name,
    digest: Annotated[str, typer.Argument(metavar="DIGEST", help="The former version: its digest, or 12 characters of it.")],
    as_json: Json = False,
) -> None:
    """Put a former version's files back into the folder of templates. Campaigns that are accepted from then on use it."""
    restored = put_back(bootstrap.services(on_faults=show_left_out), name, digest, bootstrap.settings().templates)
    version = restored.version
    if as_json:
        print_json({**template_view(version), "is_exact": restored.is_exact, "files": list(restored.files)})
        return
    rows("", ("changed file",), [(file,) for file in restored.files])
    shown = f"{name}, version {version.template.version}, {version.template.digest[:DIGEST_SHOWN]}: {approval_text(version)}"
    out.print(shown, markup=False)
    if not restored.is_exact:
        out.print("Shared files have changed since, so this is a new version with the former texts.", markup=False)
    out.print("Campaigns that were accepted before keep theirs; to stop them, withdraw that version's approval.", markup=False)
